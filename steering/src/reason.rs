//! Why a ranking begins as it does: the same word in logs, metric labels, headers and `explain`.

use sealane_model::{RegionId, Topology};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    WeightedLatency,
    Nearest,
    Weighted,
    Priority,
    Pinned,
    /// The policy would have chosen `from`, which is out.
    FailedOver {
        from: RegionId,
    },
    /// The policy would have chosen `from`, which has no room for this one.
    Spilled {
        from: RegionId,
    },
    /// The policy would have chosen `from`, which returns step by step: not this one yet.
    Ramping {
        from: RegionId,
    },
    /// No region has room: the policy's choice all the same, or nobody if this one can be shed.
    NoRoom,
    /// An operator's rule leaves this client some regions only.
    Confined,
    /// So little is usable that what still works in regions that are out serves too.
    Panic,
    /// Only regions in hold-down are left: better than none.
    HoldDownIgnored,
    /// No region is usable; answered as if all were (`fail_open`).
    AllDown,
    /// No region is usable, and the operator wants no answer then (`no_data`).
    NoData,
    /// No region is usable; the operator's fallback addresses serve.
    Fallback,
    /// The pool has no endpoint anywhere.
    NoMembers,
}

impl Reason {
    /// May whoever can wait be refused for it? More has come than all regions together can carry.
    #[must_use]
    pub const fn asks_to_shed(self) -> bool {
        matches!(self, Self::NoRoom)
    }

    /// How many words [`Reason::as_str`] knows.
    pub const WORDS: usize = 16;

    /// The place of this reason's word in a table of [`Reason::WORDS`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::WeightedLatency => 0,
            Self::Nearest => 1,
            Self::Weighted => 2,
            Self::Priority => 3,
            Self::Pinned => 4,
            Self::FailedOver { .. } => 5,
            Self::HoldDownIgnored => 6,
            Self::AllDown => 7,
            Self::NoData => 8,
            Self::Fallback => 9,
            Self::NoMembers => 10,
            Self::Spilled { .. } => 11,
            Self::Ramping { .. } => 12,
            Self::NoRoom => 13,
            Self::Confined => 14,
            Self::Panic => 15,
        }
    }

    /// A word for a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WeightedLatency => "weighted_latency",
            Self::Nearest => "nearest",
            Self::Weighted => "weighted",
            Self::Priority => "priority",
            Self::Pinned => "pinned",
            Self::FailedOver { .. } => "failed_over",
            Self::Spilled { .. } => "spilled",
            Self::Ramping { .. } => "ramping",
            Self::NoRoom => "no_room",
            Self::Confined => "confined",
            Self::Panic => "panic",
            Self::HoldDownIgnored => "hold_down_ignored",
            Self::AllDown => "all_down",
            Self::NoData => "no_data",
            Self::Fallback => "fallback",
            Self::NoMembers => "no_members",
        }
    }

    /// The word with its particulars: `failed_over(us-east-1)`.
    #[must_use]
    pub fn describe(self, topology: &Topology) -> String {
        match self {
            Self::FailedOver { from } | Self::Spilled { from } | Self::Ramping { from } => {
                format!("{}({})", self.as_str(), topology.region_name(from))
            }
            other => other.as_str().to_owned(),
        }
    }
}
