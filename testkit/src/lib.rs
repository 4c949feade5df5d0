//! What tests are built from: worlds, scripted endpoints, and plain clients that can misbehave.
//!
//! For tests and load tests only; nothing that ships depends on it. Knows [`sealane_model`] and
//! the wire, and none of the rooms. Everything it opens listens on loopback.
//!
//! [`world`] builds snapshots, [`mmdb`] geographic tables; [`endpoint`] serves and misbehaves;
//! [`http_client`] and [`dns_client`] ask once, [`load`] asks at a fixed rate and [`timeline`] says
//! what came of it; [`port`] draws ports for programs that want one.

pub mod authority;
pub mod dns_client;
pub mod endpoint;
pub mod http1;
pub mod http_client;
pub mod load;
pub mod mmdb;
pub mod port;
pub mod report;
pub mod timeline;
pub mod websocket;
pub mod world;

pub use authority::{Authority, Issued};
pub use endpoint::{Mode, ScriptedEndpoint};
pub use http_client::{HttpClient, Request};
pub use world::{Names, World};
