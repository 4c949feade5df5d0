//! The heads that a worker holds and that are not whole: how many bytes, and which is the oldest. When
//! they are too many, that one goes: whoever stops within a large head waits longest, and a client
//! whose head is merely on its way has just begun.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

/// Bytes of unfinished heads that a worker holds; beyond it the oldest is refused.
pub(crate) const HELD_MAX: usize = 32 * 1024 * 1024;
/// Heads that hold less are left out of the account: connections bound them.
pub(crate) const SMALL: usize = 8 * 1024;

/// A worker's account.
#[derive(Debug, Default)]
pub(crate) struct HeldHeads {
    bytes: Cell<usize>,
    /// The oldest first. Those that ended are taken out when they come to the front, or when they
    /// are more than the others.
    line: RefCell<VecDeque<Weak<Entry>>>,
    living: Cell<usize>,
}

#[derive(Debug, Default)]
struct Entry {
    bytes: Cell<usize>,
    refused: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl HeldHeads {
    /// Refuses the oldest until what is left fits.
    fn make_room(&self) {
        while self.bytes.get() > HELD_MAX {
            let Some(oldest) = self.line.borrow_mut().pop_front() else {
                return;
            };
            let Some(entry) = oldest.upgrade() else {
                continue;
            };
            self.bytes.set(self.bytes.get() - entry.bytes.take());
            entry.refused.set(true);
            if let Some(waker) = entry.waiting.take() {
                waker.wake();
            }
        }
    }

    fn join(&self, entry: &Rc<Entry>) {
        self.living.set(self.living.get() + 1);
        let mut line = self.line.borrow_mut();
        if line.len() > 2 * self.living.get() + 64 {
            line.retain(|entry| entry.strong_count() > 0);
        }
        line.push_back(Rc::downgrade(entry));
    }
}

/// One head that is arriving.
pub(crate) struct Held {
    all: Rc<HeldHeads>,
    entry: Option<Rc<Entry>>,
}

impl Held {
    pub(crate) const fn new(all: Rc<HeldHeads>) -> Self {
        Self { all, entry: None }
    }

    /// So many bytes are reserved for it now.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes < SMALL && self.entry.is_none() {
            return;
        }
        let all = &self.all;
        let entry = self.entry.get_or_insert_with(|| {
            let entry = Rc::default();
            all.join(&entry);
            entry
        });
        if !entry.refused.get() {
            let before = entry.bytes.replace(bytes);
            all.bytes.set(all.bytes.get() - before + bytes);
            all.make_room();
        }
    }

    /// Ready when this head is to be refused.
    pub(crate) fn poll_refused(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(entry) = &self.entry else {
            return Poll::Pending;
        };
        if entry.refused.get() {
            return Poll::Ready(());
        }
        entry.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// As `poll`, unless this head is refused first: `None`.
    pub(crate) async fn unless_refused<T>(
        &self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Option<T> {
        poll_fn(|cx| match self.poll_refused(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => poll(cx).map(Some),
        })
        .await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            self.all.bytes.set(self.all.bytes.get() - entry.bytes.get());
            self.all.living.set(self.all.living.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 64 * 1024;

    fn is_refused(held: &Held) -> bool {
        held.poll_refused(&Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn beyond_the_bound_the_oldest_head_is_refused_and_the_rest_fits() {
        let all = Rc::<HeldHeads>::default();
        let fitting = HELD_MAX / LARGE;
        let mut heads: Vec<_> = (0..fitting + 3)
            .map(|_| Held::new(Rc::clone(&all)))
            .collect();

        for head in &mut heads {
            head.set(LARGE / 2);
            head.set(LARGE);
        }

        let refused: Vec<bool> = heads.iter().map(is_refused).collect();
        assert!(refused[..3].iter().all(|refused| *refused));
        assert!(refused[3..].iter().all(|refused| !refused));
        assert_eq!(all.bytes.get(), HELD_MAX);
        drop(heads);
        assert_eq!(all.bytes.get(), 0);
    }

    #[test]
    fn a_small_head_is_never_refused() {
        let all = Rc::<HeldHeads>::default();
        let mut small = Held::new(Rc::clone(&all));
        small.set(SMALL - 1);
        let mut heads: Vec<_> = (0..1_000).map(|_| Held::new(Rc::clone(&all))).collect();
        for head in &mut heads {
            head.set(LARGE);
        }

        assert!(!is_refused(&small));
    }

    #[test]
    fn heads_that_came_and_went_leave_nothing_behind() {
        let all = Rc::<HeldHeads>::default();
        let mut first = Held::new(Rc::clone(&all));
        first.set(LARGE);
        for _ in 0..100_000 {
            Held::new(Rc::clone(&all)).set(LARGE);
        }

        assert!(all.line.borrow().len() < 100);
        assert_eq!(all.bytes.get(), LARGE);
    }
}
