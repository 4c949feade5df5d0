//! Extended DNS errors (RFC 8914): why an answer is what it is, for those who must find out. Holds words only.
//!
//! They stand in answers to questions with OPT, where there is room; no answer is cut short for one.

/// One EDE option: its INFO-CODE and EXTRA-TEXT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ede {
    pub(crate) code: u16,
    /// For people; ASCII, and short: it makes answers longer.
    pub(crate) text: &'static str,
}

impl Ede {
    const fn new(code: u16, text: &'static str) -> Self {
        Self { code, text }
    }

    /// No region is usable, and the operator's rule for that decides.
    pub(crate) const ALL_DOWN: Self = Self::new(0, "no region is usable");
    /// An alias whose target could not be looked up anew.
    pub(crate) const STALE: Self = Self::new(3, "");
    /// A signature would have been one too many for this second.
    pub(crate) const UNSIGNED: Self = Self::new(10, "too many signatures at once");
    /// No address is known yet.
    pub(crate) const NOT_READY: Self = Self::new(14, "");
    /// A name of none of our zones.
    pub(crate) const NOT_AUTHORITATIVE: Self = Self::new(20, "");
    /// A class, type or opcode that is not served.
    pub(crate) const NOT_SUPPORTED: Self = Self::new(21, "");
    /// An alias whose target cannot be looked up.
    pub(crate) const UNRESOLVED: Self = Self::new(22, "");
    /// A secondary zone that has not come yet, or expired.
    pub(crate) const NO_COPY: Self = Self::new(24, "no copy of the zone that still holds");
    /// A type that says that a name is absent, and can't be asked for (RFC 9824 §3.5).
    pub(crate) const QUERY_TYPE: Self = Self::new(30, "");

    /// Octets of the option.
    pub(crate) const fn length(self) -> usize {
        4 + 2 + self.text.len()
    }
}
