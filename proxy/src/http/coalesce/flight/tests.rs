//! What readers see of what the lead writes.

use futures_util::task::noop_waker_ref;
use http::StatusCode;
use sealane_model::Failure;

use super::*;

const BODY_MAX: usize = 4_000;

fn begin() -> (Lead, Reader) {
    begin_counting(&Arc::default())
}

fn begin_counting(held_by_all: &Arc<AtomicUsize>) -> (Lead, Reader) {
    let bounds = Bounds {
        followers: 1_000,
        body_max: BODY_MAX,
        joined_until: crate::clock::now() + std::time::Duration::from_secs(60),
    };
    let (flight, reader) = Flight::begin(Arc::from(&b"key"[..]), bounds, held_by_all);
    (Lead(flight), reader)
}

fn join(lead: &Lead) -> Reader {
    lead.0.join(crate::clock::now()).unwrap()
}

fn cx() -> Context<'static> {
    Context::from_waker(noop_waker_ref())
}

fn ok() -> AnswerHead {
    AnswerHead::new(StatusCode::OK)
}

fn data(bytes: usize) -> Piece {
    Piece::Data(Bytes::from(vec![b'a'; bytes]))
}

fn status(reader: &mut Reader) -> Option<u16> {
    match reader.poll_head(&mut cx()) {
        Poll::Ready(Ok((head, _))) => Some(head.status.as_u16()),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

/// Bytes until nothing more comes, and whether that was the end.
fn read(reader: &mut Reader) -> Result<(usize, bool), Failure> {
    let mut bytes = 0;
    loop {
        match reader.poll_piece(&mut cx()) {
            Poll::Pending => return Ok((bytes, false)),
            Poll::Ready(Ok(Piece::Data(piece))) => bytes += piece.len(),
            Poll::Ready(Ok(Piece::Last(piece))) => return Ok((bytes + piece.len(), true)),
            Poll::Ready(Ok(Piece::End(_))) => return Ok((bytes, true)),
            Poll::Ready(Err(failure)) => return Err(failure),
        }
    }
}

#[test]
fn everybody_reads_everything_whenever_it_came() {
    let (lead, mut first) = begin();
    let mut early = join(&lead);
    let mut hint = AnswerHead::new(StatusCode::EARLY_HINTS);
    hint.fields.append("link", b"x");
    lead.send_head(hint, false);
    lead.send_head(ok(), false);
    lead.send_piece(data(10));
    assert_eq!(status(&mut first), Some(103));
    assert_eq!(status(&mut first), Some(200));
    assert_eq!(read(&mut first), Ok((10, false)));

    let mut late = join(&lead);
    lead.send_piece(Piece::Last(Bytes::from_static(b"end")));

    assert_eq!(read(&mut first), Ok((3, true)));
    for reader in [&mut early, &mut late] {
        assert_eq!(status(reader), Some(103));
        assert_eq!(status(reader), Some(200));
        assert_eq!(read(reader), Ok((13, true)));
    }
    assert_eq!(lead.0.join(crate::clock::now()).err(), Some(Closed::Late));
}

#[test]
fn trailers_reach_everybody() {
    let (lead, first) = begin();
    let second = join(&lead);
    lead.send_head(ok(), false);
    let mut trailers = Fields::new();
    trailers.append("x-sum", b"1");
    lead.send_piece(Piece::End(Some(Box::new(trailers))));

    for mut reader in [first, second] {
        assert_eq!(status(&mut reader), Some(200));
        let Poll::Ready(Ok(Piece::End(Some(trailers)))) = reader.poll_piece(&mut cx()) else {
            panic!("no trailers");
        };
        assert_eq!(trailers.get_str("x-sum"), Some("1"));
    }
}

#[test]
fn the_lead_waits_for_the_furthest_reader_and_not_for_the_slow() {
    let (lead, mut fast) = begin();
    let _slow = join(&lead);
    lead.send_head(ok(), false);
    assert!(lead.poll_room(&mut cx()).is_ready());
    lead.send_piece(data(WINDOW as usize));
    assert!(lead.poll_room(&mut cx()).is_pending());

    assert_eq!(read(&mut fast), Ok((WINDOW as usize, false)));
    assert!(lead.poll_room(&mut cx()).is_ready());

    lead.send_piece(data(10));
    read(&mut fast).unwrap();
    lead.send_piece(data(WINDOW as usize));
    assert!(lead.poll_room(&mut cx()).is_pending());
}

#[test]
fn a_slow_reader_holds_no_more_than_the_log_and_then_loses_its_place() {
    let all = Arc::new(AtomicUsize::new(0));
    let (lead, mut fast) = begin_counting(&all);
    let mut slow = join(&lead);
    let mut waiting = join(&lead);
    lead.send_head(ok(), false);
    assert_eq!(status(&mut fast), Some(200));
    assert_eq!(status(&mut slow), Some(200));

    for _ in 0..100 {
        lead.send_piece(data(1_000));
        assert_eq!(read(&mut fast), Ok((1_000, false)));
        let held = all.load(Ordering::Relaxed);
        assert!(held <= BODY_MAX + 1_000 + 2 * PIECE_COST, "{held}");
    }

    assert_eq!(read(&mut slow), Err(Failure::Closed));
    // Who has not seen the head yet may still have an attempt of its own.
    assert_eq!(status(&mut waiting), None);
    assert!(matches!(waiting.told(), Told::Released(Part::Lagged)));
    assert_eq!(lead.0.join(crate::clock::now()).err(), Some(Closed::Late));

    drop((lead, fast, slow, waiting));
    assert_eq!(all.load(Ordering::Relaxed), 0);
}

#[test]
fn what_the_only_reader_has_not_taken_is_kept_however_much_is_held() {
    let all = Arc::new(AtomicUsize::new(HELD_BY_ALL_MAX * 2));
    let (lead, mut reader) = begin_counting(&all);
    lead.send_head(ok(), false);
    assert_eq!(status(&mut reader), Some(200));

    for _ in 0..10 {
        lead.send_piece(data(WINDOW as usize));
        lead.send_piece(data(WINDOW as usize));
        assert_eq!(read(&mut reader), Ok((2 * WINDOW as usize, false)));
    }
    lead.send_piece(data(1));
    // Under pressure nothing is held for those who might come.
    let held = all.load(Ordering::Relaxed) - HELD_BY_ALL_MAX * 2;
    assert!(held <= 1 + PIECE_COST, "{held}");
}

#[test]
fn when_the_furthest_leaves_the_lead_waits_for_the_next() {
    let (lead, mut fast) = begin();
    let mut slow = join(&lead);
    lead.send_head(ok(), false);
    lead.send_piece(data(100));
    lead.send_piece(data(WINDOW as usize));
    assert!(matches!(
        slow.poll_piece(&mut cx()),
        Poll::Ready(Ok(Piece::Data(_)))
    ));
    read(&mut fast).unwrap();
    assert!(lead.poll_room(&mut cx()).is_ready());

    drop(fast);

    assert!(lead.poll_room(&mut cx()).is_pending());
    read(&mut slow).unwrap();
    assert!(lead.poll_room(&mut cx()).is_ready());
}

#[test]
fn nobody_left_is_seen_and_the_first_is_not_missed_while_others_wait() {
    let (lead, first) = begin();
    let other = join(&lead);
    assert!(lead.poll_gone(&mut cx()).is_pending());
    drop(first);
    assert!(lead.poll_gone(&mut cx()).is_pending());
    drop(other);
    assert!(lead.poll_gone(&mut cx()).is_ready());
}

#[tokio::test]
async fn an_answer_set_apart_is_for_the_first_alone_and_others_leave_in_turns() {
    let (lead, mut first) = begin();
    let others: Vec<_> = (0..RELEASED_MAX + 2).map(|_| join(&lead)).collect();
    lead.set_apart(Part::Private);
    lead.send_head(ok(), true);

    let mut turns = Vec::new();
    let mut waiting = Vec::new();
    for mut reader in others {
        assert_eq!(status(&mut reader), None);
        assert!(matches!(reader.told(), Told::Released(Part::Private)));
        reader.queue();
        match reader.poll_head(&mut cx()) {
            Poll::Ready(Err(_)) => turns.push(reader.told()),
            Poll::Ready(Ok(_)) => panic!("it got what was not for it"),
            Poll::Pending => waiting.push(reader),
        }
    }
    assert_eq!((turns.len(), waiting.len()), (RELEASED_MAX, 2));

    turns.pop();
    let mut next = waiting.remove(0);
    assert!(next.poll_head(&mut cx()).is_ready());
    assert!(matches!(next.told(), Told::Turn(_)));
    assert_eq!(status(&mut first), Some(200));
}

#[test]
fn an_answer_set_apart_is_for_nobody_once_the_first_has_left() {
    let (lead, first) = begin();
    let other = join(&lead);
    drop(first);
    // It takes the seat of the one that left, but not its place.
    let mut late = join(&lead);
    lead.set_apart(Part::Private);
    lead.send_head(ok(), true);

    assert_eq!(status(&mut late), None);
    assert!(matches!(late.told(), Told::Released(Part::Private)));
    assert!(lead.poll_gone(&mut cx()).is_ready());
    drop(other);
}

#[tokio::test]
async fn who_waits_for_its_turn_takes_an_answer_that_comes_first() {
    let (lead, _first) = begin();
    let mut all: Vec<_> = (0..=RELEASED_MAX).map(|_| join(&lead)).collect();
    let mut held = Vec::new();
    for reader in &mut all {
        reader.queue();
        if reader.poll_head(&mut cx()).is_ready() {
            held.push(reader.told());
        }
    }
    assert_eq!(held.len(), RELEASED_MAX);

    lead.send_head(ok(), true);

    let mut last = all.pop().unwrap();
    assert_eq!(status(&mut last), Some(200));
}

#[test]
fn a_lead_that_is_lost_is_told_before_the_head_and_cuts_behind_it() {
    let (lead, mut reader) = begin();
    drop(lead);
    assert_eq!(status(&mut reader), None);
    assert!(matches!(reader.told(), Told::Lost));

    let (lead, mut reader) = begin();
    lead.send_head(ok(), false);
    lead.send_piece(data(5));
    drop(lead);
    assert_eq!(status(&mut reader), Some(200));
    assert_eq!(read(&mut reader), Err(Failure::Closed));
}

#[test]
fn a_refusal_is_for_everybody() {
    let (lead, first) = begin();
    let second = join(&lead);
    lead.refuse(Refusal::Failed(Failure::Refused));

    for mut reader in [first, second] {
        assert_eq!(status(&mut reader), None);
        let Told::Refused(refusal) = reader.told() else {
            panic!("not refused");
        };
        assert_eq!(refusal, Refusal::Failed(Failure::Refused));
    }
}
