//! Ports for programs that cannot be told to let the system choose one.
//!
//! A port is held for the whole of the process that drew it, by an abstract socket of its name: other
//! tests of Sealane on this machine draw another, whatever process they run in. Programs that know
//! nothing of this may still take it, so it is below those that the system gives away.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Mutex;

const PORTS: Range<u16> = 10_000..32_768;

/// What holds the ports that this process has drawn.
static HELD: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// A port that nobody uses on 127.0.0.1, over TCP or UDP.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_port() -> u16 {
    free_port_on(&[Ipv4Addr::LOCALHOST])
}

/// A port that nobody uses on any of these addresses.
///
/// # Panics
/// There is none.
#[must_use]
pub fn free_port_on(addresses: &[Ipv4Addr]) -> u16 {
    let count = PORTS.end - PORTS.start;
    let begin = RandomState::new().hash_one(()) % u64::from(count);
    let ports = (0..count).map(|step| PORTS.start + (begin as u16 + step) % count);
    let mut free =
        ports.filter(|port| hold(*port) && addresses.iter().all(|ip| is_free(*ip, *port)));
    free.next().expect("a port is free")
}

/// Whether no other process, and nobody in this one, holds it already.
fn hold(port: u16) -> bool {
    let name = format!("sealane-test-port-{port}");
    let Ok(address) = SocketAddr::from_abstract_name(name) else {
        return false;
    };
    match UnixDatagram::bind_addr(&address) {
        Ok(held) => {
            HELD.lock().expect("nobody panics with it").push(held);
            true
        }
        Err(_) => false,
    }
}

fn is_free(ip: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_drawn_twice() {
        let mut ports: Vec<u16> = (0..200).map(|_| free_port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_port_in_use_is_not_drawn() {
        let port = free_port();
        let _used = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(Ipv4Addr::LOCALHOST, port));
        assert!(!hold(port));
    }
}
