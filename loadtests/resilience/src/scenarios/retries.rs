//! When nothing works, trying again makes it worse.

use anyhow::Result;

use super::TRIALS;
use crate::endpoint::{Behaviour, Mode};
use crate::load::Ask;
use crate::report::Row;
use crate::sealane::Configuration;
use crate::stage::{Act, Played, Stage};

/// With: the default budget. Without: each request may be tried three times.
pub(super) async fn storm(stage: &Stage<'_>) -> Result<Played> {
    const RATE: u32 = 300;
    const BROKEN_AT: f64 = 3.0;
    /// Budgets hold within any ten seconds.
    const END: f64 = BROKEN_AT + 10.0;
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, budget) in [(TRIALS[0], "100%"), (TRIALS[1], "20%")] {
        let behaviour = Behaviour::works(10);
        let endpoints = stage.endpoints("a", 4, behaviour, None).await?;
        let configuration = Configuration::default()
            .pool("main", &endpoints, "")
            .route(&format!(
                "pool: main, retry: {{ attempts: 3, budget: {budget} }}"
            ));
        let sealane = stage.sealane(&configuration).await?;
        let fail = || {
            for endpoint in &endpoints {
                endpoint.behave(behaviour.mode(Mode::Reset));
            }
        };
        let acts = vec![Act::after(BROKEN_AT as u64, "all break off", fail)];
        let trial = stage
            .trial(&sealane, &[(RATE, END as u32)], |_| Ask::path("/"), acts)
            .await;
        let upstream =
            |from: f64, to: f64| trial.reached(&endpoints, from..to) as f64 / (to - from);
        measured.push((
            upstream(BROKEN_AT, BROKEN_AT + 1.0),
            upstream(BROKEN_AT, END),
        ));
        played.curves.push(trial.curve(name));
    }
    let [without, with] = [measured[0], measured[1]];
    let bound = 1.2 * f64::from(RATE) + 10.0;
    let a_second = |rate: f64| format!("{rate:.0}/s");
    played.rows = vec![
        Row::told("offered", a_second(RATE.into()), a_second(RATE.into())),
        Row::told(
            "upstream in the first second",
            a_second(without.0),
            a_second(with.0),
        ),
        Row::told("upstream, over 10 s", a_second(without.1), a_second(with.1)).held_to(
            format!("≤ 1.2 × offered + 10/s = {}", a_second(bound)),
            with.1 <= bound,
        ),
    ];
    Ok(played)
}
