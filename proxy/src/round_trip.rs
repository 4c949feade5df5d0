//! How long a client's connection takes there and back, as the kernel has seen it in the handshake.
//!
//! Asked once for a connection, when it is accepted, and only while somebody learns from it ([`Notebook`]). The time
//! from SYN-ACK to ACK is the network's alone: no program had a part in it, and nobody can answer before it was asked.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use sealane_model::Notebook;

/// Of a connection that comes from its client itself.
pub(crate) fn note(notebook: &Notebook, tcp: &impl AsFd, client: IpAddr) {
    notebook.note(client, || lowest(tcp));
}

/// The lowest round trip so far. `None`: the kernel has none, as after a SYN-ACK that was lost.
#[expect(
    unsafe_code,
    reason = "TCP_INFO has no safe form in nix, rustix and socket2"
)]
fn lowest(tcp: &impl AsFd) -> Option<Duration> {
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: a tcp_info is made of integers, which may all be zero.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes at most `length` octets to
    // `info`, which has as many.
    let failed = unsafe {
        libc::getsockopt(
            tcp.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    let is_known = failed == 0 && info.tcpi_min_rtt != 0 && info.tcpi_min_rtt != u32::MAX;
    is_known.then(|| Duration::from_micros(info.tcpi_min_rtt.into()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn the_handshake_of_an_accepted_connection_tells_its_round_trip() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let time = lowest(&accepted).expect("a round trip");
        assert!(time < Duration::from_secs(1), "{time:?}");
    }

    #[test]
    fn what_is_no_connection_has_none() {
        assert_eq!(lowest(&UdpSocket::bind("127.0.0.1:0").unwrap()), None);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(lowest(&listener), None);
    }
}
