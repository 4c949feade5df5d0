//! One endpoint among ten is slow, or wrong; or each of them now and then.

use anyhow::Result;

use super::{TRIALS, ms, percents, success, tail};
use crate::endpoint::{Behaviour, Mode};
use crate::load::Ask;
use crate::numbers::percent;
use crate::report::Row;
use crate::sealane::Configuration;
use crate::stage::{Act, Played, Stage};

const PLAIN: &str = "balance: round_robin\nejection: off";
/// Seconds in which latencies become known.
const WARM_UP: f64 = 4.0;
const END: f64 = 10.0;

/// Without: in turn, nobody left out. With: what is the default, and hedges.
pub(super) async fn slow(stage: &Stage<'_>) -> Result<Played> {
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, pool, route) in [
        (TRIALS[0], PLAIN, "pool: main"),
        (
            TRIALS[1],
            "",
            "pool: main, hedge: { after: p95, budget: 5% }",
        ),
    ] {
        let endpoints = stage.endpoints("a", 10, Behaviour::works(10), None).await?;
        endpoints[0].behave(Behaviour::works(200));
        let configuration = Configuration::default()
            .pool("main", &endpoints, pool)
            .route(route);
        let sealane = stage.sealane(&configuration).await?;
        let trial = stage
            .trial(&sealane, &[(400, END as u32)], |_| Ask::path("/"), vec![])
            .await;
        let records = trial.between(WARM_UP..END);
        let reached = trial.reached(&endpoints, WARM_UP..END);
        let slow = trial.reached(&endpoints[..1], WARM_UP..END);
        let extra = 100.0 * (reached as f64 / records.len() as f64 - 1.0);
        measured.push((
            tail(&records, 50.0),
            tail(&records, 99.0),
            percent(slow, reached),
            extra,
        ));
        played.curves.push(trial.curve(name));
    }
    let [without, with] = [measured[0], measured[1]];
    played.rows = vec![
        Row::told("p50", ms(without.0), ms(with.0)),
        Row::told("p99", ms(without.1), ms(with.1))
            .held_to("at most half", with.1 <= without.1 / 2.0),
        Row::told(
            "share of the slow one",
            percents(without.2),
            percents(with.2),
        ),
        Row::told(
            "extra load on endpoints",
            percents(without.3),
            percents(with.3),
        )
        .held_to("≤ 5 %", with.3 <= 5.0),
    ];
    Ok(played)
}

/// With: hedges after the route's own p95.
pub(super) async fn stragglers(stage: &Stage<'_>) -> Result<Played> {
    const END: f64 = 15.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, route) in [
        (TRIALS[0], "pool: main"),
        (TRIALS[1], "pool: main, hedge: { after: p95, budget: 5% }"),
    ] {
        let behaviour = Behaviour::works(20).straggling(0.01, 500);
        let endpoints = stage.endpoints("a", 10, behaviour, None).await?;
        let configuration = Configuration::default()
            .pool("main", &endpoints, "")
            .route(route);
        let sealane = stage.sealane(&configuration).await?;
        let trial = stage
            .trial(&sealane, &[(400, END as u32)], |_| Ask::path("/"), vec![])
            .await;
        let records = trial.between(WARM_UP..END);
        let reached = trial.reached(&endpoints, WARM_UP..END);
        let extra = 100.0 * (reached as f64 / records.len() as f64 - 1.0);
        let percentiles = [50.0, 95.0, 99.0, 99.9].map(|percent| tail(&records, percent));
        measured.push((percentiles, extra));
        played.curves.push(trial.curve(name));
    }
    let (without, with) = (&measured[0], &measured[1]);
    // Hedges begin after what 95 % of the attempts take, which is what clients see without them.
    let bound = 2.0 * with.0[0] + without.0[1];
    let row = |what: &str, at: usize| Row::told(what, ms(without.0[at]), ms(with.0[at]));
    played.rows = vec![
        row("p50", 0),
        row("p95", 1),
        row("p99", 2),
        row("p99.9", 3).held_to(
            format!("≤ 2 × p50 + delay of hedges = {}", ms(bound)),
            with.0[3] <= bound,
        ),
        Row::told(
            "extra load on endpoints",
            percents(without.1),
            percents(with.1),
        )
        .held_to("≤ 5 %", with.1 <= 5.0),
    ];
    Ok(played)
}

/// With: ejection, and failures that count as slow answers.
pub(super) async fn failing(stage: &Stage<'_>) -> Result<Played> {
    const BROKEN_AT: f64 = 4.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, pool) in [(TRIALS[0], PLAIN), (TRIALS[1], "")] {
        let behaviour = Behaviour::works(20);
        let endpoints = stage.endpoints("a", 10, behaviour, None).await?;
        let configuration = Configuration::default()
            .pool("main", &endpoints, pool)
            .route("pool: main");
        let sealane = stage.sealane(&configuration).await?;
        let fail = || endpoints[0].behave(behaviour.mode(Mode::FailAtOnce));
        let acts = vec![Act::after(BROKEN_AT as u64, "one fails", fail)];
        let trial = stage
            .trial(&sealane, &[(400, END as u32)], |_| Ask::path("/"), acts)
            .await;
        let share = |from: f64, to: f64| {
            let of = trial.reached(&endpoints[..1], from..to);
            percent(of, trial.reached(&endpoints, from..to))
        };
        let after = trial.between(BROKEN_AT + 1.0..END);
        measured.push([
            share(BROKEN_AT, BROKEN_AT + 1.0),
            share(BROKEN_AT + 1.0, END),
            100.0 - success(&after),
        ]);
        played.curves.push(trial.curve(name));
    }
    let row = |what: &str, at: usize| {
        Row::told(what, percents(measured[0][at]), percents(measured[1][at]))
    };
    played.rows = vec![
        row("its share in the first second", 0),
        row("its share after 1 s", 1).held_to("< 2 %", measured[1][1] < 2.0),
        row("failed requests after 1 s", 2),
    ];
    Ok(played)
}
