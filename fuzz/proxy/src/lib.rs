//! What must hold for the proxy's parsers whatever they are fed. Called by the targets in `bin/`, each
//! with one input; panics when something does not hold.
//!
//! Compiles the proxy's own files into itself: most are private to it, and the rest of it is much.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a part of the proxy is compiled a second time, and only some of it is called"
)]

pub mod codec;
pub mod heads;

#[path = "../../../proxy/src/h1/mod.rs"]
mod h1;
#[path = "../../../proxy/src/proxy_protocol.rs"]
pub mod proxy_protocol;
#[path = "../../../proxy/src/tcp/sni.rs"]
pub mod sni;

#[path = "../../../proxy/src/http"]
mod http {
    pub(crate) mod admit;
    pub(crate) mod fields;
    pub(crate) mod headers;
    pub(crate) mod message;
    pub(crate) mod refuse;
    pub(crate) mod rules {
        pub(crate) mod edits;
        pub(crate) mod encoding;
        pub(crate) mod grpc;
    }
}

#[path = "../../../proxy/src/config"]
mod config {
    pub(crate) mod limits;
    pub(crate) mod options;
    pub(crate) mod sharing;
    pub(crate) use limits::*;
    pub(crate) use options::*;

    /// Stands for the proxy's own.
    #[derive(Clone, Debug)]
    pub struct Destination;
}

/// Stands for the proxy's own, which drags the rest of it in: what is parsed here never has one.
mod upstream {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum NoEndpoint {
        NoData,
        NoMembers,
        Unresolved,
        NoRoom,
        AllTried,
    }

    pub(crate) mod rates {
        pub(crate) fn seconds(time: std::time::Duration) -> u64 {
            time.as_secs()
        }
    }

    pub(crate) mod route {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Shed {
            NoRoom,
        }

        impl Shed {
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    Self::NoRoom => "no_room",
                }
            }
        }
    }
}
