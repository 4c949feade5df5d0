//! The scalars of the file: durations, shares, sizes, addresses, words. Reads and prints them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::decode::{Leaf, Out, Wrong, leaf};

/// Free text; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl Leaf for Text {
    const TEXTUAL: bool = true;

    fn expected() -> String {
        "text".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            return Err(Wrong::because("is empty"));
        }
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Out {
        Out::Text(self.0.clone())
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}
leaf!([] Text);

/// One text or several.
pub type OneOrManyText = super::decode::OneOrMany<Text>;

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is printed instead of a secret.
pub const REDACTED: &str = "<redacted>";

impl Leaf for Secret {
    const TEXTUAL: bool = true;
    const SECRET: bool = true;

    fn expected() -> String {
        "text".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            return Err(Wrong::because("is empty"));
        }
        Ok(Self(text.to_owned()))
    }

    fn write(&self) -> Out {
        // A file's name is no secret.
        match self.0.starts_with("file:") {
            true => Out::Text(self.0.clone()),
            false => Out::Text(REDACTED.to_owned()),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}
leaf!([] Secret);

/// `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag(pub bool);

impl Leaf for Flag {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "true" | "True" | "TRUE" => Ok(Self(true)),
            "false" | "False" | "FALSE" => Ok(Self(false)),
            "yes" | "on" => Err(Wrong::default().help("did you mean `true`?")),
            "no" | "off" => Err(Wrong::default().help("did you mean `false`?")),
            _ => Err(Wrong::default()),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}
leaf!([] Flag);

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Leaf for Whole<MIN, MAX> {
    const NUMERIC: bool = true;

    fn expected() -> String {
        format!("a whole number, {MIN}–{MAX}")
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.is_empty() {
            return Err(Wrong::default());
        }
        match text.parse::<u64>() {
            Ok(value) if (MIN..=MAX).contains(&value) => Ok(Self(value)),
            _ => Err(Wrong::because("is out of range")),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}
leaf!([const MIN: u64, const MAX: u64] Whole<MIN, MAX>);

/// The version of the file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version;

impl Leaf for Version {
    const NUMERIC: bool = true;

    fn expected() -> String {
        "`1`, the only version there is".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "1" => Ok(Self),
            _ => Err(Wrong::because(
                "is a version that this Sealane does not read",
            )),
        }
    }

    fn write(&self) -> Out {
        Out::Plain("1".to_owned())
    }

    fn schema() -> Value {
        json!({ "type": "integer", "const": 1 })
    }
}
leaf!([] Version);

/// A version of TLS: `"1.2"` or `"1.3"`, in quotes or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersionText(pub sealane_model::TlsVersion);

impl Leaf for TlsVersionText {
    fn expected() -> String {
        "`\"1.2\"` or `\"1.3\"`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "1.2" => Ok(Self(sealane_model::TlsVersion::Tls12)),
            "1.3" => Ok(Self(sealane_model::TlsVersion::Tls13)),
            "1.0" | "1.1" => Err(Wrong::because("is forbidden (RFC 8996)")),
            _ => Err(Wrong::default()),
        }
    }

    fn write(&self) -> Out {
        let text = match self.0 {
            sealane_model::TlsVersion::Tls12 => "1.2",
            sealane_model::TlsVersion::Tls13 => "1.3",
        };
        Out::Text(text.to_owned())
    }

    fn schema() -> Value {
        json!({ "enum": ["1.2", "1.3", 1.2, 1.3] })
    }
}
leaf!([] TlsVersionText);

/// A duration with its unit, from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period<const MIN: u64, const MAX: u64>(pub Duration);

const DURATION_PATTERN: &str = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$";

impl<const MIN: u64, const MAX: u64> Leaf for Period<MIN, MAX> {
    fn expected() -> String {
        format!(
            "a duration such as `250ms`, `5s`, `1m`; {}–{}",
            print_millis(MIN),
            print_millis(MAX)
        )
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        within(read_duration(text)?, MIN, MAX).map(Self)
    }

    fn write(&self) -> Out {
        Out::Plain(print_duration(self.0))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": DURATION_PATTERN })
    }
}
leaf!([const MIN: u64, const MAX: u64] Period<MIN, MAX>);

/// As [`Period`], where a bare number means seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> Leaf for Seconds<MIN, MAX> {
    fn expected() -> String {
        format!(
            "seconds, or a duration such as `250ms`; {}–{}",
            print_millis(MIN),
            print_millis(MAX)
        )
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let bare = text.parse::<f64>().is_ok();
        let duration = if bare {
            read_duration(&format!("{text}s"))?
        } else {
            read_duration(text)?
        };
        within(duration, MIN, MAX).map(Self)
    }

    fn write(&self) -> Out {
        Out::Plain(print_duration(self.0))
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": DURATION_PATTERN },
        ] })
    }
}
leaf!([const MIN: u64, const MAX: u64] Seconds<MIN, MAX>);

/// A share of a route's attempts by its percentile, or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfterText {
    Fixed(Duration),
    P50,
    P90,
    P95,
    P99,
}

impl Leaf for HedgeAfterText {
    fn expected() -> String {
        "`p50`, `p90`, `p95` or `p99`, or a duration such as `30ms`; 1ms–1h".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "p50" => Ok(Self::P50),
            "p90" => Ok(Self::P90),
            "p95" => Ok(Self::P95),
            "p99" => Ok(Self::P99),
            _ if text.starts_with('p') => Err(Wrong::because("is no percentile that is kept")),
            _ => within(read_duration(text)?, 1, 3_600_000).map(Self::Fixed),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(match self {
            Self::Fixed(delay) => print_duration(*delay),
            Self::P50 => "p50".to_owned(),
            Self::P90 => "p90".to_owned(),
            Self::P95 => "p95".to_owned(),
            Self::P99 => "p99".to_owned(),
        })
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "enum": ["p50", "p90", "p95", "p99"] },
            { "type": "string", "pattern": DURATION_PATTERN },
        ] })
    }
}
leaf!([] HedgeAfterText);

/// What may be followed by another attempt: a kind of failure, or the status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryWord {
    Connect,
    Reset,
    Timeout,
    BadGateway,
    Unavailable,
    GatewayTimeout,
}

impl RetryWord {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::BadGateway => "502",
            Self::Unavailable => "503",
            Self::GatewayTimeout => "504",
        }
    }
}

impl Leaf for RetryWord {
    fn expected() -> String {
        "`connect`, `reset`, `timeout`, `502`, `503` or `504`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            "502" => Ok(Self::BadGateway),
            "503" => Ok(Self::Unavailable),
            "504" => Ok(Self::GatewayTimeout),
            "500" => Err(Wrong::because("is an answer that any endpoint would give")),
            "5xx" => Err(Wrong::default().help("write `[502, 503, 504]`")),
            _ => Err(Wrong::default()),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(self.as_str().to_owned())
    }

    fn schema() -> Value {
        json!({ "enum": ["connect", "reset", "timeout", "502", "503", "504", 502, 503, 504] })
    }
}
leaf!([] RetryWord);

/// A duration of whole seconds, from `MIN` to `MAX` seconds: how long others may keep an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Leaf for Lifetime<MIN, MAX> {
    fn expected() -> String {
        let print = |seconds: u32| print_millis(u64::from(seconds) * 1000);
        format!(
            "whole seconds with a unit, such as `10s`, `1h`; {}–{}",
            print(MIN),
            print(MAX)
        )
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let duration = within(
            read_duration(text)?,
            u64::from(MIN) * 1000,
            u64::from(MAX) * 1000,
        )?;
        if duration.subsec_nanos() != 0 {
            return Err(Wrong::because("is not whole seconds"));
        }
        u32::try_from(duration.as_secs())
            .map(Self)
            .map_err(|_| Wrong::because("is out of range"))
    }

    fn write(&self) -> Out {
        Out::Plain(print_duration(Duration::from_secs(self.0.into())))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": DURATION_PATTERN })
    }
}
leaf!([const MIN: u32, const MAX: u32] Lifetime<MIN, MAX>);

fn within(duration: Duration, min: u64, max: u64) -> Result<Duration, Wrong> {
    let lawful = Duration::from_millis(min)..=Duration::from_millis(max);
    if lawful.contains(&duration) {
        Ok(duration)
    } else {
        Err(Wrong::because("is out of range"))
    }
}

/// Reads a duration as the file has it: `250ms`, `5s`, `1m`.
///
/// # Errors
/// What was expected, for a person.
pub fn duration(text: &str) -> Result<Duration, String> {
    read_duration(text).map_err(|_| format!("{text:?} is no duration such as `250ms`, `5s`, `1m`"))
}

fn read_duration(text: &str) -> Result<Duration, Wrong> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "" if number.parse::<f64>().is_ok() => {
            return Err(Wrong::because("lacks a unit").help(format!("did you mean `{number}s`?")));
        }
        "sec" | "secs" | "second" | "seconds" => return Err(bad_unit(unit, number, "s")),
        "min" | "mins" | "minute" | "minutes" => return Err(bad_unit(unit, number, "m")),
        "hr" | "hour" | "hours" => return Err(bad_unit(unit, number, "h")),
        "us" | "µs" | "ns" => return Err(Wrong::because(format!("has the unit `{unit}`"))),
        _ if !number.is_empty() && unit.chars().all(char::is_alphabetic) => {
            return Err(Wrong::because(format!("has the unknown unit `{unit}`")));
        }
        _ => return Err(Wrong::default()),
    };
    let number: f64 = number.parse().map_err(|_| Wrong::default())?;
    // Rounded to microseconds, so that `0.1s` is what it says.
    let micros = (number * seconds_per_unit * 1e6).round();
    if micros.is_finite() && (0.0..1e18).contains(&micros) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 0–1e18, just checked"
        )]
        let micros = micros as u64;
        Ok(Duration::from_micros(micros))
    } else {
        Err(Wrong::because("is out of range"))
    }
}

fn bad_unit(unit: &str, number: &str, right: &str) -> Wrong {
    Wrong::because(format!("has the unknown unit `{unit}`"))
        .help(format!("did you mean `{number}{right}`?"))
}

fn print_millis(millis: u64) -> String {
    print_duration(Duration::from_millis(millis))
}

/// In the largest unit that makes it a whole number, else in seconds or milliseconds.
#[must_use]
pub fn print_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    let units: [(u128, &str); 4] = [
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "m"),
        (1_000_000, "s"),
    ];
    if micros == 0 {
        return "0s".to_owned();
    }
    for (unit, name) in units {
        if micros.is_multiple_of(unit) {
            return format!("{}{name}", micros / unit);
        }
    }
    if micros > 1_000_000 {
        let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        return format!("{}s", text.trim_end_matches('0'));
    }
    if micros.is_multiple_of(1000) {
        return format!("{}ms", micros / 1000);
    }
    let text = format!("{}.{:03}", micros / 1000, micros % 1000);
    format!("{}ms", text.trim_end_matches('0'))
}

/// A share of a whole: `50%` or `0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

impl Leaf for Share {
    fn expected() -> String {
        "a share such as `50%` or `0.5`; 0%–100%".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let (number, whole) = match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), 100.0),
            None => (text, 1.0),
        };
        if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return Err(Wrong::default());
        }
        let value: f64 = number.parse().map_err(|_| Wrong::default())?;
        let share = value / whole;
        if (0.0..=1.0).contains(&share) {
            return Ok(Self(share));
        }
        let wrong = Wrong::because("is out of range");
        if whole == 1.0 && (1.0..=100.0).contains(&value) {
            return Err(wrong.help(format!("did you mean `{value}%`?")));
        }
        Err(wrong)
    }

    fn write(&self) -> Out {
        let percent = self.0 * 100.0;
        Out::Plain(format!("{}%", (percent * 1e9).round() / 1e9))
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%?$" },
        ] })
    }
}
leaf!([] Share);

/// As [`Share`], where `50%_unhealthy` may be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnhealthyShare(pub f64);

impl Leaf for UnhealthyShare {
    fn expected() -> String {
        "a share such as `50%_unhealthy`, `50%` or `0.5`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let text = text.strip_suffix("_unhealthy").unwrap_or(text);
        Share::read(text).map(|share| Self(share.0))
    }

    fn write(&self) -> Out {
        Share(self.0).write()
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%?(_unhealthy)?$" },
        ] })
    }
}
leaf!([] UnhealthyShare);

/// A share by which something may be more: `+2%`, or `none` for any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MoreErrors(pub Option<f64>);

impl Leaf for MoreErrors {
    fn expected() -> String {
        "a share such as `+2%`; 0%–100%; or `none`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text == "none" {
            return Ok(Self(None));
        }
        let share = Share::read(text.strip_prefix('+').unwrap_or(text))?;
        Ok(Self(Some(share.0)))
    }

    fn write(&self) -> Out {
        match (self.0, self.0.map(|share| Share(share).write())) {
            (_, Some(Out::Plain(share))) => Out::Plain(format!("+{share}")),
            _ => Out::Plain("none".to_owned()),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 1 },
            { "type": "string", "pattern": r"^(none|\+?[0-9]+(\.[0-9]+)?%?)$" },
        ] })
    }
}
leaf!([] MoreErrors);

/// How many times as much: `1.5x`, or `none` for any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times(pub Option<f64>);

impl Leaf for Times {
    fn expected() -> String {
        "a factor such as `1.5x`; 1–100; or `none`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.strip_suffix('x').unwrap_or(text);
        if !number.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Wrong::default());
        }
        let factor: f64 = number.parse().map_err(|_| Wrong::default())?;
        if (1.0..=100.0).contains(&factor) {
            return Ok(Self(Some(factor)));
        }
        Err(Wrong::because("is out of range"))
    }

    fn write(&self) -> Out {
        Out::Plain(match self.0 {
            Some(factor) => format!("{factor}x"),
            None => "none".to_owned(),
        })
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 1, "maximum": 100 },
            { "type": "string", "pattern": r"^(none|[0-9]+(\.[0-9]+)?x?)$" },
        ] })
    }
}
leaf!([] Times);

/// Bytes with a unit, from `MIN` to `MAX` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Leaf for Size<MIN, MAX> {
    fn expected() -> String {
        format!(
            "a size such as `64KiB`, `10MiB`; {}–{}",
            print_size(MIN),
            print_size(MAX)
        )
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let bytes = read_size(text)?;
        if (MIN..=MAX).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(Wrong::because("is out of range"))
        }
    }

    fn write(&self) -> Out {
        Out::Plain(print_size(self.0))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": SIZE_PATTERN })
    }
}
leaf!([const MIN: u64, const MAX: u64] Size<MIN, MAX>);

const SIZE_PATTERN: &str = r"^[0-9]+(B|KiB|MiB|GiB|TiB)$";

fn read_size(text: &str) -> Result<u64, Wrong> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit_bytes: u64 = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "" if !number.is_empty() => {
            return Err(Wrong::because("lacks a unit").help(format!("did you mean `{number}B`?")));
        }
        other if !number.is_empty() && !other.is_empty() => {
            let wrong = Wrong::because(format!("has the unknown unit `{other}`"));
            let binary = match other.to_ascii_lowercase().as_str() {
                "k" | "kb" | "kib" => "KiB",
                "m" | "mb" | "mib" => "MiB",
                "g" | "gb" | "gib" => "GiB",
                _ => return Err(wrong),
            };
            return Err(wrong.help(format!("did you mean `{number}{binary}`?")));
        }
        _ => return Err(Wrong::default()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| Wrong::because("is out of range"))?;
    number
        .checked_mul(unit_bytes)
        .ok_or_else(|| Wrong::because("is out of range"))
}

fn print_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, name) in units {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{name}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// A size, or `none` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeOrNone(pub Option<u64>);

impl Leaf for SizeOrNone {
    fn expected() -> String {
        "a size such as `64KiB`, or `none`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "none" => Ok(Self(None)),
            text => read_size(text).map(|bytes| Self(Some(bytes))),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(self.0.map_or_else(|| "none".to_owned(), print_size))
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "string", "enum": ["none"] },
            { "type": "string", "pattern": SIZE_PATTERN },
        ] })
    }
}
leaf!([] SizeOrNone);

/// An address and port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind(pub SocketAddr);

impl Leaf for Bind {
    fn expected() -> String {
        "an address with a port, such as `0.0.0.0:80` or `[::]:80`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(Wrong::because("lacks a port"));
        }
        if let Some(port) = text
            .strip_prefix(':')
            .or_else(|| text.strip_prefix("*:"))
            .or(Some(text))
            && port.parse::<u16>().is_ok()
        {
            return Err(Wrong::because("lacks an address").help(format!(
                "for all addresses write `[\"0.0.0.0:{port}\", \"[::]:{port}\"]`"
            )));
        }
        Err(Wrong::default())
    }

    fn write(&self) -> Out {
        Out::Text(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": ":[0-9]+$" })
    }
}
leaf!([] Bind);

/// An IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(pub IpAddr);

impl Leaf for Ip {
    fn expected() -> String {
        "an IP address, such as `192.0.2.10` or `2001:db8::10`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        text.parse().map(Self).map_err(|_| {
            if text.parse::<SocketAddr>().is_ok() {
                Wrong::because("has a port")
            } else {
                Wrong::default()
            }
        })
    }

    fn write(&self) -> Out {
        Out::Text(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F:.]+$" })
    }
}
leaf!([] Ip);

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net(pub IpNet);

impl Leaf for Net {
    fn expected() -> String {
        "a network, such as `192.0.2.0/24` or `2001:db8::/48`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let net: IpNet = text.parse().map_err(|_| {
            if let Ok(address) = text.parse::<IpAddr>() {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                Wrong::because("lacks a prefix length")
                    .help(format!("did you mean `{address}/{bits}`?"))
            } else {
                Wrong::default()
            }
        })?;
        if net.trunc() != net {
            return Err(Wrong::because("has bits set behind its prefix")
                .help(format!("did you mean `{}`?", net.trunc())));
        }
        Ok(Self(net))
    }

    fn write(&self) -> Out {
        Out::Text(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F:.]+/[0-9]+$" })
    }
}
leaf!([] Net);

/// Where an endpoint is reached: an IP address or a host name, with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Address(SocketAddr),
    Host { host: String, port: u16 },
}

impl Leaf for Reach {
    fn expected() -> String {
        "`host:port` or `address:port`, such as `10.1.1.11:8080`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        if text.contains("://") {
            let rest = text.split_once("://").map_or("", |(_, rest)| rest);
            let rest = rest.split('/').next().unwrap_or(rest);
            return Err(Wrong::because("is a URL").help(format!(
                "write `{rest}`, with a port; TLS is asked for by `tls: {{}}`"
            )));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Self::usable(address.port()).map(|_| Self::Address(address));
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(Wrong::because("lacks a port"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return if host_name(text).is_some() {
                Err(Wrong::because("lacks a port"))
            } else {
                Err(Wrong::default())
            };
        };
        let port = port
            .parse::<u16>()
            .map_err(|_| Wrong::because("has no lawful port"))?;
        let port = Self::usable(port)?;
        match host_name(host) {
            Some(host) => Ok(Self::Host { host, port }),
            None => Err(Wrong::because("has no lawful host name")),
        }
    }

    fn write(&self) -> Out {
        Out::Text(match self {
            Self::Address(address) => address.to_string(),
            Self::Host { host, port } => format!("{host}:{port}"),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[^/]+:[0-9]+$" })
    }
}
leaf!([] Reach);

impl Reach {
    const fn is_lawful_port(port: u16) -> bool {
        port != 0
    }

    fn usable(port: u16) -> Result<u16, Wrong> {
        if Self::is_lawful_port(port) {
            Ok(port)
        } else {
            Err(Wrong::because("has the port 0"))
        }
    }
}

/// A host name in lower case, without a final dot: labels of letters, digits, hyphens and
/// underscores (RFC 1123 §2.1; underscores are common in private names). `None` when it is none.
#[must_use]
pub fn host_name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let lawful = (1..=253).contains(&text.len()) && text.split('.').all(label);
    // A name that ends in a number would be taken for an address (RFC 1123 §2.1).
    let last = text.rsplit('.').next().unwrap_or("");
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    (lawful && !numeric).then(|| text.to_ascii_lowercase())
}

/// A host name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(pub String);

impl Leaf for Host {
    fn expected() -> String {
        "a host name, such as `api.example.com`".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        host_name(text).map(Self).ok_or_else(Wrong::default)
    }

    fn write(&self) -> Out {
        Out::Text(self.0.clone())
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}
leaf!([] Host);

/// Lawful statuses: `200`, `200-299` or `2xx`; several separated by commas or as a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses(pub u16, pub u16);

impl Leaf for Statuses {
    fn expected() -> String {
        "HTTP statuses such as `200`, `200-299` or `2xx`; 100–599".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let number = |text: &str| match text.trim().parse::<u16>() {
            Ok(status) if (100..=599).contains(&status) => Ok(status),
            Ok(_) => Err(Wrong::because("is out of range")),
            Err(_) => Err(Wrong::default()),
        };
        if let [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] = text.as_bytes() {
            let first = u16::from(class - b'0') * 100;
            return Ok(Self(first, first + 99));
        }
        let (from, to) = match text.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(text)?, number(text)?),
        };
        if from > to {
            return Err(Wrong::because("ends before it begins"));
        }
        Ok(Self(from, to))
    }

    fn write(&self) -> Out {
        match self {
            Self(from, to) if from == to => Out::Plain(from.to_string()),
            Self(from, to) => Out::Text(format!("{from}-{to}")),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5]([0-9][0-9](-[1-5][0-9][0-9])?|xx|XX)$" },
        ] })
    }
}
leaf!([] Statuses);

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectStatus(pub u16);

impl RedirectStatus {
    const LAWFUL: [u16; 5] = [301, 302, 303, 307, 308];
}

impl Leaf for RedirectStatus {
    const NUMERIC: bool = true;

    fn expected() -> String {
        "301, 302, 303, 307 or 308".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let status = text.parse::<u16>().map_err(|_| Wrong::default())?;
        if Self::LAWFUL.contains(&status) {
            Ok(Self(status))
        } else {
            Err(Wrong::because("is no status of a redirect"))
        }
    }

    fn write(&self) -> Out {
        Out::Plain(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "integer", "enum": Self::LAWFUL })
    }
}
leaf!([] RedirectStatus);

/// A degree of latitude or longitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Degrees(pub f32);

impl Leaf for Degrees {
    const NUMERIC: bool = true;

    fn expected() -> String {
        "degrees: latitude −90–90, longitude −180–180".to_owned()
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        match text.parse::<f32>() {
            Ok(value) if numeric && value.is_finite() => Ok(Self(value)),
            _ => Err(Wrong::default()),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(self.0.to_string())
    }

    fn schema() -> Value {
        json!({ "type": "number", "minimum": -180, "maximum": 180 })
    }
}
leaf!([] Degrees);
