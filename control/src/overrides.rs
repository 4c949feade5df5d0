//! The operator's word: which regions and endpoints were failed over or drained, by whom and why.
//!
//! An override beats health until it is lifted, and the most specific one wins: an endpoint's name
//! as written, then its host name, then its region. Overrides go by name, so they outlive a reload
//! and a restart, even while nothing of that name exists. Never looks at health.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealane_model::{Endpoint, EndpointId, Target, Timestamp, Topology};

/// Overrides kept at once. One more is refused: somebody lifts some first.
pub const OVERRIDES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderKind {
    /// Takes the target out at once.
    FailOver,
    /// Lifts a fail-over or a drain.
    FailBack,
    /// No new work for the target; what runs may finish.
    Drain,
}

impl OrderKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailOver => "failover",
            Self::FailBack => "failback",
            Self::Drain => "drain",
        }
    }

    /// What stays behind when the order was followed. `None`: nothing.
    const fn wish(self) -> Option<Wish> {
        match self {
            Self::FailOver => Some(Wish::FailedOver),
            Self::Drain => Some(Wish::Draining),
            Self::FailBack => None,
        }
    }
}

/// Something that an operator asks for.
#[derive(Clone, Debug)]
pub struct Order {
    pub kind: OrderKind,
    /// A region (underscores count as hyphens), an endpoint as written, or its host name.
    pub target: String,
    /// Who asks: a token's name.
    pub by: Arc<str>,
    pub reason: Option<Arc<str>>,
    /// Only say what would change.
    pub dry_run: bool,
    /// Even if a pool is left without any usable region.
    pub force: bool,
}

/// What an override says of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    FailedOver,
    Draining,
}

impl Wish {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailedOver => "failed_over",
            Self::Draining => "draining",
        }
    }
}

/// What an override is about, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Region(Arc<str>),
    /// Every endpoint that is written so, or that has this host name.
    Endpoint(Arc<str>),
}

impl Subject {
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Region(name) | Self::Endpoint(name) => name,
        }
    }

    /// `region` or `endpoint`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Region(_) => "region",
            Self::Endpoint(_) => "endpoint",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    pub subject: Subject,
    pub wish: Wish,
    pub by: Arc<str>,
    pub reason: Option<Arc<str>>,
    pub at: Timestamp,
}

/// [`OVERRIDES_MAX`] are in force already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{OVERRIDES_MAX} overrides are in force; lift some first")]
pub struct TooManyOverrides;

/// Everything that operators have said and not taken back.
#[derive(Clone, Debug, Default)]
pub struct Overrides(BTreeMap<Subject, Override>);

impl Overrides {
    /// Follows an order about `subject`. `false`: that was so already, and stays as it was.
    ///
    /// # Errors
    /// [`TooManyOverrides`] for one more than [`OVERRIDES_MAX`].
    pub fn follow(
        &mut self,
        now: Timestamp,
        order: &Order,
        subject: &Subject,
    ) -> Result<bool, TooManyOverrides> {
        let Some(wish) = order.kind.wish() else {
            return Ok(self.0.remove(subject).is_some());
        };
        if self.0.get(subject).is_some_and(|known| known.wish == wish) {
            return Ok(false);
        }
        self.put(Override {
            subject: subject.clone(),
            wish,
            by: order.by.clone(),
            reason: order.reason.clone(),
            at: now,
        })?;
        Ok(true)
    }

    /// Puts back what an earlier process left.
    ///
    /// # Errors
    /// [`TooManyOverrides`] for one more than [`OVERRIDES_MAX`].
    pub fn put(&mut self, one: Override) -> Result<(), TooManyOverrides> {
        if self.0.len() >= OVERRIDES_MAX && !self.0.contains_key(&one.subject) {
            return Err(TooManyOverrides);
        }
        self.0.insert(one.subject.clone(), one);
        Ok(())
    }

    #[must_use]
    pub fn of_region(&self, name: &Arc<str>) -> Option<&Override> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&Subject::Region(name.clone()))
    }

    /// The most specific one: by name as written before host name.
    #[must_use]
    pub fn of_endpoint(&self, endpoint: &Endpoint) -> Option<&Override> {
        if self.0.is_empty() {
            return None;
        }
        let by_name = self.0.get(&Subject::Endpoint(endpoint.name.clone()));
        by_name.or_else(|| {
            self.0.get(&Subject::Endpoint(
                host_name(endpoint)?.as_ref().to_lowercase().into(),
            ))
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Override> {
        self.0.values()
    }

    /// What `target` names: something that exists, or something that an override remembers.
    #[must_use]
    pub fn subject(&self, topology: &Topology, target: &str) -> Option<Subject> {
        let target = target.trim();
        subject_in(topology, target).or_else(|| {
            let mut remembered = self.0.keys();
            let named = remembered.find(|subject| {
                subject.name().as_ref() == target || subject.name().as_ref() == hyphened(target)
            });
            named.cloned()
        })
    }
}

fn subject_in(topology: &Topology, target: &str) -> Option<Subject> {
    let wanted = hyphened(target);
    if let Some(region) = topology.regions().find(|r| hyphened(&r.name) == wanted) {
        return Some(Subject::Region(region.name.clone()));
    }
    if let Some(endpoint) = topology.endpoints().find(|e| e.name.as_ref() == target) {
        return Some(Subject::Endpoint(endpoint.name.clone()));
    }
    let is_host = |endpoint: &Endpoint| {
        host_name(endpoint).is_some_and(|host| host.eq_ignore_ascii_case(target))
    };
    let known = topology.endpoints().any(is_host);
    known.then(|| Subject::Endpoint(target.to_lowercase().into()))
}

/// The endpoints that an override on `subject` is about, in the order of their ids.
#[must_use]
pub fn endpoints_of(topology: &Topology, subject: &Subject) -> Vec<EndpointId> {
    let Subject::Endpoint(name) = subject else {
        return Vec::new();
    };
    let meant = |endpoint: &&Endpoint| {
        endpoint.name == *name
            || host_name(endpoint).is_some_and(|host| host.eq_ignore_ascii_case(name))
    };
    topology
        .endpoints()
        .filter(meant)
        .map(|endpoint| endpoint.id)
        .collect()
}

fn host_name(endpoint: &Endpoint) -> Option<&Arc<str>> {
    match &endpoint.target {
        Target::Host { host, .. } => Some(host),
        Target::Address(_) => None,
    }
}

/// Region names are the same with underscores and with hyphens.
fn hyphened(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}
