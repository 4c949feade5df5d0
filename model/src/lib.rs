//! The words that every part of Sealane shares: ids, units, topology, verdicts, snapshots.
//!
//! Pure data and the two channels that carry it. Knows no file format, no socket, no clock and
//! no framework. Read [`topology`] (what exists), then [`snapshot`] (what is known about it).

pub mod health;
pub mod id;
pub mod learned;
pub mod observation;
pub mod publish;
pub mod snapshot;
pub mod topology;
pub mod traffic;
pub mod unit;

pub use health::{
    Basis, EndpointHealth, Judged, MemberHealth, OutReason, RampStep, Room, Source, Standing,
    Verdict,
};
pub use id::{EndpointId, IdBook, PoolId, RegionId};
pub use learned::{Correction, Distances, Learned, Lesson, Network, Notebook, RoundTrip};
pub use observation::{EjectionCause, Failure, Judgement, Observation, Outcome};
pub use publish::{ObservationSender, SnapshotReader, SnapshotWriter};
pub use snapshot::Snapshot;
pub use topology::{
    Addresses, AllDown, CertificatePem, Endpoint, EndpointProtocol, EndpointTls, FailoverRule,
    Location, Member, Pool, ProxyVersion, RampRule, Region, Roots, Target, TlsVersion, Topology,
};
pub use traffic::{Arrival, MemberTraffic, Traffic, TrafficCounts, TrafficShard};
pub use unit::{Generation, Rate, Ratio, ScopePrefix, Timestamp, Ttl, Weight};
