//! The keys of what is bounded: places, tenants, rates. A part of the file's specification.

use serde_json::{Map, Value, json};

use super::decode::{Decoder, Leaf, Out, Shape, Wrong, choice, leaf, shape};
use super::unit::{Period, Share, Text, Whole};
use super::yaml::{Kind, Node};

/// Places for requests, or how many of them wait.
pub type Places = Whole<1, 1_000_000>;
/// How long a request waits for a place.
pub type Wait = Period<1, 60_000>;

/// How many requests may be at a pool's endpoints in one region at once.
#[derive(Clone, Debug, PartialEq)]
pub enum ConcurrencySpec {
    Off,
    Adaptive,
    Max(ConcurrencyMaxSpec),
}

shape! {
    /// So many requests at a pool's endpoints in one region, and no more.
    ConcurrencyMaxSpec {
        /// At once, over all workers.
        max: Places = required,
    }
    later ["min", "initial"]
}

impl Shape for ConcurrencySpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        word_or_map(
            node,
            decoder,
            "`off`, `adaptive` or `{max: N}`",
            |word| match word {
                "off" => Some(Self::Off),
                "adaptive" => Some(Self::Adaptive),
                _ => None,
            },
            &["off", "adaptive"],
            Self::Max,
        )
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let max = ConcurrencyMaxSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["off", "adaptive"] }, max] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::Off => Out::Plain("off".to_owned()),
            Self::Adaptive => Out::Plain("adaptive".to_owned()),
            Self::Max(max) => max.emit(),
        }
    }

    fn fill(&mut self) {
        if let Self::Max(max) = self {
            max.fill();
        }
    }
}

/// A word out of some, or a map.
fn word_or_map<T, M: Shape>(
    node: &Node,
    decoder: &mut Decoder<'_>,
    expected: &str,
    word: impl Fn(&str) -> Option<T>,
    words: &'static [&'static str],
    map: impl Fn(M) -> T,
) -> Option<T> {
    if let Kind::Map(_) = &node.kind {
        return M::decode(node, decoder).map(map);
    }
    let mut mistake = decoder.wrong_type(node, expected);
    if let Kind::Scalar(scalar) = &node.kind {
        if let Some(value) = word(&scalar.text) {
            return Some(value);
        }
        mistake = mistake.nearest(super::decode::nearest(&scalar.text, words.iter().copied()));
    }
    decoder.notes.mistake(mistake);
    None
}

shape! {
    /// What a pool can be asked for at once, in all regions together.
    PoolBulkheadSpec {
        /// Requests under way.
        requests: Places = required,
        /// So many more wait for a place.
        queue: Whole<0, 10_000> = "0",
        /// A place is waited for this long; a twentieth of it where the queue does not empty for as long.
        wait: Wait = "100ms",
    }
    later ["connections"]
}

shape! {
    /// What a route can be asked for at once.
    RouteBulkheadSpec {
        /// Requests under way.
        requests: Places,
        /// So many more wait for a place.
        queue: Whole<0, 10_000> = "0",
        /// A place is waited for this long; a twentieth of it where the queue does not empty for as long.
        wait: Wait = "100ms",
        /// Requests under way of one tenant. Needs `tenant`.
        per_tenant: Places,
    }
}

/// Where a request says on whose behalf it comes.
#[derive(Clone, Debug, PartialEq)]
pub enum TenantSpec {
    Host,
    Header(HeaderNameSpec),
}

shape! {
    /// A header field, by its name.
    HeaderNameSpec {
        /// Its name.
        header: Text = required,
    }
    later ["cookie", "query"]
}

impl Shape for TenantSpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        let word = |word: &str| (word == "host").then_some(Self::Host);
        let expected = "`host` or `{header: NAME}`";
        word_or_map(node, decoder, expected, word, &["host"], Self::Header)
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let header = HeaderNameSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["host"] }, header] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::Host => Out::Plain("host".to_owned()),
            Self::Header(header) => header.emit(),
        }
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq)]
pub enum RateKeySpec {
    Word(RateKeyWord),
    Header(HeaderNameSpec),
}

choice! {
    /// Whose requests are counted together.
    RateKeyWord {
        /// One client's: an IPv4 address, an IPv6 /64.
        Client = "client",
        /// All of the route's.
        Route = "route",
        /// The route's `tenant`.
        Tenant = "tenant",
    }
    later ["user", "token"]
}

impl Shape for RateKeySpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        let word = |word: &str| RateKeyWord::read(word).ok().map(Self::Word);
        let expected = "`client`, `route`, `tenant` or `{header: NAME}`";
        word_or_map(
            node,
            decoder,
            expected,
            word,
            RateKeyWord::WORDS,
            Self::Header,
        )
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let header = HeaderNameSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": RateKeyWord::WORDS }, header] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::Word(word) => word.write(),
            Self::Header(header) => header.emit(),
        }
    }
}

shape! {
    /// How often requests may come; more are refused with 429.
    RateLimitSpec {
        /// How clients, metrics and logs call it. `limit-1` and so on when left out.
        name: Text,
        /// Whose requests are counted together: `client` (an IPv4 address, an IPv6 /64), `route`, `tenant` or `{header: NAME}`.
        key: RateKeySpec = "client",
        /// So many in a second, minute, hour or day.
        rate: Frequency = required,
        /// So many may come at once after a pause. As many as the rate has in a second, and at least one, when left out.
        burst: Whole<1, 1_000_000>,
        /// Keys that are remembered; 8 bytes each. Beyond it those nearest to a full allowance are forgotten.
        keys: Whole<1, 16_777_216> = "65536",
        /// Gives way while the route is slow or refuses for want of places.
        adaptive: AdaptiveRateSpec,
    }
    later ["quota", "cost", "global"]
}

shape! {
    /// A rate that gives way: 5 points more each second while all is well, 30 % less when it is not.
    AdaptiveRateSpec {
        /// 99 % of answers should begin within this.
        latency: Period<1, 3_600_000> = required,
        /// What is left of the rate whatever happens.
        floor: Share = "10%",
    }
    later ["errors"]
}

/// So many in so long: `100/s`, `60/m`, `1000/h`, `10000/d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    pub count: u32,
    pub unit: FrequencyUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrequencyUnit {
    Second,
    Minute,
    Hour,
    Day,
}

impl FrequencyUnit {
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    const fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }
}

impl Frequency {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a day has fewer seconds than 2^52"
    )]
    pub fn per_second(self) -> f64 {
        f64::from(self.count) / self.unit.seconds() as f64
    }
}

/// The highest rate that is told apart from none.
const COUNT_MAX: u32 = 1_000_000;

impl Leaf for Frequency {
    fn expected() -> String {
        format!("a rate such as `100/s`, `60/m`, `1000/h`, `10000/d`; 1–{COUNT_MAX}")
    }

    fn read(text: &str) -> Result<Self, Wrong> {
        let Some((count, unit)) = text.split_once('/') else {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_number {
                return Err(Wrong::because("lacks a unit").help(format!("write `{text}/s`")));
            }
            return Err(Wrong::default());
        };
        let unit = match unit {
            "s" => FrequencyUnit::Second,
            "m" => FrequencyUnit::Minute,
            "h" => FrequencyUnit::Hour,
            "d" => FrequencyUnit::Day,
            _ => return Err(Wrong::default()),
        };
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Wrong::default());
        }
        match count.parse() {
            Ok(count) if (1..=COUNT_MAX).contains(&count) => Ok(Self { count, unit }),
            _ => Err(Wrong::because("is out of range")),
        }
    }

    fn write(&self) -> Out {
        Out::Plain(format!("{}/{}", self.count, self.unit.letter()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+/[smhd]$" })
    }
}
leaf!([] Frequency);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_over_a_unit() {
        let read = |text: &str| Frequency::read(text).ok();
        let hundred = Frequency {
            count: 100,
            unit: FrequencyUnit::Second,
        };
        assert_eq!(read("100/s"), Some(hundred));
        assert_eq!(hundred.write(), Out::Plain("100/s".to_owned()));
        assert_eq!(read("1/d").map(|rate| rate.unit.seconds()), Some(86_400));
        for wrong in [
            "100",
            "100/",
            "/s",
            "0/s",
            "1.5/s",
            "-1/s",
            "1/w",
            "1000001/s",
            "+1/s",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        let help = Frequency::read("100").unwrap_err().help;
        assert_eq!(help.as_deref(), Some("write `100/s`"));
    }
}
