//! gRPC's deadlines ("gRPC over HTTP2", `Timeout`): read from a request, written for an endpoint.
//! Pure.

use std::time::Duration;

/// At most 8 digits and a unit. `None`: not lawful.
pub(crate) fn read(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// In the finest unit that 8 digits hold, rounded up: an endpoint that gave up before us would
/// only be asked again.
pub(crate) fn write(left: Duration) -> String {
    const DIGITS: u128 = 100_000_000;
    let nanos = left.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let fits = units
        .into_iter()
        .map(|(size, unit)| (nanos.div_ceil(size), unit))
        .find(|(number, _)| *number < DIGITS);
    let (number, unit) = fits.unwrap_or((DIGITS - 1, 'H'));
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Duration> {
        read(text.as_bytes())
    }

    #[test]
    fn lawful_time_outs_are_read_and_others_are_not() {
        assert_eq!(of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(
            of("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("0n"), Some(Duration::ZERO));
        for unlawful in [
            "",
            "S",
            "1",
            "1s",
            "100000000n",
            "-1S",
            "+1S",
            "1.5S",
            " 1S",
            "1 S",
        ] {
            assert_eq!(of(unlawful), None, "{unlawful}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_no_less() {
        for nanos in [
            0,
            1,
            99_999_999,
            100_000_001,
            123_456_789_123,
            7_200_000_000_000_001,
        ] {
            let left = Duration::from_nanos(nanos);
            let read = of(&write(left)).unwrap();
            assert!(read >= left, "{left:?} became {read:?}");
            assert!(read.as_nanos() <= left.as_nanos() + left.as_nanos() / 10_000);
        }
        assert_eq!(write(Duration::MAX), "99999999H");
    }
}
