//! Tells sessions that their endpoint went down, for listeners that say `on_down: close`.
//!
//! One table a worker, looked through each time a world is published: no session has a timer for
//! it. A turn counts, not a state: a session that began at a down endpoint, because all were down,
//! goes on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use sealane_model::{EndpointId, Snapshot, Verdict};
use tokio::sync::Notify;

/// One entry for each endpoint that has such a session now: bounded by the configuration and by
/// `limits.connections`.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    endpoints: RefCell<HashMap<EndpointId, Rc<Fate>>>,
}

/// What became of one endpoint.
#[derive(Debug)]
pub(crate) struct Fate {
    down: Cell<bool>,
    turned: Notify,
}

impl Watch {
    /// For a session with this endpoint; `world` is the newest there is.
    pub(crate) fn join(&self, endpoint: EndpointId, world: &Snapshot) -> Rc<Fate> {
        let mut endpoints = self.endpoints.borrow_mut();
        let fate = endpoints.entry(endpoint).or_insert_with(|| {
            Rc::new(Fate {
                down: Cell::new(is_down(world, endpoint)),
                turned: Notify::new(),
            })
        });
        Rc::clone(fate)
    }

    /// Called when a world was published.
    pub(crate) fn look(&self, world: &Snapshot) {
        self.endpoints.borrow_mut().retain(|endpoint, fate| {
            let down = is_down(world, *endpoint);
            if down && !fate.down.replace(down) {
                fate.turned.notify_waiters();
            }
            fate.down.set(down);
            Rc::strong_count(fate) > 1
        });
    }
}

impl Fate {
    /// Resolves when the endpoint goes down from now on (from the first poll).
    pub(crate) async fn goes_down(&self) {
        self.turned.notified().await;
    }
}

pub(crate) fn is_down(world: &Snapshot, endpoint: EndpointId) -> bool {
    world.verdict(endpoint) == Verdict::Down
}

#[cfg(test)]
mod tests {
    use sealane_testkit::World;

    use super::*;

    fn world(verdict: Verdict) -> (Snapshot, EndpointId) {
        let world = World::new()
            .region("eu", Verdict::Up)
            .endpoint("192.0.2.1:80", verdict)
            .build();
        let endpoint = world.topology.endpoints().next().unwrap().id;
        (world, endpoint)
    }

    async fn is_told(fate: &Fate, act: impl FnOnce()) -> bool {
        let mut told = std::pin::pin!(fate.goes_down());
        std::future::poll_fn(|cx| {
            assert!(told.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        act();
        std::future::poll_fn(|cx| std::task::Poll::Ready(told.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_session_is_told_when_its_endpoint_goes_down() {
        let watch = Watch::default();
        let (up, endpoint) = world(Verdict::Up);
        let fate = watch.join(endpoint, &up);

        assert!(!is_told(&fate, || watch.look(&world(Verdict::Suspect).0)).await);
        assert!(is_told(&fate, || watch.look(&world(Verdict::Down).0)).await);
    }

    #[tokio::test]
    async fn a_session_that_began_at_a_down_endpoint_is_told_of_its_next_fall_only() {
        let watch = Watch::default();
        let (down, endpoint) = world(Verdict::Down);
        let fate = watch.join(endpoint, &down);

        assert!(!is_told(&fate, || watch.look(&down)).await);
        watch.look(&world(Verdict::Up).0);
        assert!(is_told(&fate, || watch.look(&down)).await);
    }

    #[test]
    fn an_endpoint_without_sessions_is_forgotten() {
        let watch = Watch::default();
        let (up, endpoint) = world(Verdict::Up);
        let fate = watch.join(endpoint, &up);

        watch.look(&up);
        assert_eq!(watch.endpoints.borrow().len(), 1);
        drop(fate);
        watch.look(&up);
        assert_eq!(watch.endpoints.borrow().len(), 0);
    }
}
