//! Orders that are sent again: the same `Idempotency-Key` gets the same reply, not a second order.
//!
//! Remembers a bounded number of replies for a while. Knows nothing of what they say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use sealane_model::Timestamp;
use sha2::{Digest, Sha256};

/// How long a reply is kept.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(600);
/// Replies kept at once. One more takes the place of the oldest: sent again after that, the order
/// is followed again, which changes nothing, since orders are idempotent by themselves.
pub(super) const KEPT_MAX: usize = 1_024;
/// A longer key is refused.
pub(super) const KEY_MAX: usize = 128;

/// A reply as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing: follow the order, and keep the reply.
    First(Keeper),
    /// The same order was replied to.
    Again(Kept),
    /// The same order is being followed at this moment.
    UnderWay,
    /// The key was used for another order.
    OtherOrder,
}

/// A standard mutex: held for a look into a table, never across an await.
#[derive(Clone, Debug, Default)]
pub(super) struct Again(Arc<Mutex<HashMap<[u8; 32], Entry>>>);

#[derive(Debug)]
struct Entry {
    order: [u8; 32],
    at: Timestamp,
    reply: Option<Kept>,
}

impl Again {
    /// `caller` and `key` name the request; `path` and `body` say what it asks for.
    pub(super) fn turn(
        &self,
        now: Timestamp,
        caller: &str,
        key: &str,
        path: &str,
        body: &[u8],
    ) -> Turn {
        let name = digest(&[caller.as_bytes(), key.as_bytes()]);
        let order = digest(&[path.as_bytes(), body]);
        let mut known = self.lock();
        known.retain(|_, entry| entry.reply.is_none() || now.since(entry.at) < KEPT_FOR);
        match known.get(&name) {
            Some(entry) if entry.order != order => return Turn::OtherOrder,
            Some(Entry {
                reply: Some(reply), ..
            }) => return Turn::Again(reply.clone()),
            Some(_) => return Turn::UnderWay,
            None => {}
        }
        if known.len() >= KEPT_MAX {
            let oldest = known
                .iter()
                .min_by_key(|(_, entry)| entry.at)
                .map(|(name, _)| *name);
            oldest.map(|oldest| known.remove(&oldest));
        }
        known.insert(
            name,
            Entry {
                order,
                at: now,
                reply: None,
            },
        );
        Turn::First(Keeper {
            again: self.clone(),
            name,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry>> {
        // Nothing is left half done under this lock, so a panic elsewhere leaves it sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to keep one reply. Dropped without one, the key is as if never used.
#[derive(Debug)]
pub(super) struct Keeper {
    again: Again,
    name: [u8; 32],
}

impl Keeper {
    pub(super) fn keep(self, reply: Kept) {
        if let Some(entry) = self.again.lock().get_mut(&self.name) {
            entry.reply = Some(reply);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut known = self.again.lock();
        if known
            .get(&self.name)
            .is_some_and(|entry| entry.reply.is_none())
        {
            known.remove(&self.name);
        }
    }
}

/// Parts with their lengths, so that no two lists of parts read the same.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(secs * 1_000)
    }

    fn reply(text: &'static str) -> Kept {
        Kept {
            status: StatusCode::OK,
            body: Bytes::from_static(text.as_bytes()),
        }
    }

    fn first(again: &Again, now: u64, key: &str) -> Keeper {
        match again.turn(at(now), "oncall", key, "/p", b"body") {
            Turn::First(keeper) => keeper,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_same_key_and_order_get_the_same_reply_for_ten_minutes() {
        let again = Again::default();
        let turn = |now| again.turn(at(now), "oncall", "k", "/p", b"body");
        let keeper = first(&again, 0, "k");
        assert!(matches!(turn(1), Turn::UnderWay));
        keeper.keep(reply("done"));

        assert!(matches!(turn(599), Turn::Again(kept) if kept == reply("done")));
        assert!(matches!(turn(600), Turn::First(_)));
    }

    #[test]
    fn a_key_is_its_callers_own_and_stands_for_one_order_only() {
        let again = Again::default();
        first(&again, 0, "k").keep(reply("done"));

        assert!(matches!(
            again.turn(at(1), "oncall", "k", "/p", b"other"),
            Turn::OtherOrder
        ));
        assert!(matches!(
            again.turn(at(1), "oncall", "k", "/q", b"body"),
            Turn::OtherOrder
        ));
        assert!(matches!(
            again.turn(at(1), "other", "k", "/p", b"body"),
            Turn::First(_)
        ));
    }

    #[test]
    fn an_order_that_was_given_up_frees_its_key() {
        let again = Again::default();
        drop(first(&again, 0, "k"));
        first(&again, 1, "k").keep(reply("done"));
    }

    #[test]
    fn one_reply_more_than_the_bound_takes_the_place_of_the_oldest() {
        let again = Again::default();
        for number in 0..=KEPT_MAX as u64 {
            first(&again, number / 10, &number.to_string()).keep(reply("done"));
        }
        assert_eq!(again.lock().len(), KEPT_MAX);
    }
}
