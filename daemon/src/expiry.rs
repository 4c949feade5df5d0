//! When certificates end: a metric for each, and a word in the log in time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use sealane_proxy::tls::Expiring;

use crate::metrics::CERTIFICATE_NOT_AFTER;

/// What ends within this is warned of: enough for a person to do something about a renewal that
/// should have happened by itself.
const WARN_WITHIN_DAYS: i64 = 14;
/// How often it is warned of.
pub const LOOK_EVERY: Duration = Duration::from_secs(DAY as u64);
/// Lines at one look; for more there is the metric.
const LINES_MAX: usize = 50;
const DAY: i64 = 86_400;

/// Everything that ends, by who brought it here.
#[derive(Clone, Debug, Default)]
// A lock: taken at reloads and once a day.
pub struct Expiry(Arc<Mutex<BTreeMap<&'static str, BTreeSet<Expiring>>>>);

impl Expiry {
    /// From now on `group` has these. New ones that end soon are warned of at once.
    pub fn follow(&self, group: &'static str, found: BTreeSet<Expiring>) {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = groups.insert(group, found.clone()).unwrap_or_default();
        for gone in before.difference(&found) {
            // What is no number is not shown.
            not_after(gone).set(f64::NAN);
        }
        for one in groups.values().flatten() {
            // Seconds since 1970 fit into a double's 53 bits.
            not_after(one).set(one.not_after as f64);
        }
        warn_of(found.difference(&before), now());
    }

    /// Warns of all that ends soon; called every [`LOOK_EVERY`].
    pub fn look(&self) {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warn_of(groups.values().flatten(), now());
    }
}

fn not_after(one: &Expiring) -> metrics::Gauge {
    gauge!(
        CERTIFICATE_NOT_AFTER,
        "kind" => one.kind,
        "source" => one.source.to_string(),
        "subject" => one.subject.to_string()
    )
}

fn warn_of<'e>(all: impl Iterator<Item = &'e Expiring>, now: i64) {
    let mut due: Vec<_> = all
        .filter_map(|one| Some((urgency(one, now)?, one)))
        .collect();
    due.sort_unstable_by_key(|(_, one)| one.not_after);
    let further = due.len().saturating_sub(LINES_MAX);
    for (urgency, one) in due.into_iter().take(LINES_MAX) {
        let Expiring {
            kind,
            source,
            subject,
            not_after: _,
        } = one;
        match urgency {
            Urgency::Ended => {
                tracing::error!(kind, %source, %subject, "a certificate or revocation list has ended");
            }
            Urgency::Soon { days } => {
                tracing::warn!(kind, %source, %subject, days, "a certificate or revocation list ends soon");
            }
        }
    }
    if further > 0 {
        tracing::warn!(further, "more certificates end soon");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    Ended,
    /// Whole days that are left.
    Soon {
        days: i64,
    },
}

fn urgency(one: &Expiring, now: i64) -> Option<Urgency> {
    let left = one.not_after.saturating_sub(now);
    match left {
        ..=0 => Some(Urgency::Ended),
        left if left < WARN_WITHIN_DAYS * DAY => Some(Urgency::Soon { days: left / DAY }),
        _ => None,
    }
}

fn now() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates end by the wall clock"
    )]
    let now = std::time::SystemTime::now();
    let since_epoch = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_weeks_before_its_end_a_certificate_is_urgent_and_at_its_end_it_has_ended() {
        let end = 1_900_000_000;
        let one = Expiring {
            kind: "listener",
            source: "api.pem".into(),
            subject: "api.test".into(),
            not_after: end,
        };

        assert_eq!(urgency(&one, end - 14 * DAY), None);
        assert_eq!(
            urgency(&one, end - 14 * DAY + 1),
            Some(Urgency::Soon { days: 13 })
        );
        assert_eq!(urgency(&one, end - 1), Some(Urgency::Soon { days: 0 }));
        assert_eq!(urgency(&one, end), Some(Urgency::Ended));
    }
}
