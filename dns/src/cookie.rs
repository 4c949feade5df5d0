//! DNS cookies (RFC 7873), made as every server of a zone makes them (RFC 9018): who sends back the cookie that
//! we gave its address has not forged that address.
//!
//! Pure: secrets and time are handed in. Who is refused without a cookie is decided elsewhere: see
//! [`crate::limit`].

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// Octets of what the client made up (RFC 7873 §4).
pub const CLIENT_LEN: usize = 8;
/// Octets of the option's data in an answer: the client's part and ours.
pub const COOKIE_LEN: usize = CLIENT_LEN + SERVER_LEN;
/// Version, three reserved octets, a time and a hash (RFC 9018 §4).
const SERVER_LEN: usize = 16;
const SERVER_LEN_MIN: usize = 8;
const SERVER_LEN_MAX: usize = 32;
const VERSION: u8 = 1;
/// An older cookie is none (RFC 9018 §4.3), nor is one …
const OLDEST: i32 = 3_600;
/// … that was made so far ahead of our clock.
const AHEAD: i32 = 300;

/// What servers make cookies with: the same on all that answer for a zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl Secret {
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The COOKIE option of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'m> {
    pub client: [u8; CLIENT_LEN],
    /// What some server once gave; empty when the client has nothing yet.
    pub server: &'m [u8],
}

impl<'m> Asked<'m> {
    /// Reads the option's data. `None`: no length that a cookie may have (RFC 7873 §5.2.2).
    #[must_use]
    pub fn read(data: &'m [u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk()?;
        let lawful = server.is_empty() || (SERVER_LEN_MIN..=SERVER_LEN_MAX).contains(&server.len());
        lawful.then_some(Self {
            client: *client,
            server,
        })
    }
}

/// What an answer tells of its client's cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// It sent none.
    #[default]
    Silent,
    /// It sent its own part, and nothing of ours that still holds.
    Asks,
    /// It sent what we gave to its address.
    Proven,
}

/// All that making and judging cookies takes, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Baker<'s> {
    /// The first one makes cookies, all of them are honoured.
    pub secrets: &'s [Secret],
    /// Seconds since 1970, cut to 32 bits: compared as serial numbers (RFC 1982).
    pub now: u32,
}

impl Baker<'_> {
    /// The option's data for the answer, and what the question proved. `None` without a secret.
    #[must_use]
    pub fn bake(&self, asked: &Asked<'_>, from: IpAddr) -> Option<([u8; COOKIE_LEN], Proof)> {
        let newest = self.secrets.first()?;
        let proof = if self.holds(asked, from) {
            Proof::Proven
        } else {
            Proof::Asks
        };
        let server = server_part(newest, &asked.client, self.now, from);
        let mut cookie = [0; COOKIE_LEN];
        cookie[..CLIENT_LEN].copy_from_slice(&asked.client);
        cookie[CLIENT_LEN..].copy_from_slice(&server);
        Some((cookie, proof))
    }

    fn holds(&self, asked: &Asked<'_>, from: IpAddr) -> bool {
        let Ok(server) = <[u8; SERVER_LEN]>::try_from(asked.server) else {
            return false;
        };
        let [version, _, _, _, t0, t1, t2, t3, ..] = server;
        let made = u32::from_be_bytes([t0, t1, t2, t3]);
        let age = self.now.wrapping_sub(made).cast_signed();
        let is_ours = |secret: &Secret| {
            let ours = server_part(secret, &asked.client, made, from);
            aws_lc_rs::constant_time::verify_slices_are_equal(&ours, &server).is_ok()
        };
        version == VERSION && (-AHEAD..=OLDEST).contains(&age) && self.secrets.iter().any(is_ours)
    }
}

fn server_part(
    secret: &Secret,
    client: &[u8; CLIENT_LEN],
    time: u32,
    from: IpAddr,
) -> [u8; SERVER_LEN] {
    let mut head = [0; 8];
    head[0] = VERSION;
    head[4..].copy_from_slice(&time.to_be_bytes());
    let mut hasher = SipHasher24::new_with_key(&secret.0);
    hasher.write(client);
    hasher.write(&head);
    match from {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
    let mut part = [0; SERVER_LEN];
    part[..8].copy_from_slice(&head);
    // The hash's octets in the order in which SipHash gives them (RFC 9018, appendix A).
    part[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 16] = [
        0xe5, 0xe9, 0x73, 0xe5, 0xa6, 0xb2, 0xa4, 0x3f, 0x48, 0xe7, 0xdc, 0x84, 0x9e, 0x37, 0xbf,
        0xcf,
    ];
    const CLIENT: [u8; 8] = [0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57];

    fn from() -> IpAddr {
        "198.51.100.100".parse().unwrap()
    }

    fn bake(secrets: &[[u8; 16]], now: u32, server: &[u8], from: IpAddr) -> (Vec<u8>, Proof) {
        let secrets: Vec<_> = secrets.iter().copied().map(Secret::new).collect();
        let baker = Baker {
            secrets: &secrets,
            now,
        };
        let asked = Asked {
            client: CLIENT,
            server,
        };
        let (cookie, proof) = baker.bake(&asked, from).unwrap();
        (cookie[CLIENT_LEN..].to_vec(), proof)
    }

    fn hex(text: &str) -> Vec<u8> {
        let octets = text.as_bytes().chunks(2);
        octets
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn cookies_are_those_of_rfc_9018() {
        // Appendix A.1 and A.2: learning a cookie, and renewing it.
        let (first, proof) = bake(&[SECRET], 1_559_731_985, b"", from());
        assert_eq!(first, hex("010000005cf79f111f8130c3eee29480"));
        assert_eq!(proof, Proof::Asks);
        let (next, proof) = bake(&[SECRET], 1_559_734_385, &first, from());
        assert_eq!(next, hex("010000005cf7a871d4a564a1442aca77"));
        assert_eq!(proof, Proof::Proven);
    }

    #[test]
    fn another_address_another_time_and_another_secret_prove_nothing() {
        let made = 1_700_000_000;
        let (cookie, _) = bake(&[SECRET], made, b"", from());
        let proof =
            |secrets: &[[u8; 16]], now, server: &[u8], from| bake(secrets, now, server, from).1;

        assert_eq!(
            proof(&[SECRET], made + 3_600, &cookie, from()),
            Proof::Proven
        );
        assert_eq!(proof(&[SECRET], made + 3_601, &cookie, from()), Proof::Asks);
        assert_eq!(proof(&[SECRET], made - 300, &cookie, from()), Proof::Proven);
        assert_eq!(proof(&[SECRET], made - 301, &cookie, from()), Proof::Asks);
        let other = "198.51.100.101".parse().unwrap();
        assert_eq!(proof(&[SECRET], made, &cookie, other), Proof::Asks);
        assert_eq!(proof(&[[7; 16]], made, &cookie, from()), Proof::Asks);
        assert_eq!(
            proof(&[[7; 16], SECRET], made, &cookie, from()),
            Proof::Proven
        );
        assert_eq!(proof(&[SECRET], made, &cookie[..8], from()), Proof::Asks);
        for octet in 0..cookie.len() {
            let mut forged = cookie.clone();
            forged[octet] ^= 1;
            assert_eq!(
                proof(&[SECRET], made, &forged, from()),
                Proof::Asks,
                "{octet}"
            );
        }
    }

    #[test]
    fn only_lawful_lengths_are_cookies() {
        for length in 0..64 {
            let lawful = length == 8 || (16..=40).contains(&length);
            assert_eq!(Asked::read(&vec![1; length]).is_some(), lawful, "{length}");
        }
    }
}
