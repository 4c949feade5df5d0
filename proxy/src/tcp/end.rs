//! The ways in which a session ends, and their words in metrics and logs.

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Client and endpoint both ended their direction.
    Finished,
    /// The client's connection broke.
    ClientReset,
    /// The endpoint's connection broke.
    EndpointReset,
    /// Nothing moved for too long.
    Idle,
    /// It was as old as a session may be.
    Lifetime,
    /// Its endpoint went down, and the listener wants its sessions closed then.
    EndpointDown,
    /// No endpoint could be connected to.
    NoEndpoint,
    /// A lawful ClientHello did not come, or not in time.
    BadHello,
    /// Nobody serves the server name that the client asks for.
    UnknownName,
    /// The proxy itself ended.
    CutOff,
}

impl End {
    pub(crate) const ALL: [Self; 10] = [
        Self::Finished,
        Self::ClientReset,
        Self::EndpointReset,
        Self::Idle,
        Self::Lifetime,
        Self::EndpointDown,
        Self::NoEndpoint,
        Self::BadHello,
        Self::UnknownName,
        Self::CutOff,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::ClientReset => "client_reset",
            Self::EndpointReset => "endpoint_reset",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::EndpointDown => "endpoint_down",
            Self::NoEndpoint => "no_endpoint",
            Self::BadHello => "bad_hello",
            Self::UnknownName => "unknown_name",
            Self::CutOff => "cut_off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_ends_is_in_the_order_of_what_indexes_it() {
        for (at, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, at);
        }
    }
}
