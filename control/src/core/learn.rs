//! What clients' connections teach, as a part of the core: when it is learned, and what the world is told.

use std::sync::Arc;

use sealane_model::{Learned, RoundTrip};

use super::{Core, Effects, Publish};
use crate::learn::{LearnRule, Learner};

impl Core {
    /// Is anything learned from clients' connections? Otherwise nobody need look at them.
    #[must_use]
    pub const fn wants_round_trips(&self) -> bool {
        self.learner.is_some()
    }

    /// How many client networks are known.
    #[must_use]
    pub fn client_networks(&self) -> usize {
        self.learner.as_ref().map_or(0, Learner::networks)
    }

    /// What they have taught.
    #[must_use]
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// A rule without a place to learn for is none.
    pub(super) fn learn_by(&mut self, rule: Option<LearnRule>) {
        let home = rule.as_ref().and_then(|rule| {
            let region = self.topology.region(rule.region)?;
            region.location
        });
        match (rule.zip(home), &mut self.learner) {
            (Some((rule, home)), Some(learner)) => learner.follow(rule, home),
            (Some((rule, home)), none) => {
                *none = Some(Learner::new(rule, home, self.seed, self.now));
            }
            (None, learner) => *learner = None,
        }
        self.tell_learned();
    }

    pub(super) fn heard(&mut self, round_trips: &[RoundTrip], effects: &mut Effects) {
        let now = self.now;
        let learner = self.learner.as_mut();
        if learner.is_some_and(|learner| learner.hear(now, round_trips)) {
            self.tell_learned();
            effects.publish = effects.publish.max(Publish::Lazily);
        }
    }

    fn tell_learned(&mut self) {
        let learned = self.learner.as_mut().map(Learner::learned);
        self.learned = Arc::new(learned.unwrap_or_default());
    }
}
