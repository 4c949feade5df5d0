//! Serial numbers (RFC 1982): a circle, on which one is newer than another that lies less than half of it behind.

/// Is `one` newer than `other`? Of two that lie opposite each other neither is.
#[must_use]
pub const fn is_newer(one: u32, other: u32) -> bool {
    let ahead = one.wrapping_sub(other);
    ahead != 0 && ahead < 1 << 31
}

/// The next one. 0 is left out: some servers take it for "none".
#[must_use]
pub const fn after(serial: u32) -> u32 {
    match serial.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_goes_round_the_circle() {
        for (one, other, expected) in [
            (2, 1, true),
            (1, 2, false),
            (1, 1, false),
            (5, u32::MAX - 5, true),
            (u32::MAX - 5, 5, false),
            (1 << 31, 0, false),
            ((1 << 31) - 1, 0, true),
        ] {
            assert_eq!(is_newer(one, other), expected, "{one} {other}");
        }
        assert_eq!((after(u32::MAX), after(7)), (1, 8));
    }
}
