//! The numbers of the DNS wire format that this crate knows, by name. Holds no logic.

/// Record and question types (IANA "DNS Parameters", Resource Record TYPEs).
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const LOC: u16 = 29;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const CDS: u16 = 59;
    pub const CDNSKEY: u16 = 60;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    /// Says in a chain that a name is absent (RFC 9824 §2).
    pub const NXNAME: u16 = 128;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
    pub const TSIG: u16 = 250;

    /// Types that ask for something other than data of a name: 128–255 but for ANY, and OPT
    /// (RFC 6895 §3.1).
    #[must_use]
    pub const fn is_meta(rtype: u16) -> bool {
        (rtype >= 128 && rtype < 255) || rtype == OPT || rtype == 0
    }

    /// A word for the types that have one here; the rest share `other`, so that a stranger cannot
    /// make labels.
    #[must_use]
    pub const fn name(rtype: u16) -> &'static str {
        match rtype {
            A => "A",
            NS => "NS",
            CNAME => "CNAME",
            SOA => "SOA",
            PTR => "PTR",
            HINFO => "HINFO",
            MX => "MX",
            TXT => "TXT",
            AAAA => "AAAA",
            SRV => "SRV",
            DNAME => "DNAME",
            DS => "DS",
            RRSIG => "RRSIG",
            NSEC => "NSEC",
            DNSKEY => "DNSKEY",
            CDS => "CDS",
            CDNSKEY => "CDNSKEY",
            LOC => "LOC",
            SVCB => "SVCB",
            HTTPS => "HTTPS",
            ANY => "ANY",
            CAA => "CAA",
            _ => "other",
        }
    }
}

/// EDNS options (IANA "DNS EDNS0 Option Codes").
pub mod option {
    pub const NSID: u16 = 3;
    pub const CLIENT_SUBNET: u16 = 8;
    pub const COOKIE: u16 = 10;
    pub const KEEPALIVE: u16 = 11;
    pub const PADDING: u16 = 12;
    /// RFC 8914.
    pub const EDE: u16 = 15;
}

/// Response codes (RFC 1035 §4.1.1; BADVERS: RFC 6891 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    /// A name that would be too long (RFC 6672 §2.2).
    YxDomain = 6,
    /// Not an authority for the zone (RFC 1996 §3.12), or a signature that does not hold (RFC 8945 §5.2).
    NotAuth = 9,
    BadVers = 16,
    /// A question whose cookie proves nothing (RFC 7873 §5.2.3).
    BadCookie = 23,
}

impl Rcode {
    /// All of them, in the order of [`Rcode::index`].
    pub const ALL: [Self; 10] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::YxDomain,
        Self::BadVers,
        Self::BadCookie,
        Self::NotAuth,
    ];

    /// The code's place in a table of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::BadVers => 7,
            Self::BadCookie => 8,
            Self::NotAuth => 9,
            other => other as usize,
        }
    }

    /// The lower four bits, which stand in the header.
    #[must_use]
    pub const fn low(self) -> u8 {
        (self as u16 & 0x0f) as u8
    }

    /// The upper eight bits, which stand in OPT (RFC 6891 §6.1.3).
    #[must_use]
    pub const fn extended(self) -> u8 {
        (self as u16 >> 4) as u8
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::YxDomain => "yxdomain",
            Self::NotAuth => "notauth",
            Self::BadVers => "badvers",
            Self::BadCookie => "badcookie",
        }
    }
}

pub const CLASS_IN: u16 = 1;
/// Chaosnet: only its names for asking servers about themselves are left (RFC 4892).
pub const CLASS_CH: u16 = 3;
pub const HEADER_LEN: usize = 12;
/// The longest name on the wire, its root label included (RFC 1035 §2.3.4).
pub const NAME_MAX: usize = 255;
pub const LABEL_MAX: usize = 63;
