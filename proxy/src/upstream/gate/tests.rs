//! Gates with waiters on paused time, and the line as values.

use super::*;

fn gate(places: u32, queue: u32) -> Arc<Gate> {
    Gate::new(
        Bounds {
            places,
            first: places,
            below_first: places,
            queue,
            wait: Duration::from_millis(100),
        },
        false,
    )
}

fn enter(gate: &Arc<Gate>) -> Place {
    match gate.enter(Tier::Second, None) {
        Entry::In(place) => place,
        Entry::Wait(_) => panic!("asked to wait"),
        Entry::Full => panic!("full"),
    }
}

fn wait(gate: &Arc<Gate>, tier: Tier) -> Turn {
    match gate.enter(tier, None) {
        Entry::Wait(turn) => turn,
        Entry::In(_) => panic!("let in"),
        Entry::Full => panic!("full"),
    }
}

fn is_full(gate: &Arc<Gate>, tier: Tier) -> bool {
    matches!(gate.enter(tier, None), Entry::Full)
}

#[test]
fn places_are_bounded_and_come_back() {
    let gate = gate(2, 0);
    let first = enter(&gate);
    let second = enter(&gate);
    assert_eq!((first.load, second.load), (1, 2));
    assert!(is_full(&gate, Tier::First));

    drop(first);
    let third = enter(&gate);
    assert_eq!(gate.taken(), 2);
    drop((second, third));
    assert_eq!(gate.taken(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_the_place_that_is_left() {
    let gate = gate(1, 2);
    let place = enter(&gate);
    let first = wait(&gate, Tier::Second);
    let second = wait(&gate, Tier::Second);
    assert!(is_full(&gate, Tier::Second));
    assert_eq!(gate.waiting(), 2);

    drop(place);
    let place = first.come().await.unwrap();
    assert_eq!((gate.taken(), gate.waiting()), (1, 1));
    drop(place);
    drop(second.come().await.unwrap());
    assert_eq!((gate.taken(), gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_is_allowed() {
    let gate = gate(1, 8);
    let _place = enter(&gate);
    let began = clock::now();
    let turn = wait(&gate, Tier::Second);

    assert_eq!(turn.come().await.unwrap_err(), Left::TooLong);
    assert_eq!(clock::now() - began, Duration::from_millis(100));
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clients_deadline_ends_its_waiting() {
    let gate = gate(1, 8);
    let _place = enter(&gate);
    let began = clock::now();
    let Entry::Wait(turn) = gate.enter(Tier::Second, Some(began + Duration::from_millis(7))) else {
        panic!("not asked to wait");
    };
    assert!(matches!(gate.enter(Tier::First, Some(began)), Entry::Full));

    assert_eq!(turn.come().await.unwrap_err(), Left::TooLong);
    assert_eq!(clock::now() - began, Duration::from_millis(7));
}

#[tokio::test(start_paused = true)]
async fn in_an_overload_the_newest_goes_first_and_patience_is_short() {
    let gate = gate(1, 8);
    let mut place = enter(&gate);
    // Nobody of them ever leaves the queue empty.
    let mut last = wait(&gate, Tier::Second);
    for _ in 0..6 {
        tokio::time::advance(Duration::from_millis(30)).await;
        let next = wait(&gate, Tier::Second);
        drop(std::mem::replace(&mut last, next));
    }
    let newer = wait(&gate, Tier::Second);
    let newest = wait(&gate, Tier::Second);
    drop(place);
    place = newest.come().await.unwrap();

    let began = clock::now();
    assert_eq!(newer.come().await.unwrap_err(), Left::TooLong);
    assert_eq!(clock::now() - began, Duration::from_millis(5));
    let began = clock::now();
    let vital = wait(&gate, Tier::First);
    assert_eq!(vital.come().await.unwrap_err(), Left::TooLong);
    assert_eq!(clock::now() - began, Duration::from_millis(100));
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn an_overload_is_over_once_nobody_had_to_wait_for_as_long_as_patience_lasts() {
    let gate = gate(1, 8);
    let place = enter(&gate);
    let patience = async || {
        let began = clock::now();
        let turn = wait(&gate, Tier::Second);
        assert_eq!(turn.come().await.unwrap_err(), Left::TooLong);
        (clock::now() - began).as_millis()
    };
    // Somebody waits all of the time.
    let long = wait(&gate, Tier::Second);
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(patience().await, 5);
    drop(long);

    // For a moment nobody does.
    for _ in 0..3 {
        tokio::time::advance(Duration::from_millis(90)).await;
        assert_eq!(patience().await, 5);
    }
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(patience().await, 100);
    drop(place);
}

#[tokio::test(start_paused = true)]
async fn a_better_tier_goes_first_and_pushes_a_worse_one_out() {
    let gate = gate(1, 2);
    let place = enter(&gate);
    let oldest = wait(&gate, Tier::Third);
    let worse = wait(&gate, Tier::Third);
    let better = wait(&gate, Tier::First);
    assert_eq!(oldest.come().await.unwrap_err(), Left::MadeWay);
    assert!(is_full(&gate, Tier::Third));

    drop(place);
    let place = better.come().await.unwrap();
    drop(place);
    drop(worse.come().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_leaves_no_place_behind() {
    let gate = gate(1, 4);
    let place = enter(&gate);
    let gone = wait(&gate, Tier::Second);
    let called = wait(&gate, Tier::Second);
    drop(gone);
    assert_eq!(gate.waiting(), 1);
    drop(place); // calls the other one, which then leaves
    assert_eq!(gate.taken(), 1);
    drop(called);
    assert_eq!((gate.taken(), gate.waiting()), (0, 0));
}

#[test]
fn worse_tiers_are_refused_before_all_places_are_taken() {
    let gate = Gate::new(
        Bounds {
            places: 100,
            first: 100,
            below_first: 100,
            queue: 0,
            wait: Duration::ZERO,
        },
        true,
    );
    let mut places = Vec::new();
    let mut admitted = [0_u32; 4];
    for tier in Tier::ALL.into_iter().rev() {
        while let Entry::In(place) = gate.enter(tier, None) {
            places.push(place);
        }
        admitted[tier as usize] = gate.taken();
    }
    // 80 + 20 · ∛(1 − priority / 100)
    assert_eq!(admitted, [100, 97, 94, 88]);
}

#[test]
fn bounds_that_shrink_leave_those_in_peace_who_are_in() {
    let gate = gate(3, 0);
    let places = [enter(&gate), enter(&gate), enter(&gate)];
    gate.set(Bounds {
        places: 1,
        first: 1,
        below_first: 1,
        queue: 0,
        wait: Duration::ZERO,
    });
    assert_eq!(gate.taken(), 3);
    assert!(is_full(&gate, Tier::First));
    drop(places);
    drop(enter(&gate));
}

#[tokio::test(start_paused = true)]
async fn more_places_are_given_to_those_who_wait() {
    let gate = gate(1, 8);
    let _place = enter(&gate);
    let turn = wait(&gate, Tier::Second);
    gate.set(Bounds {
        places: 2,
        first: 2,
        below_first: 2,
        queue: 8,
        wait: Duration::from_millis(100),
    });
    drop(turn.come().await.unwrap());
}

/// Threads that come and go at random: no place is lost, none is given twice.
#[test]
fn threads_share_places_and_turns() {
    const PLACES: u32 = 4;
    let gate = gate(PLACES, 16);
    let inside = AtomicU32::new(0);
    let served = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (gate, inside, served) = (&gate, &inside, &served);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for round in 0..2_000_u64 {
                        let tier = Tier::ALL[((thread + round) % 4) as usize];
                        let place = match gate.enter(tier, None) {
                            Entry::In(place) => Some(place),
                            Entry::Wait(turn) if round % 7 == 0 => {
                                drop(turn);
                                None
                            }
                            Entry::Wait(turn) => turn.come().await.ok(),
                            Entry::Full => None,
                        };
                        let Some(place) = place else { continue };
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        assert!(now <= PLACES);
                        served.fetch_add(1, Ordering::Relaxed);
                        if round % 3 == 0 {
                            tokio::task::yield_now().await;
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            });
        }
    });
    assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    assert!(served.into_inner() > 4_000);
}
