//! Which pool serves which server name, as the operator listed them. Pure; for `tls_passthrough`.

use std::collections::HashMap;

use crate::config::{Destination, HostPattern};

/// Who serves which server name. As large as the operator's list.
#[derive(Debug)]
pub(crate) struct Names {
    exact: HashMap<String, Destination>,
    /// By the suffix with its leading dot.
    suffixes: HashMap<String, Destination>,
    otherwise: Option<Destination>,
}

impl Names {
    /// Of two equal names the first one counts.
    pub(crate) fn new(
        names: &[(HostPattern, Destination)],
        otherwise: Option<&Destination>,
    ) -> Self {
        let (mut exact, mut suffixes) = (HashMap::new(), HashMap::new());
        for (pattern, to) in names {
            let (table, name) = match pattern {
                HostPattern::Exact(name) => (&mut exact, name),
                HostPattern::Suffix(suffix) => (&mut suffixes, suffix),
            };
            table.entry(name.to_string()).or_insert_with(|| to.clone());
        }
        Self {
            exact,
            suffixes,
            otherwise: otherwise.cloned(),
        }
    }

    /// The name itself, else the longest suffix, else whoever serves the rest.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<&Destination> {
        let named = name.and_then(|name| {
            let dots = name.match_indices('.').map(|(at, _)| &name[at..]);
            let suffix = || dots.into_iter().find_map(|rest| self.suffixes.get(rest));
            self.exact.get(name).or_else(suffix)
        });
        named.or(self.otherwise.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sealane_model::PoolId;
    use sealane_steering::SteeringPolicy;

    use super::*;

    fn to(pool: usize) -> Destination {
        Destination {
            pool: PoolId::from_index(pool).unwrap(),
            steering: Arc::new(SteeringPolicy::Nearest),
            balance: Arc::default(),
        }
    }

    #[test]
    fn the_most_exact_name_wins_and_the_rest_goes_to_whoever_takes_it() {
        let names = [
            (HostPattern::Suffix(".example.com".into()), to(1)),
            (HostPattern::Exact("db.example.com".into()), to(2)),
            (HostPattern::Suffix(".eu.example.com".into()), to(3)),
        ];
        let find = |otherwise: Option<&Destination>, name: Option<&str>| {
            let names = Names::new(&names, otherwise);
            names.find(name).map(|to| to.pool.index())
        };
        let rest = to(9);

        assert_eq!(find(None, Some("db.example.com")), Some(2));
        assert_eq!(find(None, Some("x.example.com")), Some(1));
        assert_eq!(find(None, Some("y.x.example.com")), Some(1));
        assert_eq!(find(None, Some("x.eu.example.com")), Some(3));
        assert_eq!(find(None, Some("eu.example.com")), Some(1));
        assert_eq!(find(None, Some("example.com")), None);
        assert_eq!(find(Some(&rest), Some("example.com")), Some(9));
        assert_eq!(find(None, None), None);
        assert_eq!(find(Some(&rest), None), Some(9));
    }
}
