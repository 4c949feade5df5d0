//! Flows that outlive the process: what a successor must know of each, as one line of text beside its socket.
//!
//! [`super::relay`] writes and takes them; how they travel is the daemon's affair. The endpoint is known by its
//! region and address, for the successor's topology may number it otherwise. Decides nothing.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::flow::{FlowKey, Trust};
use super::socket::Local;

/// Flows that one worker leaves, those first whose clients spoke last. Each is a descriptor more while they
/// travel; the rest begin anew.
pub const FLOWS_LEFT_MAX: usize = 16_384;

/// One flow on its way to a successor.
#[derive(Debug)]
pub struct LeftFlow {
    pub(crate) known: Known,
    /// Connected to the endpoint, so that it goes on seeing the same port.
    pub(crate) socket: OwnedFd,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Of its address's sockets, from 0 on.
    pub(crate) place: usize,
    pub(crate) key: FlowKey,
    /// What its endpoint was chosen by.
    pub(crate) number: u64,
    pub(crate) silent: Duration,
    pub(crate) trust: Trust,
    /// Datagrams of the client, and of the endpoint, so far.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) address: SocketAddr,
    pub(crate) region: String,
}

impl LeftFlow {
    /// Its line, and its socket. The line holds no line break: names have none.
    #[must_use]
    pub fn into_parts(self) -> (String, OwnedFd) {
        (self.known.to_line(), self.socket)
    }

    /// Reads what [`LeftFlow::into_parts`] gave. `None`: it is no such thing.
    #[must_use]
    pub fn from_parts(line: &str, socket: OwnedFd) -> Option<Self> {
        let known = Known::parse(line)?;
        Some(Self { known, socket })
    }
}

impl Known {
    fn to_line(&self) -> String {
        let Self {
            place,
            key: FlowKey { client, local },
            number,
            silent,
            trust,
            received,
            sent,
            address,
            region,
        } = self;
        let (local, interface) = match local {
            Local::Bound => ("-".to_owned(), 0),
            Local::V4(address) => (address.to_string(), 0),
            Local::V6(address, interface) => (address.to_string(), *interface),
        };
        let silent = silent.as_millis();
        let stage = u8::from(trust.answered) + u8::from(trust.proven);
        format!(
            "{place} {client} {local} {interface} {number} {silent} {stage} {received} {sent} {address} {region}"
        )
    }

    fn parse(line: &str) -> Option<Self> {
        // The region's name may hold spaces: it comes last.
        let mut words = line.splitn(11, ' ');
        let mut word = || words.next();
        let place = word()?.parse().ok()?;
        let client = word()?.parse().ok()?;
        let (local, interface) = (word()?, word()?.parse().ok()?);
        let local = match local {
            "-" => Local::Bound,
            address => match address.parse().ok()? {
                IpAddr::V4(address) => Local::V4(address),
                IpAddr::V6(address) => Local::V6(address, interface),
            },
        };
        let number = word()?.parse().ok()?;
        let silent = Duration::from_millis(word()?.parse().ok()?);
        let stage: u8 = word()?.parse().ok()?;
        Some(Self {
            place,
            key: FlowKey { client, local },
            number,
            silent,
            trust: trust(stage),
            received: word()?.parse().ok()?,
            sent: word()?.parse().ok()?,
            address: word()?.parse().ok()?,
            region: word()?.to_owned(),
        })
    }
}

const fn trust(stage: u8) -> Trust {
    Trust {
        answered: stage > 0,
        proven: stage > 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_as_it_was_written() {
        let locals = [
            Local::Bound,
            Local::V4("192.0.2.7".parse().unwrap()),
            Local::V6("fe80::7".parse().unwrap(), 3),
        ];
        for (local, stage) in locals.into_iter().zip(0..) {
            let known = Known {
                place: 2,
                key: FlowKey {
                    client: "[2001:db8::1]:5353".parse().unwrap(),
                    local,
                },
                number: u64::MAX,
                silent: Duration::from_millis(1_234),
                trust: trust(stage),
                received: 7,
                sent: 9,
                address: "198.51.100.4:53".parse().unwrap(),
                region: "somewhere in the east".to_owned(),
            };
            assert_eq!(Known::parse(&known.to_line()), Some(known));
        }
    }

    #[test]
    fn what_is_no_flow_is_not_taken_for_one() {
        for line in [
            "",
            "flows",
            "1 2 3 4 5 6 7 8 9 10 11",
            "0 127.0.0.1:1 - 0 1 1 0 0 0",
        ] {
            assert_eq!(Known::parse(line), None, "{line}");
        }
    }
}
