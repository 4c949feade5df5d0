//! Telling one server that a zone changed (RFC 1996 §3.6): how often, and when it is given up. Pure.

use std::time::{Duration, Instant};

/// An answer is waited for so long at first, and twice as long each time.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Times that it is told in all; then the server will find out by itself, by its refresh.
pub const TRIES_MAX: u32 = 6;

/// What one server knows of one zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The serial that it is to know. `None`: nothing was ever told.
    serial: Option<u32>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It knows, or was given up.
    #[default]
    Done,
    /// To be told at that time, so many times told in vain.
    Due(Instant, u32),
}

impl Notice {
    /// The zone has this serial now.
    pub fn changed(&mut self, now: Instant, serial: u32) {
        if self.serial != Some(serial) {
            self.serial = Some(serial);
            self.state = State::Due(now, 0);
        }
    }

    /// Is it to be told now? Then an answer is waited for, and later it is told again.
    pub fn step(&mut self, now: Instant) -> Step {
        match self.state {
            State::Due(at, tries) if at <= now && tries < TRIES_MAX => {
                self.state = State::Due(now + FIRST_WAIT * (1 << tries), tries + 1);
                Step::Tell
            }
            State::Due(at, _) if at <= now => {
                self.state = State::Done;
                Step::GiveUp
            }
            _ => Step::Nothing,
        }
    }

    /// It answered what it was told of `serial`.
    pub fn answered(&mut self, serial: u32) {
        if self.serial == Some(serial) {
            self.state = State::Done;
        }
    }

    #[must_use]
    pub const fn serial(&self) -> Option<u32> {
        self.serial
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Tell,
    GiveUp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_never_answers_is_told_six_times_ever_more_rarely() {
        #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
        let start = Instant::now();
        let mut notice = Notice::default();
        notice.changed(start, 7);
        let (mut told, mut given_up) = (Vec::new(), None);
        for second in 0..200 {
            match notice.step(start + Duration::from_secs(second)) {
                Step::Tell => told.push(second),
                Step::GiveUp => given_up = Some(second),
                Step::Nothing => {}
            }
        }
        assert_eq!(told, [0, 2, 6, 14, 30, 62]);
        assert_eq!(given_up, Some(126));
    }

    #[test]
    fn an_answer_ends_it_and_a_late_one_to_an_older_serial_does_not() {
        #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
        let start = Instant::now();
        let mut notice = Notice::default();
        notice.changed(start, 7);
        assert_eq!(notice.step(start), Step::Tell);
        notice.changed(start, 8);
        notice.answered(7);
        assert_eq!(notice.step(start), Step::Tell);
        notice.answered(8);
        assert_eq!(notice.step(start + Duration::from_secs(60)), Step::Nothing);
        notice.changed(start, 8);
        assert_eq!(notice.step(start + Duration::from_secs(60)), Step::Nothing);
    }
}
