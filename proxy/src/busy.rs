//! How much of its time this thread works: measured when asked, without a timer.
//!
//! Asked by `http::overload`. What a thread waits for a processor that others have does not show.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks at the thread's clock; a look costs a system call.
const LOOK_EVERY: Duration = Duration::from_millis(250);

thread_local! {
    static LAST: Cell<Option<Look>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    worked: Duration,
    /// Of the time since the look before.
    permille: u32,
}

/// In thousandths, over the last quarter of a second that was looked at; 0 at first.
pub(crate) fn permille(now: Instant) -> u32 {
    let last = LAST.get();
    if let Some(last) = last
        && now.saturating_duration_since(last.at) < LOOK_EVERY
    {
        return last.permille;
    }
    let look = next(last, now, worked());
    LAST.set(Some(look));
    look.permille
}

fn next(last: Option<Look>, now: Instant, worked: Duration) -> Look {
    let share = last.map_or(0.0, |last| {
        let did = worked.saturating_sub(last.worked).as_secs_f64();
        did / now
            .saturating_duration_since(last.at)
            .as_secs_f64()
            .max(1e-3)
    });
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1,000"
    )]
    let permille = (share.clamp(0.0, 1.0) * 1e3) as u32;
    Look {
        at: now,
        worked,
        permille,
    }
}

/// Time that this thread has been on a processor.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_share_is_what_was_worked_of_what_passed() {
        let begin = clock::now();
        let first = next(None, begin, Duration::from_secs(5));
        assert_eq!(first.permille, 0);
        let later = begin + Duration::from_millis(500);
        let second = next(Some(first), later, Duration::from_millis(5_450));
        assert_eq!(second.permille, 900);
        let idle = next(Some(second), later + Duration::from_secs(10), second.worked);
        assert_eq!(idle.permille, 0);
    }

    #[test]
    fn a_thread_that_spins_shows() {
        let begin = clock::now();
        let before = worked();
        while clock::now() - begin < Duration::from_millis(20) {}
        assert!(worked() > before);
    }
}
