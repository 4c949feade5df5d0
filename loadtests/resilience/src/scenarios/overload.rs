//! More is asked for than can be done: who is served, and how fast.

use anyhow::Result;

use super::{TRIALS, ms, of_class, percents, success, tail};
use crate::endpoint::{Behaviour, Mode};
use crate::load::Ask;
use crate::report::Row;
use crate::sealane::Configuration;
use crate::stage::{Act, Played, Stage};

/// In a second: 4 endpoints with 25 places each, 100 ms.
const CAPACITY: u32 = 1_000;
const ENDPOINTS: usize = 4;
const PLACES: usize = 25;
const WORKS: Behaviour = Behaviour::works(100);
const TIERS: [&str; 4] = ["/one", "/two", "/three", "/four"];
const ADAPTIVE: &str = "concurrency: adaptive";

fn configuration(endpoints: &[crate::endpoint::Endpoint], pool: &str) -> Configuration {
    // That half of them are gone is no reason to give up the only region; and all of this is one client.
    let keys = format!("{pool}\nfailover: {{ threshold: 100% }}");
    let mut configuration = Configuration::default()
        .pool("main", endpoints, keys.trim())
        .key("limits: { connections_per_client: 16384 }");
    for (number, path) in TIERS.iter().enumerate() {
        let tier = number + 1;
        let tier = if pool.is_empty() {
            String::new()
        } else {
            format!(", tier: {tier}")
        };
        let route = format!("match: {{ path_prefix: {path} }}, pool: main{tier}");
        configuration = configuration.route(&route);
    }
    configuration
}

/// A quarter of each tier.
fn of_all_tiers(number: u64) -> Ask {
    let tier = (number % 4) as usize;
    Ask::path(TIERS[tier]).class(tier)
}

/// With: adaptive concurrency, and tiers.
pub(super) async fn half_capacity(stage: &Stage<'_>) -> Result<Played> {
    const GONE_AT: f64 = 6.0;
    /// What a limit has to converge in.
    const SETTLED_AT: f64 = 11.0;
    const END: f64 = 18.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, pool) in [(TRIALS[0], ""), (TRIALS[1], ADAPTIVE)] {
        let endpoints = stage.endpoints("a", ENDPOINTS, WORKS, Some(PLACES)).await?;
        let sealane = stage.sealane(&configuration(&endpoints, pool)).await?;
        let die = || {
            for endpoint in &endpoints[..ENDPOINTS / 2] {
                endpoint.behave(WORKS.mode(Mode::Down));
            }
        };
        let acts = vec![Act::after(GONE_AT as u64, "half die", die)];
        let load = [(CAPACITY * 3 / 4, END as u32)];
        let trial = stage.trial(&sealane, &load, of_all_tiers, acts).await;
        let before = trial.between(2.0..GONE_AT);
        let whole = trial.between(GONE_AT..END);
        let after = trial.between(SETTLED_AT..END);
        let ratio = |percent: f64| tail(&after, percent) / tail(&before, percent);
        measured.push((
            [tail(&before, 50.0), tail(&before, 99.0)],
            [ratio(50.0), ratio(99.0)],
            [0, 1, 2, 3].map(|tier| success(&of_class(&whole, tier))),
        ));
        played.curves.push(trial.curve(name));
    }
    let (without, with) = (&measured[0], &measured[1]);
    let times = |of: f64| match of {
        0.0 => "nobody served".to_owned(),
        _ => format!("{of:.2} ×"),
    };
    played.rows = vec![
        Row::told("p50 before", ms(without.0[0]), ms(with.0[0])),
        Row::told("p99 before", ms(without.0[1]), ms(with.0[1])),
        Row::told("p50 from 5 s after", times(without.1[0]), times(with.1[0]))
            .held_to("≤ 1.2 ×", with.1[0] <= 1.2),
        Row::told("p99 from 5 s after", times(without.1[1]), times(with.1[1]))
            .held_to("≤ 1.2 ×", with.1[1] <= 1.2),
        Row::told(
            "tier 1 served, from the outage on",
            percents(without.2[0]),
            percents(with.2[0]),
        )
        .held_to("≥ 99.9 %", with.2[0] >= 99.9),
        Row::told("tier 2 served", percents(without.2[1]), percents(with.2[1])),
        Row::told("tier 3 served", percents(without.2[2]), percents(with.2[2])),
        Row::told("tier 4 served", percents(without.2[3]), percents(with.2[3])),
    ];
    Ok(played)
}

/// With: adaptive concurrency, and tiers.
pub(super) async fn twice(stage: &Stage<'_>) -> Result<Played> {
    const TWICE_AT: f64 = 4.0;
    /// What a limit has to converge in.
    const CONVERGED_AT: f64 = 9.0;
    const END: f64 = 15.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, pool) in [(TRIALS[0], ""), (TRIALS[1], ADAPTIVE)] {
        let endpoints = stage.endpoints("a", ENDPOINTS, WORKS, Some(PLACES)).await?;
        let sealane = stage.sealane(&configuration(&endpoints, pool)).await?;
        let phases = [
            (CAPACITY * 3 / 4, TWICE_AT as u32),
            (CAPACITY * 2, (END - TWICE_AT) as u32),
        ];
        let twice = Act::after(TWICE_AT as u64, "twice the capacity", || {});
        let trial = stage
            .trial(&sealane, &phases, of_all_tiers, vec![twice])
            .await;
        let all = trial.between(TWICE_AT..END);
        let records = trial.between(CONVERGED_AT..END);
        let served = [0, 1, 2, 3].map(|tier| success(&of_class(&records, tier)));
        let first = success(&of_class(&all, 0));
        let p99 = tail(&of_class(&records, 0), 99.0);
        let goodput = super::good(&records).len() as f64 / (END - CONVERGED_AT);
        played.curves.push(trial.curve(name));

        // Three times as much: memory once that is under way, and some seconds later.
        let thrice = [(CAPACITY * 3, 4)];
        stage.trial(&sealane, &thrice, of_all_tiers, vec![]).await;
        let early = sealane.memory()?;
        stage.trial(&sealane, &thrice, of_all_tiers, vec![]).await;
        let grown = sealane.memory()? as f64 / early as f64;
        measured.push((served, first, p99, goodput, early, 100.0 * (grown - 1.0)));
    }
    played.rows = rows_of_twice(&measured[0], &measured[1]);
    Ok(played)
}

/// Served by tier, tier 1 from the beginning on, tier 1's p99, served in a second, memory, its growth.
type Twice = ([f64; 4], f64, f64, f64, u64, f64);

fn rows_of_twice(without: &Twice, with: &Twice) -> Vec<Row> {
    let in_order = with.0.windows(2).all(|two| two[0] >= two[1] - 1.0);
    let a_second = |rate: f64| format!("{rate:.0}/s");
    let memory = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let tier = |tier: usize| {
        let what = format!("tier {} served, from 5 s after", tier + 1);
        Row::told(&what, percents(without.0[tier]), percents(with.0[tier]))
    };
    vec![
        Row::told(
            "tier 1 served, at once",
            percents(without.1),
            percents(with.1),
        )
        .held_to("≥ 99.9 %", with.1 >= 99.9),
        tier(0).held_to("≥ 99.9 %", with.0[0] >= 99.9),
        tier(1),
        tier(2),
        tier(3).held_to("the least", in_order && with.0[3] < with.0[0]),
        Row::told("tier 1's p99", ms(without.2), ms(with.2)),
        Row::told("served in all", a_second(without.3), a_second(with.3)),
        Row::told("memory at three times", memory(without.4), memory(with.4)),
        Row::told(
            "its growth in 4 s more",
            percents(without.5),
            percents(with.5),
        )
        .held_to("flat: ≤ 5 %", with.5 <= 5.0),
    ]
}
