//! Rolls keys over when their time has come, where the configuration says so (`roll_after`).
//!
//! Writes key files, like the command line does; what a running Sealane serves follows from them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealane_dns::dnssec::key::Role;
use sealane_dns::dnssec::timing::Moment;
use tracing::{error, info, warn};

use super::{KeyPolicy, Keys, KeysError};

/// How often it looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Knows what the last file without mistakes says of keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keeper {
    // A lock: taken at each reading of the file and at each look, never by a question.
    policies: Arc<Mutex<Vec<KeyPolicy>>>,
}

impl Keeper {
    pub(crate) fn follow(&self, policies: &[KeyPolicy]) {
        let rolling = policies
            .iter()
            .filter(|policy| policy.roll_zone_keys.is_some() || policy.roll_entry_keys.is_some());
        *self.policies() = rolling.cloned().collect();
    }

    /// Begins the roll-overs that are due. Reads a few small files for each zone that has any rule.
    pub(crate) fn look(&self, now: Moment) {
        let policies = self.policies().clone();
        for policy in &policies {
            for (role, after) in [
                (Role::Zone, policy.roll_zone_keys),
                (Role::Entry, policy.roll_entry_keys),
            ] {
                let Some(after) = after else {
                    continue;
                };
                if let Err(error) = roll_if_due(policy, role, after, now) {
                    error!(zone = %policy.zone, %error, "could not roll a key over");
                }
            }
        }
    }

    fn policies(&self) -> std::sync::MutexGuard<'_, Vec<KeyPolicy>> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn roll_if_due(
    policy: &KeyPolicy,
    role: Role,
    after: Duration,
    now: Moment,
) -> Result<(), KeysError> {
    let mut keys = Keys::read(policy)?;
    if !is_due(&keys, role, after, now) {
        return Ok(());
    }
    let (new, old) = keys.roll(role, now)?;
    info!(zone = %policy.zone, old = old.tag(), new = new.tag(), "a key's successor is published");
    if role == Role::Entry {
        warn!(
            zone = %policy.zone,
            ds = sealane_dns::dnssec::key_file::ds_text(&new),
            from = new.times.sync_publish.map(|time| time.to_string()),
            "from then on the parent may have this DS in place of the old one; confirm by `sealane dnssec ds-seen`"
        );
    }
    Ok(())
}

/// A key of this role is older than that, and none waits for anything.
fn is_due(keys: &Keys<'_>, role: Role, after: Duration, now: Moment) -> bool {
    let is_settled = keys.check_settled(role, now).is_ok();
    let mut in_use = keys.in_use(role, now);
    is_settled
        && in_use.any(|key| {
            let since = key.times.activate.or(key.times.created);
            key.times.inactive.is_none() && since.is_some_and(|since| since.plus(after) <= now)
        })
}

#[cfg(test)]
mod tests {
    use sealane_dns::dnssec::key::Algorithm;
    use sealane_dns::dnssec::timing::{Delays, State, state};
    use sealane_dns::name::Name;

    use super::*;

    #[test]
    fn keys_roll_by_themselves_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3_600);
        let policy = KeyPolicy {
            zone: Name::parse("example", None).unwrap(),
            dir: dir.path().to_owned(),
            delays: Delays {
                key_ttl: hour,
                zone_ttl: hour,
                ds_ttl: hour,
                propagation: hour,
            },
            roll_zone_keys: Some(24 * hour),
            roll_entry_keys: None,
        };
        let keeper = Keeper::default();
        keeper.follow(std::slice::from_ref(&policy));
        let keys = Keys::read(&policy).unwrap();
        keys.generate(Role::Entry, Algorithm::Ed25519, Moment(0))
            .unwrap();
        keys.generate(Role::Zone, Algorithm::Ed25519, Moment(0))
            .unwrap();
        let mut signing = Vec::new();
        for number in 0..100 {
            let now = Moment(number * 3_600);
            keeper.look(now);
            let keys = Keys::read(&policy).unwrap();
            let tags: Vec<_> = keys.in_use(Role::Zone, now).map(|key| key.tag()).collect();
            assert_eq!(tags.len(), 1, "at hour {number}");
            signing.extend(tags);
        }
        signing.dedup();
        // Each signs for 24 hours and the two that its successor is published before.
        assert_eq!(signing.len(), 4);
        let keys = Keys::read(&policy).unwrap();
        let removed = keys
            .all
            .iter()
            .filter(|key| state(&key.times, Moment(99 * 3_600)) == State::Removed);
        assert_eq!((keys.all.len(), removed.count()), (5, 3));
    }
}
