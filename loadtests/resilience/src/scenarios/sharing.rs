//! Many ask the same thing at the same time.

use std::time::Duration;

use anyhow::Result;

use super::{TRIALS, percents, success};
use crate::endpoint::Behaviour;
use crate::load::{Ask, Record, at_once};
use crate::report::{Curve, Row};
use crate::sealane::Configuration;
use crate::stage::{PATIENCE, Played, Stage};

const CLIENTS: usize = 1_000;
const USERS: usize = 50;

/// With: requests share; those with credentials with the same user's alone.
pub(super) async fn coalescing(stage: &Stage<'_>) -> Result<Played> {
    let mut played = Played::default();
    let mut measured = Vec::new();
    for (name, keys) in [
        (TRIALS[0], ""),
        (TRIALS[1], ", coalesce: { authorization: by_value }"),
    ] {
        let behaviour = Behaviour::works(500).always();
        let endpoints = stage.endpoints("a", 2, behaviour, None).await?;
        let configuration = Configuration::default()
            .pool("main", &endpoints, "")
            .route(&format!("pool: main{keys}"));
        let sealane = stage.sealane(&configuration).await?;
        let so_far = || {
            endpoints
                .iter()
                .map(|one| one.arrivals().len())
                .sum::<usize>()
        };

        let asks = vec![Ask::path("/same"); CLIENTS];
        let same = at_once(sealane.web, stage.epoch, asks, PATIENCE).await?;
        let upstream = so_far();
        tokio::time::sleep(Duration::from_millis(500)).await;

        let user = |number: usize| format!("Bearer user-{}", number % USERS);
        let asks = (0..CLIENTS).map(|number| {
            let ask = Ask::path("/own").class(number % USERS);
            ask.field("authorization", user(number))
        });
        let own = at_once(sealane.web, stage.epoch, asks.collect(), PATIENCE).await?;
        let mixed = own
            .iter()
            .filter(|record| record.is_good() && record.body != user(record.class));
        let mixed = mixed.count();
        let served: Vec<&Record> = same.iter().chain(&own).collect();
        measured.push((upstream, so_far() - upstream, mixed, success(&served)));
        let curve = Curve::new(name, [same, own].concat(), vec![]);
        played.curves.push(curve);
    }
    let [without, with] = [measured[0], measured[1]];
    let row = |what: &str, of: fn(&(usize, usize, usize, f64)) -> usize| {
        Row::told(what, of(&without).to_string(), of(&with).to_string())
    };
    played.rows = vec![
        row("upstream requests for 1,000 the same", |of| of.0).held_to("1", with.0 == 1),
        row("upstream requests for 1,000 of 50 users", |of| of.1).held_to("50", with.1 == USERS),
        row("answers of another user", |of| of.2).held_to("0", with.2 == 0),
        Row::told("answered", percents(without.3), percents(with.3))
            .held_to("100 %", with.3 == 100.0),
    ];
    Ok(played)
}
