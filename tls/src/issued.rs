//! Certificates that come while the program runs: places that rules hold for them, and what has
//! come so far.
//!
//! Rules come and go with the configuration file, certificates with their authority's answers;
//! neither waits for the other. Read at every handshake without a lock.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use sealane_model::CertificatePem;

use crate::pem::{TlsError, certified};
use crate::provider;

/// A place for a certificate: empty until one comes, then never again.
pub struct Place {
    names: Arc<[Arc<str>]>,
    key: ArcSwapOption<CertifiedKey>,
}

impl Place {
    /// `names`: lower-case, sorted. Places with equal names get the same certificate.
    #[must_use]
    pub fn new(names: &[Arc<str>]) -> Arc<Self> {
        Arc::new(Self {
            names: names.into(),
            key: ArcSwapOption::empty(),
        })
    }

    pub(crate) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    pub(crate) fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("names", &self.names)
            .field("filled", &self.key.load().is_some())
            .finish()
    }
}

/// What has come, and who waits for it. One for a process.
#[derive(Default)]
pub struct Issued(Mutex<State>);

#[derive(Default)]
struct State {
    /// As many as there are places: others are forgotten.
    keys: HashMap<Arc<[Arc<str>]>, Arc<CertifiedKey>>,
    places: Vec<Weak<Place>>,
}

impl Issued {
    // A lock: taken when rules are replaced and when a certificate comes, never by a handshake.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills these places with what has come, and from now on with what comes.
    pub fn adopt<'a>(&self, places: impl IntoIterator<Item = &'a Arc<Place>>) {
        let mut state = self.lock();
        let State { keys, places: all } = &mut *state;
        for place in places {
            if let Some(key) = keys.get(&place.names) {
                place.key.store(Some(Arc::clone(key)));
            }
            all.push(Arc::downgrade(place));
        }
        all.retain(|place| place.strong_count() > 0);
        let is_waited_for = |names: &Arc<[Arc<str>]>| {
            let mut alive = all.iter().filter_map(Weak::upgrade);
            alive.any(|place| place.names == *names)
        };
        keys.retain(|names, _| is_waited_for(names));
    }

    /// From now on the next handshakes for `names` get this certificate.
    ///
    /// # Errors
    /// [`TlsError`] when it cannot be used; whatever served before goes on.
    pub fn put(&self, names: &[Arc<str>], pem: &CertificatePem) -> Result<(), TlsError> {
        let key = Arc::new(certified(0, pem, &provider())?);
        let mut state = self.lock();
        let waiting = state.places.iter().filter_map(Weak::upgrade);
        for place in waiting.filter(|place| *place.names == *names) {
            place.key.store(Some(Arc::clone(&key)));
        }
        state.keys.insert(names.into(), key);
        Ok(())
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Issued")
            .field("certificates", &state.keys.len())
            .field("places", &state.places.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Arc<str>> {
        text.split(' ').map(Arc::from).collect()
    }

    fn pem(text: &str) -> CertificatePem {
        let dns: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let made = rcgen::generate_simple_self_signed(dns).unwrap();
        CertificatePem {
            chain: made.cert.pem().into_bytes().into(),
            key: made.signing_key.serialize_pem().into_bytes().into(),
        }
    }

    fn leaf(place: &Place) -> Option<Vec<u8>> {
        place.key().map(|key| key.cert[0].to_vec())
    }

    #[test]
    fn what_comes_fills_the_places_there_are_and_those_that_come_later() {
        let issued = Issued::default();
        let (early, other) = (Place::new(&names("a.test")), Place::new(&names("b.test")));
        issued.adopt([&early, &other]);
        assert_eq!(leaf(&early), None);

        issued.put(&names("a.test"), &pem("a.test")).unwrap();
        let late = Place::new(&names("a.test"));
        issued.adopt([&late]);

        assert!(leaf(&early).is_some());
        assert_eq!(leaf(&late), leaf(&early));
        assert_eq!(leaf(&other), None);
    }

    #[test]
    fn a_newer_certificate_takes_the_place_and_one_that_cannot_be_used_does_not() {
        let issued = Issued::default();
        let place = Place::new(&names("a.test"));
        issued.adopt([&place]);
        issued.put(&names("a.test"), &pem("a.test")).unwrap();
        let first = leaf(&place);

        let mut wrong = pem("a.test");
        wrong.key = pem("a.test").key;
        issued.put(&names("a.test"), &wrong).unwrap_err();
        assert_eq!(leaf(&place), first);

        issued.put(&names("a.test"), &pem("a.test")).unwrap();
        assert_ne!(leaf(&place), first);
    }

    #[test]
    fn what_no_place_waits_for_is_forgotten() {
        let issued = Issued::default();
        let place = Place::new(&names("a.test"));
        issued.adopt([&place]);
        issued.put(&names("a.test"), &pem("a.test")).unwrap();
        drop(place);

        issued.adopt([&Place::new(&names("b.test"))]);

        let state = issued.lock();
        assert!(state.keys.is_empty());
    }
}
