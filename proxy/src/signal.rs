//! A signal within one thread, raised once and for all: the worker drains.
//!
//! Cheaper to wait for than a channel, as each connection asks at every request: it registers once
//! and afterwards only compares a flag.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    /// One for each [`Listening`]: bounded by the connections that are open.
    waiting: RefCell<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        let wakers = std::mem::take(&mut self.waiting.borrow_mut().wakers);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.get()
    }

    pub(crate) fn listen(self: &Rc<Self>) -> Listening {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.free.pop().unwrap_or_else(|| {
            waiting.wakers.push(None);
            waiting.wakers.len() - 1
        });
        drop(waiting);
        Listening {
            signal: Rc::clone(self),
            place,
        }
    }
}

/// One task's ear for a signal.
#[derive(Debug)]
pub(crate) struct Listening {
    signal: Rc<Signal>,
    place: usize,
}

impl Listening {
    pub(crate) fn poll_raised(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.raised.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.signal.waiting.borrow_mut();
        if let Some(place) = waiting.wakers.get_mut(self.place)
            && !matches!(place, Some(waker) if waker.will_wake(cx.waker()))
        {
            *place = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(crate) async fn raised(&self) {
        std::future::poll_fn(|cx| self.poll_raised(cx)).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut waiting = self.signal.waiting.borrow_mut();
        // Once it is raised, nobody is woken again.
        if let Some(place) = waiting.wakers.get_mut(self.place) {
            *place = None;
            waiting.free.push(self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_and_whoever_comes_late_need_not_wait() {
        let signal = Rc::new(Signal::default());
        let early = signal.listen();
        let waiting = early.raised();
        let mut waiting = std::pin::pin!(waiting);
        let mut cx = Context::from_waker(noop_waker_ref());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        assert!(!signal.is_raised());

        let raising = async { signal.raise() };
        tokio::join!(waiting, raising);

        signal.listen().raised().await;
        assert!(signal.is_raised());
    }

    #[test]
    fn places_are_used_again() {
        let signal = Rc::new(Signal::default());
        let cx = &mut Context::from_waker(noop_waker_ref());
        for _ in 0..10 {
            let listening = signal.listen();
            assert!(listening.poll_raised(cx).is_pending());
        }
        assert_eq!(signal.waiting.borrow().wakers.len(), 1);
    }
}
