//! What one route suffers must not be felt by another.

use anyhow::Result;

use super::{TRIALS, ms, of_class, percents, success, tail};
use crate::endpoint::{Behaviour, Mode};
use crate::load::Ask;
use crate::report::Row;
use crate::sealane::Configuration;
use crate::stage::{Act, Played, Stage};

const TROUBLED: usize = 0;
const OTHER: usize = 1;

/// With: a bulkhead, and time-outs from what the route's attempts take.
pub(super) async fn dead_dependency(stage: &Stage<'_>) -> Result<Played> {
    const DEAD_AT: f64 = 12.0;
    const END: f64 = 24.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, keys) in [
        (TRIALS[0], ""),
        (
            TRIALS[1],
            ", bulkhead: { requests: 20 }, timeouts: { adaptive: {} }",
        ),
    ] {
        let behaviour = Behaviour::works(20);
        let needed = stage.endpoints("d", 4, behaviour, None).await?;
        let others = stage.endpoints("o", 4, behaviour, None).await?;
        let pool = if keys.is_empty() { "ejection: off" } else { "" };
        let configuration = Configuration::default()
            .pool("dependency", &needed, pool)
            .pool("main", &others, pool)
            .route(&format!(
                "match: {{ path_prefix: /report }}, pool: dependency{keys}"
            ))
            .route("pool: main");
        let sealane = stage.sealane(&configuration).await?;
        let die = || {
            for endpoint in &needed {
                endpoint.behave(behaviour.mode(Mode::Hang));
            }
        };
        let ask = |number: u64| match number % 3 {
            0 => Ask::path("/report").class(TROUBLED),
            _ => Ask::path("/").class(OTHER),
        };
        let acts = vec![Act::after(DEAD_AT as u64, "it hangs", die)];
        let trial = stage.trial(&sealane, &[(450, END as u32)], ask, acts).await;
        let before = of_class(&trial.between(1.0..DEAD_AT), OTHER);
        let after = of_class(&trial.between(DEAD_AT..END), OTHER);
        let dead = of_class(&trial.between(DEAD_AT + 1.0..END), TROUBLED);
        let (was, is) = (tail(&before, 99.0), tail(&after, 99.0));
        measured.push((
            was,
            is,
            100.0 * (is / was - 1.0),
            success(&after),
            crate::numbers::percentile(&dead, 50.0),
        ));
        played.curves.push(trial.curve(name));
    }
    let [without, with] = [measured[0], measured[1]];
    played.rows = vec![
        Row::told("other routes' p99 before", ms(without.0), ms(with.0)),
        Row::told("other routes' p99 after", ms(without.1), ms(with.1)),
        Row::told("its change", percents(without.2), percents(with.2))
            .held_to("< 5 %", with.2 < 5.0),
        Row::told(
            "other routes' success",
            percents(without.3),
            percents(with.3),
        )
        .held_to("100 %", with.3 == 100.0),
        Row::told(
            "the dead route refuses after (p50)",
            ms(without.4),
            ms(with.4),
        ),
    ];
    Ok(played)
}

/// With: a bulkhead of the greedy route, smaller than the pool.
pub(super) async fn bulkhead(stage: &Stage<'_>) -> Result<Played> {
    const END: f64 = 10.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, keys) in [
        (TRIALS[0], ""),
        (
            TRIALS[1],
            ", bulkhead: { requests: 25, queue: 10, wait: 50ms }",
        ),
    ] {
        // 4 endpoints with 10 places each, 100 ms: 400 in a second.
        let endpoints = stage
            .endpoints("a", 4, Behaviour::works(100), Some(10))
            .await?;
        let configuration = Configuration::default()
            .pool("main", &endpoints, "")
            .route(&format!(
                "match: {{ path_prefix: /greedy }}, pool: main{keys}"
            ))
            .route("pool: main");
        let sealane = stage.sealane(&configuration).await?;
        let ask = |number: u64| match number % 13 {
            0 => Ask::path("/").class(OTHER),
            _ => Ask::path("/greedy").class(TROUBLED),
        };
        let trial = stage
            .trial(&sealane, &[(650, END as u32)], ask, vec![])
            .await;
        let all = trial.between(1.0..END);
        let other = of_class(&all, OTHER);
        measured.push((
            success(&other),
            tail(&other, 99.0),
            success(&of_class(&all, TROUBLED)),
        ));
        played.curves.push(trial.curve(name));
    }
    let [without, with] = [measured[0], measured[1]];
    played.rows = vec![
        Row::told(
            "the other route's success",
            percents(without.0),
            percents(with.0),
        )
        .held_to("100 %", with.0 == 100.0),
        Row::told("the other route's p99", ms(without.1), ms(with.1)),
        Row::told(
            "the greedy route's success",
            percents(without.2),
            percents(with.2),
        ),
    ];
    Ok(played)
}
