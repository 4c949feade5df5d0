//! HTTPS records of steered names (RFC 9460): parameters as the operator wrote them, with address hints
//! of the region that was chosen for the client.
//!
//! Read when rules are loaded; composed by [`crate::engine`] for each question.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::name::Name;
use crate::record::RecordError;
use crate::svcb::{self, IPV4HINT, IPV6HINT, MANDATORY, Params};

/// Octets that all parameters together may take, hints not counted.
pub const PARAMS_MAX: usize = 512;
/// Room for the data of one record without going to the heap: parameters, and hints of 32 addresses
/// of each family.
const DATA_MAX: usize = 1_280;

/// One HTTPS record of priority 1 for the name itself, without its hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Priority, target, and parameters that stand before the IPv4 hint.
    head: Box<[u8]>,
    /// Between the hints.
    middle: Box<[u8]>,
    tail: Box<[u8]>,
}

impl Service {
    /// Reads parameters such as `alpn=h2,h3 port=8443`.
    ///
    /// # Errors
    /// [`RecordError`] for what is no parameter, for hints, and for more than [`PARAMS_MAX`] octets.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let mut params = Params::new();
        for word in text.split_whitespace() {
            svcb::add(&mut params, &word.replace('"', ""))?;
        }
        svcb::check(&params)?;
        let wrong = |found: &str, expected| RecordError::Unexpected {
            found: found.to_owned(),
            expected,
        };
        if params.contains_key(&IPV4HINT) || params.contains_key(&IPV6HINT) {
            let expected = "written here: the hints are the addresses that are chosen";
            return Err(wrong("ipv4hint or ipv6hint", expected));
        }
        let mut head = 1_u16.to_be_bytes().to_vec();
        head.extend_from_slice(Name::root().wire());
        let (mut middle, mut tail) = (Vec::new(), Vec::new());
        let part = |keys: std::ops::Range<u16>, wire: &mut Vec<u8>| {
            svcb::write(params.range(keys), wire);
        };
        part(MANDATORY..IPV4HINT, &mut head);
        part(IPV4HINT..IPV6HINT, &mut middle);
        part(IPV6HINT..u16::MAX, &mut tail);
        if head.len() + middle.len() + tail.len() > PARAMS_MAX {
            return Err(wrong(text, "parameters of at most 512 octets"));
        }
        Ok(Self {
            head: head.into(),
            middle: middle.into(),
            tail: tail.into(),
        })
    }

    /// The record's data for these addresses.
    pub(crate) fn data(&self, v4: &[IpAddr], v6: &[IpAddr]) -> SmallVec<[u8; DATA_MAX]> {
        let mut data = SmallVec::from_slice(&self.head);
        hint(IPV4HINT, 4, v4, &mut data);
        data.extend_from_slice(&self.middle);
        hint(IPV6HINT, 16, v6, &mut data);
        data.extend_from_slice(&self.tail);
        data
    }
}

fn hint(key: u16, size: usize, addresses: &[IpAddr], data: &mut SmallVec<[u8; DATA_MAX]>) {
    let Ok(length) = u16::try_from(size * addresses.len()) else {
        return;
    };
    if length == 0 {
        return;
    }
    data.extend_from_slice(&key.to_be_bytes());
    data.extend_from_slice(&length.to_be_bytes());
    for address in addresses {
        match address {
            IpAddr::V4(v4) => data.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => data.extend_from_slice(&v6.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_where_their_keys_belong() {
        let service = Service::parse("port=8443 alpn=h2,h3 ech=AAEC ohttp").unwrap();
        let v4 = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let v6 = ["2001:db8::1".parse().unwrap()];

        assert_eq!(
            service.data(&v4, &v6).as_slice(),
            [
                &b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x20\xfb"[..],
                b"\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02",
                b"\0\x05\0\x03\0\x01\x02",
                b"\0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
                b"\0\x08\0\0",
            ]
            .concat()
        );
        let bare = Service::parse("").unwrap();
        assert_eq!(bare.data(&[], &[]).as_slice(), b"\0\x01\0");
    }

    #[test]
    fn what_is_chosen_is_not_written() {
        for text in ["ipv4hint=192.0.2.1", "alpn", "colour=red", "mandatory=port"] {
            assert!(Service::parse(text).is_err(), "{text}");
        }
        let long = format!("key1000={}", "x".repeat(600));
        assert!(Service::parse(&long).is_err());
    }
}
