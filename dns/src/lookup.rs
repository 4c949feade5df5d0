//! Finds what a zone has for a name: the algorithm of RFC 1034 §4.3.2, wildcards by RFC 4592.
//!
//! Pure; one hash look-up for a name that exists, at most one for each label that a zone's deepest
//! name has for one that does not.

use crate::name::parent;
use crate::question::LowerName;
use crate::zone::{Node, Zone, ZoneTable};

/// What there is for a name.
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// The name exists, or a wildcard speaks for it (`expanded`). The node may have no data.
    Name {
        zone: &'t Zone,
        node: &'t Node,
        expanded: bool,
    },
    /// The name is at or below a delegation.
    Delegation { zone: &'t Zone, cut: &'t Node },
    /// The name is below one that has a DNAME.
    Moved { zone: &'t Zone, node: &'t Node },
    /// The name is in this zone and does not exist; `encloser` is the closest above it that does.
    NoName { zone: &'t Zone, encloser: &'t Node },
    /// The name is in none of our zones.
    NotOurs,
}

#[must_use]
pub fn find<'t>(table: &'t ZoneTable, name: &LowerName) -> Found<'t> {
    let Some((encloser, exact)) = closest(table, name) else {
        return Found::NotOurs;
    };
    let Some(zone) = table.zone(encloser.zone) else {
        return Found::NotOurs;
    };
    if let Some(cut) = table.cut(encloser) {
        return Found::Delegation { zone, cut };
    }
    if let Some(node) = table.moved(encloser)
        && usize::from(node.name_length) < name.wire().len()
    {
        return Found::Moved { zone, node };
    }
    if exact {
        return Found::Name {
            zone,
            node: encloser,
            expanded: false,
        };
    }
    match table.wildcard(encloser) {
        // A delegation by a wildcard would be of no meaning (RFC 4592 §4.2): it is just data.
        Some(node) => Found::Name {
            zone,
            node,
            expanded: true,
        },
        None => Found::NoName { zone, encloser },
    }
}

/// The longest name at or above this one that exists, and whether it is this very one.
fn closest<'t>(table: &'t ZoneTable, name: &LowerName) -> Option<(&'t Node, bool)> {
    let mut wire = name.wire();
    for _ in table.deepest()..name.labels() {
        wire = parent(wire)?;
    }
    loop {
        if let Some(node) = table.node_named(wire) {
            return Some((node, wire.len() == name.wire().len()));
        }
        wire = parent(wire)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::dnssec::timing::Moment;
    use crate::name::Name;
    use crate::record::parse_zone_file;
    use sealane_model::Ttl;

    fn zone(apex: &str, records: &str) -> config::Zone {
        let apex = Name::parse(apex, None).unwrap();
        let text = format!("@ 60 SOA ns1 host 1 2 3 4 5\n{records}");
        let file = parse_zone_file(&text, &apex, Ttl::from_secs(60)).unwrap();
        config::Zone::new(apex, file.soa.unwrap(), file.records)
    }

    fn look(table: &ZoneTable, name: &str) -> String {
        let name = Name::parse(name, None).unwrap();
        let name = LowerName::from_wire(name.wire()).unwrap();
        match find(table, &name) {
            Found::Name { node, .. } if node.is_empty() => "no data".to_owned(),
            Found::Name { node, zone, .. } => format!("{} in {}", node.name_length, zone.apex),
            Found::Delegation { cut, .. } => format!("delegated {}", cut.name_length),
            Found::Moved { node, .. } => format!("moved {}", node.name_length),
            Found::NoName { zone, .. } => format!("no name in {}", zone.apex),
            Found::NotOurs => "not ours".to_owned(),
        }
    }

    #[test]
    fn each_name_is_found_as_rfc_1034_and_4592_say() {
        // RFC 4592 §2.2.1, in our words.
        let example = zone(
            "example",
            &[
                "@ NS ns.example.com.",
                "* 3600 TXT wildcard",
                "* MX 10 host1",
                "sub.* TXT other",
                "host1 A 192.0.2.1",
                "_ssh._tcp.host1 SRV 0 0 22 host1",
                "subdel NS ns.example.com.",
                "deep.below.subdel A 192.0.2.9",
            ]
            .join("\n"),
        );
        let child = zone("child.example", "www A 192.0.2.2");
        let table = ZoneTable::compile(&[example, child], Moment(0), None);

        let cases = [
            ("example", "9 in example"),
            ("host3.example", "11 in example"),
            ("foo.bar.example", "11 in example"),
            ("host1.example", "15 in example"),
            ("_telnet._tcp.host1.example", "no name in example"),
            ("_tcp.host1.example", "no data"),
            ("sub.*.example", "15 in example"),
            ("ghost.*.example", "no name in example"),
            ("*.example", "11 in example"),
            ("host.subdel.example", "delegated 16"),
            ("subdel.example", "delegated 16"),
            ("deep.below.subdel.example", "delegated 16"),
            ("www.child.example", "19 in child.example"),
            ("nope.child.example", "no name in child.example"),
            ("com", "not ours"),
            ("a.b.c.d.e.f.g.h.i.j.com", "not ours"),
            (
                "a.b.c.d.e.f.g.h.i.j.child.example",
                "no name in child.example",
            ),
            (".", "not ours"),
        ];
        for (name, expected) in cases {
            assert_eq!(look(&table, name), expected, "{name}");
        }
    }

    #[test]
    fn what_a_parent_says_of_a_child_that_we_serve_is_not_used() {
        let above = zone(
            "example",
            "child NS ns.other.\nwww.child A 192.0.2.1\nx A 192.0.2.3",
        );
        let child = zone("child.example", "ftp A 192.0.2.2");
        let table = ZoneTable::compile(&[above, child], Moment(0), None);

        assert_eq!(
            look(&table, "www.child.example"),
            "no name in child.example"
        );
        assert_eq!(look(&table, "child.example"), "15 in child.example");
        assert_eq!(look(&table, "x.example"), "11 in example");
    }

    #[test]
    fn of_a_delegation_and_a_dname_the_higher_one_is_met_first() {
        let records = "old DNAME new.\nsub.old NS ns.other.\ncut NS ns.other.\nold.cut DNAME new.";
        let table = ZoneTable::compile(&[zone("example", records)], Moment(0), None);

        for (name, expected) in [
            ("a.sub.old.example", "moved 13"),
            ("sub.old.example", "moved 13"),
            ("old.example", "13 in example"),
            ("a.old.cut.example", "delegated 13"),
            ("old.cut.example", "delegated 13"),
        ] {
            assert_eq!(look(&table, name), expected, "{name}");
        }
    }

    #[test]
    fn a_table_without_zones_has_nothing() {
        assert_eq!(look(&ZoneTable::default(), "example"), "not ours");
        assert_eq!(
            look(&ZoneTable::compile(&[], Moment(0), None), "."),
            "not ours"
        );
    }
}
