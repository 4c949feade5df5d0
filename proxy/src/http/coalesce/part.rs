//! What a request had to do with others that asked the same, as metrics and logs have it.

/// What a request had to do with others that asked the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its attempt served others too.
    Led,
    /// It was served by another one's attempt.
    Followed,
    /// It says who asks, and the route does not share that.
    Credentials,
    /// The answer depends on what the client has.
    Conditional,
    /// The client wants a fresh answer.
    Fresh,
    LongHead,
    /// The answer's `Cache-Control` forbids it.
    Private,
    NoStore,
    SetCookie,
    /// The answer depends on something in which those who ask the same may differ.
    Vary,
    /// The answer's status may be about one client.
    Status,
    Large,
    /// Of events.
    Stream,
    /// Lately, the answer to the same was not to be shared.
    Known,
    /// It waited long enough.
    Waited,
    /// What it had not read yet was gone.
    Lagged,
    /// Its leader was lost time after time.
    Lost,
    /// As many as may follow already.
    Full,
    /// As much is under way as may be.
    Crowded,
}

impl Part {
    /// In the order of their discriminants: tables are indexed by them.
    pub(crate) const ALL: [Self; 19] = [
        Self::Led,
        Self::Followed,
        Self::Credentials,
        Self::Conditional,
        Self::Fresh,
        Self::LongHead,
        Self::Private,
        Self::NoStore,
        Self::SetCookie,
        Self::Vary,
        Self::Status,
        Self::Large,
        Self::Stream,
        Self::Known,
        Self::Waited,
        Self::Lagged,
        Self::Lost,
        Self::Full,
        Self::Crowded,
    ];

    /// A word for logs and metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Led => "led",
            Self::Followed => "followed",
            Self::Credentials => "credentials",
            Self::Conditional => "conditional",
            Self::Fresh => "fresh",
            Self::LongHead => "long_head",
            Self::Private => "private",
            Self::NoStore => "no_store",
            Self::SetCookie => "set_cookie",
            Self::Vary => "vary",
            Self::Status => "status",
            Self::Large => "large",
            Self::Stream => "stream",
            Self::Known => "known",
            Self::Waited => "waited",
            Self::Lagged => "lagged",
            Self::Lost => "lost",
            Self::Full => "full",
            Self::Crowded => "crowded",
        }
    }

    /// Whether the next answer to the same will probably be not to be shared either.
    pub(super) const fn lasts(self) -> bool {
        !matches!(self, Self::Status)
    }
}
