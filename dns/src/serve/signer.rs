//! The thread that keeps signed zones signed: refills what may be signed on the way, signs ahead what a
//! failover would need, and compiles rules anew when keys change their duties or signatures grow old.
//!
//! Answers no question and holds no lock that a thread which answers could wait for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sealane_model::Snapshot;
use tracing::info;

use super::Shared;
use super::clock::now;
use crate::dnssec::timing::Moment;
use crate::metrics::Signing;
use crate::rules::Rules;

/// How often it looks; allowances are by the second.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A table of steered signatures that is full is made anew without what nobody asks for, but no more
/// often than this.
const RENEW_AT_MOST_EVERY: u64 = 60;

/// Runs until the sender of `stop` is gone.
pub(crate) fn run(shared: &Shared, stop: &Receiver<()>) {
    let mut signer = Signer {
        shared,
        metrics: Signing::default(),
        ahead: None,
    };
    loop {
        signer.look(now());
        match stop.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Signer<'s> {
    shared: &'s Shared,
    metrics: Signing,
    /// By which rules, for which world, was last signed ahead.
    ahead: Option<(Arc<Rules>, Arc<Snapshot>)>,
}

impl Signer<'_> {
    fn look(&mut self, now: Moment) {
        let mut rules = self.shared.rules.load_full();
        let world = self.shared.world.load_full();
        if is_due(&rules, now)
            && let Some(config) = rules.config.clone()
        {
            let renewed = Arc::new(self.shared.compile(&config, now, Some(&rules)));
            renewed.sign_ahead(&world);
            // Rules that were replaced meanwhile were signed when they were made.
            let before = self
                .shared
                .rules
                .compare_and_swap(&rules, Arc::clone(&renewed));
            if Arc::ptr_eq(&before, &rules) {
                for (zone, sealed) in renewed.table.sealed() {
                    info!(zone = %zone.apex, signed = sealed.made, kept = sealed.taken_over, "zone signed anew");
                }
                rules = renewed;
            }
        }
        let is_new = self
            .ahead
            .as_ref()
            .is_none_or(|(by, seen)| !Arc::ptr_eq(by, &rules) || !Arc::ptr_eq(seen, &world));
        if is_new {
            rules.sign_ahead(&world);
            self.ahead = Some((Arc::clone(&rules), world));
        }
        for (_, sealed) in rules.table.sealed() {
            sealed.refill();
        }
        self.metrics.show(&rules);
    }
}

fn is_due(rules: &Rules, now: Moment) -> bool {
    rules.table.sealed().any(|(_, sealed)| {
        let is_crowded = sealed.kept.is_full() && now.0 >= sealed.made_at.0 + RENEW_AT_MOST_EVERY;
        sealed.until <= now || is_crowded
    })
}
