//! What time it is: read for each batch of questions, to some milliseconds, without a call of the system.

use std::mem::MaybeUninit;

use crate::dnssec::timing::Moment;

/// What the calendar says: the pure parts, and whoever works on keys, are handed this.
#[must_use]
pub fn now() -> Moment {
    Moment(read(libc::CLOCK_REALTIME_COARSE).0)
}

/// The same, cut to 32 bits: what cookies hold.
pub(crate) fn calendar_seconds() -> u32 {
    now().0 as u32
}

/// Seconds since 1970, and nanoseconds.
pub(crate) fn calendar() -> (u64, u32) {
    let (seconds, nanos) = read(libc::CLOCK_REALTIME_COARSE);
    (seconds, nanos as u32)
}

/// Microseconds since some moment, never going back.
pub(crate) fn steady_micros() -> u64 {
    let (seconds, nanos) = read(libc::CLOCK_MONOTONIC_COARSE);
    seconds * 1_000_000 + nanos / 1_000
}

/// Seconds and nanoseconds.
#[expect(
    unsafe_code,
    reason = "the coarse clocks have no safe form, and cost a fifth of the others for each lone question"
)]
fn read(clock: libc::clockid_t) -> (u64, u64) {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: `time` is room for a timespec, and zeroes are one should the call fail.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    (positive(time.tv_sec), positive(time.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree_with_the_others() {
        let others = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        assert!(now().0.abs_diff(others.as_secs()) <= 2);
        let before = steady_micros();
        assert!(before > 0 && steady_micros() >= before);
    }
}
