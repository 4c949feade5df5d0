//! What small writes of one thread wait in, until every task that is ready has had its turn.
//!
//! To wake a peer costs more than to hand it bytes, and a peer that is faster than we falls asleep between
//! two messages that are some microseconds apart. So what the tasks of one turn have to say leaves in a
//! row at the turn's end. Chooses nothing and holds no bytes: they wait in their wire (see [`super::Wire`]),
//! which goes on by itself when the socket does not take all of them.
//!
//! [`run`] is a task like others: waking it puts it behind all that are ready, so that it runs once they
//! have. On a thread without it nothing waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Weak;
use std::task::{Context, Poll, Waker};

use super::Inner;

/// At most one for each wire of the thread.
struct Waiting {
    /// Who closes a connection before its turn has nothing to say any more.
    wire: Weak<RefCell<Inner>>,
    /// Whoever goes on with it if the socket does not take all.
    owner: Waker,
}

#[derive(Default)]
struct Outbox {
    /// Of [`run`], while it runs.
    sender: Option<Waker>,
    waiting: Vec<Waiting>,
}

thread_local! {
    static OUTBOX: RefCell<Outbox> = RefCell::default();
}

/// Remembers a wire that has something to send; to be called once until its turn. `false`: nobody would.
pub(super) fn add(wire: Weak<RefCell<Inner>>, cx: &Context<'_>) -> bool {
    OUTBOX.with_borrow_mut(|outbox| {
        let Some(sender) = &outbox.sender else {
            return false;
        };
        if outbox.waiting.is_empty() {
            sender.wake_by_ref();
        }
        let owner = cx.waker().clone();
        outbox.waiting.push(Waiting { wire, owner });
        true
    })
}

/// Sends for all wires of this thread, for ever. One for each thread.
pub(crate) async fn run() {
    let _ending = Ending;
    let mut turn = Vec::new();
    // How much one task may send is bounded by its wires, each of which it touches once.
    let sending = tokio::task::unconstrained(poll_fn(|cx| {
        OUTBOX.with_borrow_mut(|outbox| {
            let same = outbox.sender.as_ref();
            if !same.is_some_and(|sender| sender.will_wake(cx.waker())) {
                outbox.sender = Some(cx.waker().clone());
            }
            std::mem::swap(&mut outbox.waiting, &mut turn);
        });
        for waiting in turn.drain(..) {
            waiting.send();
        }
        Poll::<()>::Pending
    }));
    sending.await;
}

impl Waiting {
    fn send(self) {
        let Some(wire) = self.wire.upgrade() else {
            return;
        };
        let mut cx = Context::from_waker(&self.owner);
        let mut inner = wire.borrow_mut();
        inner.listed = false;
        let sent = inner.poll_drain(&mut cx);
        drop(inner);
        if matches!(sent, Poll::Ready(Err(_))) {
            self.owner.wake(); // sees it with its next step
        }
    }
}

/// From now on nothing waits.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        // While the thread ends there may be none.
        let _ = OUTBOX.try_with(|outbox| outbox.take());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::ErrorKind::WouldBlock;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::net::TcpStream;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::run;
    use crate::io::Wire;
    use crate::io::tests::pair;

    async fn say(wire: &Wire, text: &[u8]) {
        wire.queue(text);
        let ready = poll_fn(|cx| wire.poll_ready(cx)).await;
        assert!(ready.is_ok());
    }

    fn has_arrived(peer: &TcpStream) -> bool {
        let socket = socket2::SockRef::from(peer);
        match socket.peek(&mut [std::mem::MaybeUninit::uninit()]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), WouldBlock);
                false
            }
        }
    }

    #[tokio::test]
    async fn what_is_little_leaves_once_all_others_that_are_ready_had_their_turn() {
        LocalSet::new()
            .run_until(async {
                let (wire, peer) = pair().await;
                let sending = spawn_local(run());
                yield_now().await;
                let other = spawn_local(async move { (has_arrived(&peer), peer) });

                say(&wire, b"a").await;
                say(&wire, b"b").await;

                assert!(!wire.is_flushed(), "it waits for its turn");
                let (early, peer) = other.await.unwrap();
                assert!(!early, "not before the other task");
                peer.readable().await.unwrap();
                assert!(wire.is_flushed());
                sending.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn on_a_thread_without_an_outbox_nothing_waits() {
        let (wire, _peer) = pair().await;

        say(&wire, b"a").await;

        assert!(wire.is_flushed());
    }

    #[tokio::test]
    async fn when_the_outbox_ends_nothing_waits_any_more() {
        LocalSet::new()
            .run_until(async {
                let (wire, _peer) = pair().await;
                let sending = spawn_local(run());
                yield_now().await;
                sending.abort();
                yield_now().await;

                say(&wire, b"a").await;

                assert!(wire.is_flushed());
            })
            .await;
    }

    #[tokio::test]
    async fn a_wire_that_is_let_go_before_its_turn_says_nothing() {
        LocalSet::new()
            .run_until(async {
                let (wire, peer) = pair().await;
                let sending = spawn_local(run());
                yield_now().await;

                say(&wire, b"a").await;
                drop(wire);

                peer.readable().await.unwrap();
                let read = peer.try_read(&mut [0]).unwrap();
                assert_eq!(read, 0, "an end, and no byte");
                sending.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn whoever_waits_for_more_goes_on_with_what_a_full_socket_did_not_take() {
        LocalSet::new()
            .run_until(async {
                let (wire, peer) = pair().await;
                let sending = spawn_local(run());
                let mut sent = 0;
                while wire.is_flushed() || sent < 64 * 1024 {
                    say(&wire, &[0; 8 * 1024]).await;
                    sent += 8 * 1024;
                    yield_now().await;
                    yield_now().await;
                }
                let idle = poll_fn(|cx| {
                    wire.drive(cx);
                    match wire.is_flushed() {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    }
                });
                let idle = tokio::time::timeout(Duration::from_secs(10), idle);
                let reading = async {
                    let mut read = 0;
                    while read < sent {
                        peer.readable().await.unwrap();
                        read += peer.try_read(&mut [0; 65_536]).unwrap_or(0);
                    }
                };

                let (driven, ()) = tokio::join!(idle, reading);

                assert!(driven.is_ok());
                sending.abort();
            })
            .await;
    }
}
