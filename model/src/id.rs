//! Small copyable names for regions, pools and endpoints.
//!
//! An id is handed out once per process by [`IdBook`] and never reused: the same name keeps its
//! id over any number of reloads, so state that is keyed by id survives a reload by itself. An id
//! never means anything outside this process; on disk and on the wire things go by name.

use std::collections::HashMap;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($repr);

        impl $name {
            /// The id's place in a dense table.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }

            /// The id at place `index`. `None` when the table could never be that long.
            #[must_use]
            pub fn from_index(index: usize) -> Option<Self> {
                <$repr>::try_from(index).ok().map(Self)
            }
        }
    };
}

id!(
    /// A region: the unit of geography and failover. At most 65,536 in one process.
    RegionId(u16)
);
id!(
    /// A pool: a named set of endpoints that serve the same thing. At most 65,536.
    PoolId(u16)
);
id!(
    /// One endpoint of one pool in one region.
    EndpointId(u32)
);

/// More names than ids exist for: the configuration is larger than Sealane handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many {kind}s in one process (at most {limit}); restart to forget removed ones")]
pub struct TooMany {
    pub kind: &'static str,
    pub limit: usize,
}

/// Hands out ids by name and remembers them. Owned by whoever reads the configuration.
#[derive(Debug, Default, Clone)]
pub struct IdBook {
    regions: HashMap<String, RegionId>,
    pools: HashMap<String, PoolId>,
    endpoints: HashMap<(PoolId, RegionId, String), EndpointId>,
}

impl IdBook {
    /// # Errors
    /// [`TooMany`] after 65,536 different region names.
    pub fn region(&mut self, name: &str) -> Result<RegionId, TooMany> {
        let next = RegionId::from_index(self.regions.len());
        lookup(
            &mut self.regions,
            name.to_owned(),
            next,
            "region",
            usize::from(u16::MAX) + 1,
        )
    }

    /// # Errors
    /// [`TooMany`] after 65,536 different pool names.
    pub fn pool(&mut self, name: &str) -> Result<PoolId, TooMany> {
        let next = PoolId::from_index(self.pools.len());
        lookup(
            &mut self.pools,
            name.to_owned(),
            next,
            "pool",
            usize::from(u16::MAX) + 1,
        )
    }

    /// `name` is the endpoint's address as the operator wrote it.
    ///
    /// # Errors
    /// [`TooMany`] after 2^32 different endpoints.
    pub fn endpoint(
        &mut self,
        pool: PoolId,
        region: RegionId,
        name: &str,
    ) -> Result<EndpointId, TooMany> {
        let next = EndpointId::from_index(self.endpoints.len());
        let key = (pool, region, name.to_owned());
        lookup(&mut self.endpoints, key, next, "endpoint", usize::MAX)
    }
}

fn lookup<K: std::hash::Hash + Eq, Id: Copy>(
    known: &mut HashMap<K, Id>,
    key: K,
    next: Option<Id>,
    kind: &'static str,
    limit: usize,
) -> Result<Id, TooMany> {
    if let Some(id) = known.get(&key) {
        return Ok(*id);
    }
    let id = next.ok_or(TooMany { kind, limit })?;
    known.insert(key, id);
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_id_and_a_new_name_gets_a_new_one() {
        let mut book = IdBook::default();
        let eu = book.region("eu").unwrap();
        let us = book.region("us").unwrap();

        assert_ne!(eu, us);
        assert_eq!(book.region("eu"), Ok(eu));
    }

    #[test]
    fn the_same_address_in_two_pools_is_two_endpoints() {
        let mut book = IdBook::default();
        let eu = book.region("eu").unwrap();
        let (api, web) = (book.pool("api").unwrap(), book.pool("web").unwrap());

        let one = book.endpoint(api, eu, "10.0.0.1:80").unwrap();
        let other = book.endpoint(web, eu, "10.0.0.1:80").unwrap();

        assert_ne!(one, other);
    }
}
