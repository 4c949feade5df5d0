//! What becomes of mirrored requests, as metrics have it.

/// What became of a request that was to be mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirrored {
    /// An answer came; nobody looked at it.
    Answered,
    /// There was no endpoint, or it failed.
    Failed,
    TimedOut,
    /// As many are under way as may be.
    Busy,
    /// Its body is too large.
    Large,
    /// Its body did not come to its end.
    Unfinished,
}

impl Mirrored {
    /// In the order of their discriminants: tables are indexed by them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Answered,
        Self::Failed,
        Self::TimedOut,
        Self::Busy,
        Self::Large,
        Self::Unfinished,
    ];

    /// A word for metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Busy => "busy",
            Self::Large => "large",
            Self::Unfinished => "unfinished",
        }
    }
}
