//! Lets those who move little, again and again, go a few at a time: a thousand bodies that each bring a byte
//! at the same moment are not to stand, all together, in front of one request.
//!
//! Each exchange, tunnel and TCP session asks its [`Pace`] before it moves anything. Who has just begun, or moves much,
//! passes at once; who drips passes as one of [`PASSES`] a turn, in the order of asking. Nobody is refused, and
//! nothing is kept back while there are few. Knows no socket and no clock. Belongs to one thread; [`run`] is
//! its task, and on a thread without it everybody passes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::io::yield_turn;

/// Those that drip and pass before the others that are ready have their turn.
const PASSES: u64 = 16;
/// Who moved less than this since it was last woken has moved little.
const LITTLE: u64 = 4 * 1024;
/// So often in a row, and it drips: an ordinary exchange is over by then.
const WAKES: u8 = 8;

/// Numbers are given in the order of asking; those below `served` may pass.
#[derive(Default)]
struct Gate {
    /// Of [`run`], while it runs.
    keeper: Option<Waker>,
    /// Who passes without waiting, until the turn ends.
    free: u64,
    served: u64,
    /// The one in front has the number `served`. One for each exchange, tunnel or session at most, but for those that
    /// ended while they waited, which leave with their turn.
    waiting: VecDeque<Waker>,
}

thread_local! {
    static GATE: RefCell<Gate> = RefCell::default();
}

impl Gate {
    fn poll_pass(&mut self, cx: &Context<'_>, number: &mut Option<u64>) -> Poll<()> {
        let Some(keeper) = &self.keeper else {
            *number = None;
            return Poll::Ready(());
        };
        if self.free == PASSES {
            keeper.wake_by_ref(); // at the turn's end
        }
        match *number {
            None if self.waiting.is_empty() && self.free > 0 => self.free -= 1,
            None => {
                *number = Some(self.served + self.waiting.len() as u64);
                self.waiting.push_back(cx.waker().clone());
                return Poll::Pending;
            }
            Some(mine) if mine < self.served => *number = None,
            Some(mine) => {
                let place = usize::try_from(mine - self.served).unwrap_or(usize::MAX);
                if let Some(waker) = self.waiting.get_mut(place) {
                    waker.clone_from(cx.waker());
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// `false`: the next turn begins when somebody asks.
    fn next_turn(&mut self) -> bool {
        self.free = PASSES;
        while self.free > 0
            && let Some(waker) = self.waiting.pop_front()
        {
            self.free -= 1;
            self.served += 1;
            waker.wake();
        }
        self.free < PASSES
    }
}

/// Opens the gate of this thread, for ever. One for each thread.
pub(crate) async fn run() {
    let _ending = Ending;
    poll_fn(|cx| {
        GATE.with_borrow_mut(|gate| {
            if !gate
                .keeper
                .as_ref()
                .is_some_and(|keeper| keeper.will_wake(cx.waker()))
            {
                gate.keeper = Some(cx.waker().clone());
            }
            if gate.next_turn() {
                return yield_turn(cx);
            }
            Poll::Pending
        })
    })
    .await
}

/// From now on everybody passes.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        // While the thread ends there may be none.
        let gate = GATE.try_with(RefCell::take);
        for waker in gate.into_iter().flat_map(|gate| gate.waiting) {
            waker.wake();
        }
    }
}

/// How much one exchange, tunnel or session moves.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When it was last woken.
    moved: u64,
    /// In a row, after which it had moved little.
    wakes: u8,
    number: Option<u64>,
}

impl Pace {
    /// To be asked first whenever it is woken. `moved`: bytes so far, whichever way.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, moved: u64) -> Poll<()> {
        if self.number.is_none() {
            let little = moved.saturating_sub(self.moved) < LITTLE;
            self.wakes = if little {
                self.wakes.saturating_add(1)
            } else {
                0
            };
            self.moved = moved;
            if self.wakes <= WAKES {
                return Poll::Ready(());
            }
        }
        GATE.with_borrow_mut(|gate| gate.poll_pass(cx, &mut self.number))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

    use super::*;

    /// One that has been dripping for a while.
    fn dripping() -> Pace {
        Pace {
            wakes: u8::MAX,
            ..Pace::default()
        }
    }

    fn ask(pace: &mut Pace, moved: u64) -> bool {
        pace.poll(&Context::from_waker(Waker::noop()), moved)
            .is_ready()
    }

    async fn keeper() -> JoinHandle<()> {
        let keeper = spawn_local(run());
        yield_now().await;
        yield_now().await;
        keeper
    }

    #[test]
    fn who_has_just_begun_or_moves_much_never_waits() {
        let mut gate = Gate {
            keeper: Some(Waker::noop().clone()),
            ..Gate::default()
        };
        GATE.with_borrow_mut(|mine| std::mem::swap(mine, &mut gate));
        let mut begun = Pace::default();
        for _ in 0..WAKES {
            assert!(ask(&mut begun, 0));
        }
        assert!(!ask(&mut begun, 0), "it drips, and the gate is shut");
        let mut moves = Pace::default();
        for turn in 1..100 {
            assert!(ask(&mut moves, turn * LITTLE));
        }
    }

    #[test]
    fn on_a_thread_without_a_keeper_everybody_passes() {
        for _ in 0..100 {
            assert!(ask(&mut dripping(), 0));
        }
    }

    #[tokio::test]
    async fn those_that_drip_pass_a_few_at_a_time_and_others_have_their_turn_between() {
        LocalSet::new()
            .run_until(async {
                let keeper = keeper().await;
                let passed = Rc::new(Cell::new(0));
                let tasks: Vec<_> = (0..100)
                    .map(|number| {
                        let passed = Rc::clone(&passed);
                        spawn_local(async move {
                            let mut pace = dripping();
                            poll_fn(|cx| pace.poll(cx, 0)).await;
                            passed.set(passed.get() + 1);
                            (number, passed.get())
                        })
                    })
                    .collect();
                let mut seen = vec![0];
                while passed.get() < 100 {
                    yield_now().await;
                    seen.push(passed.get());
                }
                for pair in seen.windows(2) {
                    assert!(pair[1] - pair[0] <= 2 * PASSES as i32, "{seen:?}");
                }
                for task in tasks {
                    let (number, turn) = task.await.unwrap();
                    assert_eq!(number + 1, turn, "in the order of asking");
                }
                keeper.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn who_leaves_while_it_waits_keeps_nobody_from_passing() {
        LocalSet::new()
            .run_until(async {
                let keeper = keeper().await;
                let wait = || {
                    spawn_local(async {
                        let mut pace = dripping();
                        poll_fn(|cx| pace.poll(cx, 0)).await;
                    })
                };
                let leaving: Vec<_> = (0..40).map(|_| wait()).collect();
                let staying = wait();
                yield_now().await;
                for task in leaving {
                    task.abort();
                }
                staying.await.unwrap();
                keeper.abort();
            })
            .await;
    }

    #[tokio::test]
    async fn when_the_keeper_ends_whoever_waits_passes() {
        LocalSet::new()
            .run_until(async {
                let keeper = keeper().await;
                let tasks: Vec<_> = (0..100)
                    .map(|_| {
                        spawn_local(async {
                            let mut pace = dripping();
                            poll_fn(|cx| pace.poll(cx, 0)).await;
                        })
                    })
                    .collect();
                yield_now().await;
                keeper.abort();
                for task in tasks {
                    task.await.unwrap();
                }
            })
            .await;
    }
}
