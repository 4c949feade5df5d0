//! Where should this client go, and why: pure decisions over one snapshot of the world.
//!
//! Proxy, DNS and the admin API's `explain` call the same [`rank()`], so they cannot disagree.
//! Same place, policy, world and key give the same ranking on every node. Read [`mod@rank`] first.

pub mod explain;
pub mod fallback;
pub mod fence;
pub mod geo;
pub mod place;
pub mod policy;
pub mod rank;
pub mod reason;

pub use explain::Decision;
pub use fallback::{Standard, Usable, usable};
pub use fence::{Fence, Fences};
pub use geo::{Area, GeoError, GeoOverride, GeoTable, Located, Wanted};
pub use place::{ClientPlace, How};
pub use policy::{SteeringPolicy, Weights, Within};
pub use rank::{
    Ask, Candidate, Entry, Explanation, LatencyBasis, Ranking, depends_on_key, explain, lesson,
    rank,
};
pub use reason::Reason;
