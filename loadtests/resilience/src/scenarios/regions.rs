//! One region of three dies, or is suddenly far away.

use anyhow::Result;

use super::{TRIALS, ms, tail};
use crate::endpoint::{Behaviour, Endpoint, Mode};
use crate::load::Ask;
use crate::numbers::percent;
use crate::report::Row;
use crate::sealane::{Configuration, HOME};
use crate::stage::{Act, Played, Stage, Trial};

const REGIONS: [&str; 3] = [HOME, "eu-central-1", "ap-southeast-1"];

async fn regions(stage: &Stage<'_>, behaviours: [Behaviour; 3]) -> Result<[Vec<Endpoint>; 3]> {
    let start = |at: usize| stage.endpoints(["us", "eu", "ap"][at], 2, behaviours[at], None);
    Ok([start(0).await?, start(1).await?, start(2).await?])
}

/// Most requests that a region got within any second.
fn peak(endpoints: &[Endpoint], trial: &Trial, seconds: std::ops::Range<f64>) -> usize {
    let steps = ((seconds.end - seconds.start - 1.0) * 10.0) as usize;
    let begins = (0..=steps).map(|step| seconds.start + step as f64 / 10.0);
    let counts = begins.map(|begin| trial.reached(endpoints, begin..begin + 1.0));
    counts.max().unwrap_or(0)
}

/// With: retries elsewhere, ejection, and a capacity for each region.
pub(super) async fn down(stage: &Stage<'_>) -> Result<Played> {
    const RATE: u32 = 300;
    const DOWN_AT: f64 = 5.0;
    const END: f64 = 12.0;
    /// Of the region with little room. A third of the load is 100, half of it 150.
    const ROOM: usize = 120;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, room, pool, route) in [
        (
            TRIALS[0],
            String::new(),
            "ejection: off\n",
            ", retry: { attempts: 1 }",
        ),
        (TRIALS[1], format!("capacity: {ROOM}/s, "), "", ""),
    ] {
        let works = Behaviour::works(20);
        let [us, eu, ap] = regions(stage, [works; 3]).await?;
        let pool = format!("{pool}steering: {{ policy: weighted }}");
        let configuration = Configuration::default()
            .pool_of_regions(
                "main",
                &[
                    (REGIONS[0], "", &us),
                    (REGIONS[1], &room, &eu),
                    (REGIONS[2], "", &ap),
                ],
                &pool,
            )
            .route(&format!("pool: main{route}"));
        let sealane = stage.sealane(&configuration).await?;
        let die = || {
            for endpoint in &us {
                endpoint.behave(works.mode(Mode::Down));
            }
        };
        let acts = vec![Act::after(DOWN_AT as u64, "one region dies", die)];
        let trial = stage
            .trial(&sealane, &[(RATE, END as u32)], |_| Ask::path("/"), acts)
            .await;
        let survivors = |records: Vec<&crate::load::Record>| {
            let of = records.iter().filter(|record| !record.by.starts_with("us"));
            tail(&of.copied().collect::<Vec<_>>(), 99.0)
        };
        let whole = trial.between(DOWN_AT..END);
        let failed = whole.iter().filter(|record| !record.is_good()).count();
        measured.push((
            failed,
            survivors(trial.between(2.0..DOWN_AT)),
            survivors(whole),
            peak(&eu, &trial, DOWN_AT..END),
            peak(&ap, &trial, DOWN_AT..END),
        ));
        played.curves.push(trial.curve(name));
    }
    let [without, with] = [measured[0], measured[1]];
    // What a busy machine does to a timer of 1 ms.
    let noise = (with.1 * 0.1).max(2.0);
    let a_second = |count: usize| format!("{count}/s");
    played.rows = vec![
        Row::told("failed GETs", without.0.to_string(), with.0.to_string())
            .held_to("0", with.0 == 0),
        Row::told("survivors' p99 before", ms(without.1), ms(with.1)),
        Row::told("survivors' p99 after", ms(without.2), ms(with.2)).held_to(
            format!("within noise: ≤ {}", ms(with.1 + noise)),
            with.2 <= with.1 + noise,
        ),
        Row::told(
            "most in a second at the one with room for 120/s",
            a_second(without.3),
            a_second(with.3),
        )
        .held_to("≤ 120/s", with.3 <= ROOM),
        Row::told(
            "most in a second at the other",
            a_second(without.4),
            a_second(with.4),
        ),
    ];
    Ok(played)
}

/// Without: by weight. With: by weight and latency.
pub(super) async fn slow(stage: &Stage<'_>) -> Result<Played> {
    /// Each request is drawn by itself: of the 7,500 in five seconds a share of 43 % is right to 0.6 points (one standard
    /// deviation), of 1,500 to 1.3, which would miss two points one time in eight.
    const RATE: u32 = 1_500;
    const SLOW_AT: f64 = 8.0;
    /// Shares are damped: clients change over to new figures within 100 s.
    const DAMPED: f64 = 110.0;
    /// Distances in ms; all within the band of the nearest.
    const FAR: [u64; 3] = [40, 46, 52];
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, policy, settled_at) in [
        (TRIALS[0], "weighted", SLOW_AT + 2.0),
        (TRIALS[1], "weighted_latency", SLOW_AT + DAMPED),
    ] {
        let end = settled_at + 12.0;
        let at = |millis: u64| Behaviour::works(1).always().distant(millis);
        let [us, eu, ap] = regions(stage, FAR.map(at)).await?;
        let configuration = Configuration::default()
            .pool_of_regions(
                "main",
                &[
                    (REGIONS[0], "", &us),
                    (REGIONS[1], "", &eu),
                    (REGIONS[2], "", &ap),
                ],
                &format!("steering: {{ policy: {policy} }}"),
            )
            .route("pool: main");
        let sealane = stage.sealane(&configuration).await?;
        let recede = || {
            for endpoint in &us {
                endpoint.behave(at(FAR[0] + 200));
            }
        };
        let acts = vec![Act::after(SLOW_AT as u64, "+200 ms", recede)];
        let trial = stage
            .trial(&sealane, &[(RATE, end as u32)], |_| Ask::path("/"), acts)
            .await;
        let shares = |from: f64, to: f64| {
            let all = [&us, &eu, &ap].map(|region| trial.reached(region, from..to));
            all.map(|one| percent(one, all.iter().sum()))
        };
        measured.push((shares(3.0, SLOW_AT), shares(settled_at, end)));
        played.curves.push(trial.curve(name));
    }
    let formula = [
        shares_by_formula(FAR.map(|millis| millis as f64)),
        shares_by_formula([FAR[0] + 200, FAR[1], FAR[2]].map(|millis| millis as f64)),
    ];
    let three = |of: [f64; 3]| of.map(|share| format!("{share:.1}")).join(" / ") + " %";
    let near = |of: [f64; 3], to: [f64; 3]| (0..3).all(|at| (of[at] - to[at]).abs() <= 2.0);
    let (without, with) = (measured[0], measured[1]);
    played.rows = vec![
        Row::told("shares before", three(without.0), three(with.0)).held_to(
            format!("formula: {} ± 2", three(formula[0])),
            near(with.0, formula[0]),
        ),
        Row::told("shares two minutes after", three(without.1), three(with.1)).held_to(
            format!("formula: {} ± 2", three(formula[1])),
            near(with.1, formula[1]),
        ),
    ];
    Ok(played)
}

/// That of ARCHITECTURE.md, "How a client's region is chosen", for regions of equal weight and health.
fn shares_by_formula(latency: [f64; 3]) -> [f64; 3] {
    let best = latency.iter().copied().fold(f64::MAX, f64::min);
    let limit = (1.25 * best).max(best + 20.0);
    let parts = latency.map(|of| {
        if of <= limit {
            of.max(5.0).powi(-2)
        } else {
            0.0
        }
    });
    let sum: f64 = parts.iter().sum();
    parts.map(|part| 100.0 * part / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_leaves_out_what_is_beyond_the_band() {
        let near = shares_by_formula([40.0, 46.0, 52.0]);
        let far = shares_by_formula([240.0, 46.0, 52.0]);

        assert!(near[0] > near[1] && near[1] > near[2]);
        assert_eq!(far[0], 0.0);
        assert!((far[1] - 56.1).abs() < 0.1, "{far:?}");
    }
}
