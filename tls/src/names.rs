//! Things found by server name. Pure.

use std::collections::HashMap;

/// What is known under exact names and under wildcards. Names are the operator's: no bound is
/// needed. All are lower-case, without a final dot.
#[derive(Clone, Debug)]
pub(crate) struct ByName<T> {
    exact: HashMap<Box<str>, T>,
    /// `*.example.com` under `example.com`.
    wildcard: HashMap<Box<str>, T>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }
}

impl<T> ByName<T> {
    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
    }

    /// The place of `name`, which may begin with `*.`.
    pub(crate) fn entry(
        &mut self,
        name: &str,
    ) -> std::collections::hash_map::Entry<'_, Box<str>, T> {
        let (table, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcard, parent),
            None => (&mut self.exact, name),
        };
        table.entry(name.into())
    }

    /// As certificates mean it: a wildcard stands for exactly one label (RFC 6125 §6.4.3).
    pub(crate) fn find(&self, name: &str) -> Option<&T> {
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(parent()?))
    }

    /// As routes mean it: a wildcard stands for any number of labels, the longest match wins.
    pub(crate) fn find_below(&self, name: &str) -> Option<&T> {
        let parents = std::iter::successors(name.split_once('.'), |(_, rest)| rest.split_once('.'));
        self.exact.get(name).or_else(|| {
            let mut parents = parents.filter_map(|(_, parent)| self.wildcard.get(parent));
            parents.next()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&'static str]) -> ByName<&'static str> {
        let mut table = ByName::default();
        for name in names {
            table.entry(name).or_insert(*name);
        }
        table
    }

    #[test]
    fn a_wildcard_of_a_certificate_stands_for_one_label_and_an_exact_name_wins() {
        let table = table(&["*.two.test", "deep.two.test"]);

        assert_eq!(table.find("any.two.test"), Some(&"*.two.test"));
        assert_eq!(table.find("deep.two.test"), Some(&"deep.two.test"));
        assert_eq!(table.find("two.test"), None);
        assert_eq!(table.find("a.b.two.test"), None);
        assert_eq!(table.find(""), None);
    }

    #[test]
    fn a_guard_stands_for_all_names_below_and_the_longest_wins() {
        let table = table(&["*.test", "*.two.test", "deep.two.test"]);

        assert_eq!(table.find_below("a.b.two.test"), Some(&"*.two.test"));
        assert_eq!(table.find_below("two.test"), Some(&"*.test"));
        assert_eq!(table.find_below("deep.two.test"), Some(&"deep.two.test"));
        assert_eq!(table.find_below("test"), None);
        assert_eq!(table.find_below(""), None);
    }
}
