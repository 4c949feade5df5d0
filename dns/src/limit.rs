//! How many answers a network may be sent over UDP: a flood of questions with a forged source makes a weapon of
//! whoever answers them all (response rate limiting).
//!
//! Answers are counted by the network that they go to and by what they say: the same name, "no such name", a
//! referral, an error. What is above the rate is dropped, but for every `slip`-th, which becomes a short one: who
//! really asks comes back over TCP, or with a cookie. Pure: time is handed in; one thread's own; never grows.

use std::net::IpAddr;

use ipnet::IpNet;

/// What is counted at once, by one thread (1 MiB). A network that comes beside them takes the place of the one
/// that used its share least.
const PLACES: usize = 1 << 16;
/// Places that one network and kind of answer may have: they share a line of the cache.
const WAYS: usize = 4;
/// Whoever sends from one address of a network can send from all of it.
const PREFIX_V4: u32 = 24;
const PREFIX_V6: u32 = 56;

/// What the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Answers of one kind that a network gets in a second, at least 1.
    pub per_second: u32,
    /// So many are saved up while it asks less.
    pub burst: u32,
    /// Every so many answers above that one is sent short; 0: none.
    pub slip: u32,
    /// Networks that are never limited.
    pub exempt: Vec<IpNet>,
}

/// What an answer says, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Something of this name, be it that there is nothing of the type. A hash of it: one name for all that
    /// a wildcard stands for.
    Name(u64),
    NoName,
    Referral,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Send,
    /// Send a short answer instead.
    Slip,
    Drop,
}

/// One network's share of one kind of answer: when it would be used up, had the answers come evenly (the generic
/// cell rate algorithm, ITU-T I.371), in nanoseconds of the caller's clock.
#[derive(Clone, Copy, Default)]
struct Place {
    due: u64,
    tag: u32,
    /// Answers that were above the rate.
    over: u32,
}

/// What one thread has sent.
pub struct Limiter {
    places: Box<[[Place; WAYS]]>,
    /// So that nobody knows who shares a place with whom.
    seed: u64,
    rhythm: Rhythm,
}

/// Rates in nanoseconds: the highest that can be asked for, ten million a second, is a hundred of them.
#[derive(Clone, Copy)]
struct Rhythm {
    /// Of one answer.
    cost: u64,
    /// That may be used up at once.
    room: u64,
}

impl Rhythm {
    fn of(rates: &Rates) -> Self {
        let cost = 1_000_000_000 / u64::from(rates.per_second.max(1));
        let room = cost * u64::from(rates.burst.max(1));
        Self { cost, room }
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl Limiter {
    #[must_use]
    pub fn new(seed: u64, rates: &Rates) -> Self {
        Self {
            places: vec![[Place::default(); WAYS]; PLACES / WAYS].into(),
            seed,
            rhythm: Rhythm::of(rates),
        }
    }

    /// From now on these hold.
    pub fn follow(&mut self, rates: &Rates) {
        self.rhythm = Rhythm::of(rates);
    }

    /// Counts one answer to `to` at `now`, in microseconds.
    pub fn judge(&mut self, rates: &Rates, now: u64, to: IpAddr, said: Said) -> Verdict {
        let key = self.key(to, said);
        let Rhythm { cost, room } = self.rhythm;
        let now = now.saturating_mul(1_000);
        let place = self.place(key);
        let due = place.due.max(now);
        if due + cost <= now + room {
            place.due = due + cost;
            return Verdict::Send;
        }
        if rates.exempt.iter().any(|net| net.contains(&to)) {
            return Verdict::Send;
        }
        place.over = place.over.wrapping_add(1);
        if rates.slip > 0 && place.over.is_multiple_of(rates.slip) {
            Verdict::Slip
        } else {
            Verdict::Drop
        }
    }

    fn key(&self, to: IpAddr, said: Said) -> u64 {
        let network = match to {
            IpAddr::V4(v4) => u64::from(v4.to_bits() >> (32 - PREFIX_V4)),
            IpAddr::V6(v6) => (v6.to_bits() >> (128 - PREFIX_V6)) as u64 | 1 << 63,
        };
        let (kind, name) = match said {
            Said::Name(name) => (0, name),
            Said::NoName => (1 << 62, 0),
            Said::Referral => (2 << 62, 0),
            Said::Error => (3 << 62, 0),
        };
        // The product of two numbers that strangers can't know, folded (as wyhash and xxh3 mix).
        let mixed = u128::from(network ^ kind ^ self.seed)
            * u128::from(name ^ self.seed.rotate_left(32) | 1);
        (mixed >> 64) as u64 ^ mixed as u64
    }

    fn place(&mut self, key: u64) -> &mut Place {
        let tag = (key >> 32) as u32 | 1;
        let last = self.places.len() as u64 - 1;
        let ways = &mut self.places[(key & last) as usize];
        let mine = ways.iter().position(|place| place.tag == tag);
        let at = mine.unwrap_or_else(|| {
            let by_use = |at: &usize| ways[*at].due;
            let least = (0..WAYS).min_by_key(by_use).unwrap_or(0);
            ways[least] = Place {
                tag,
                ..Place::default()
            };
            least
        });
        &mut ways[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const SEED: u64 = 0x5b1d_9f3c_2e47_a86d;

    fn rates() -> Rates {
        Rates {
            per_second: 100,
            burst: 100,
            slip: 2,
            exempt: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// (sent, short, dropped) of so many in this second.
    fn flood(limiter: &mut Limiter, begin: u64, to: IpAddr, said: Said, count: u64) -> [u64; 3] {
        let mut seen = [0; 3];
        for number in 0..count {
            let now = begin + number * SECOND / count;
            match limiter.judge(&rates(), now, to, said) {
                Verdict::Send => seen[0] += 1,
                Verdict::Slip => seen[1] += 1,
                Verdict::Drop => seen[2] += 1,
            }
        }
        seen
    }

    #[test]
    fn what_is_above_the_rate_is_dropped_and_every_second_is_short() {
        let mut limiter = Limiter::new(SEED, &rates());
        let name = Said::Name(7);

        let first = flood(&mut limiter, 0, ip("192.0.2.1"), name, 1_000);
        let second = flood(&mut limiter, SECOND, ip("192.0.2.1"), name, 1_000);

        assert!(
            (199..=201).contains(&first[0]),
            "what was saved up, and the rate: {first:?}"
        );
        assert!((99..=101).contains(&second[0]), "the rate: {second:?}");
        assert_eq!(second.iter().sum::<u64>(), 1_000);
        assert!(second[1].abs_diff(second[2]) <= 1, "{second:?}");
    }

    #[test]
    fn a_rate_of_more_than_one_answer_a_microsecond_is_a_rate_too() {
        let rates = Rates {
            per_second: 1_500_000,
            burst: 1,
            ..rates()
        };
        let mut limiter = Limiter::new(SEED, &rates);
        let mut one =
            |number: u64| limiter.judge(&rates, number / 3, ip("192.0.2.1"), Said::NoName);
        let sent = (0..300_000).filter(|number| one(*number) == Verdict::Send);

        // Three questions a microsecond for a tenth of a second.
        assert!((100_000..=151_000).contains(&sent.count()));
    }

    #[test]
    fn who_asks_no_more_than_the_rate_is_never_limited() {
        let mut limiter = Limiter::new(SEED, &rates());
        for second in 0..10 {
            let seen = flood(
                &mut limiter,
                second * SECOND,
                ip("192.0.2.1"),
                Said::NoName,
                100,
            );
            assert_eq!(seen, [100, 0, 0]);
        }
    }

    #[test]
    fn a_network_is_limited_as_one_and_others_are_not() {
        let mut limiter = Limiter::new(SEED, &rates());
        let name = Said::Name(1);
        flood(&mut limiter, 0, ip("192.0.2.1"), name, 10_000);
        flood(&mut limiter, 0, ip("2001:db8:0:ff01::1"), name, 10_000);
        let one = |limiter: &mut Limiter, to: &str, said| {
            limiter.judge(&rates(), SECOND - 1, ip(to), said)
        };

        assert_ne!(one(&mut limiter, "192.0.2.200", name), Verdict::Send);
        assert_eq!(one(&mut limiter, "192.0.3.1", name), Verdict::Send);
        assert_ne!(one(&mut limiter, "2001:db8:0:ff7f::2", name), Verdict::Send);
        assert_eq!(one(&mut limiter, "2001:db8:0:fe00::2", name), Verdict::Send);
        for other in [Said::Name(2), Said::NoName, Said::Referral, Said::Error] {
            assert_eq!(
                one(&mut limiter, "192.0.2.1", other),
                Verdict::Send,
                "{other:?}"
            );
        }
    }

    #[test]
    fn exempt_networks_get_every_answer() {
        let mut limiter = Limiter::new(SEED, &rates());
        for to in ["10.255.0.1", "::1"] {
            let seen = flood(&mut limiter, 0, ip(to), Said::Error, 10_000);
            assert_eq!(seen, [10_000, 0, 0]);
        }
    }

    #[test]
    fn a_flood_from_everywhere_neither_grows_the_table_nor_frees_the_one_that_is_limited() {
        let mut limiter = Limiter::new(!SEED, &rates());
        let name = Said::Name(1);
        flood(&mut limiter, 0, ip("192.0.2.1"), name, 10_000);
        for number in 0..100_000_u32 {
            let from = IpAddr::V4((number << 8).into());
            limiter.judge(&rates(), SECOND - 1, from, name);
        }
        let verdict = limiter.judge(&rates(), SECOND - 1, ip("192.0.2.1"), name);
        assert_ne!(verdict, Verdict::Send, "its place is the last to be taken");
    }
}
