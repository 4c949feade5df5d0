//! A share of the requests goes to a canary, and the canary turns bad.

use anyhow::Result;

use super::{TRIALS, percents, success};
use crate::endpoint::{Behaviour, Endpoint};
use crate::load::{Ask, Record, as_fast_as_it_goes};
use crate::numbers::percent;
use crate::report::Row;
use crate::sealane::Configuration;
use crate::stage::{Act, Played, Stage};

const REQUESTS: u64 = 20_000;
/// Clients that ask at once, each for its next one when it has the last.
const WIDTH: u64 = 32;

/// With: the automatic abort, as it is by default.
pub(super) async fn canary(stage: &Stage<'_>) -> Result<Played> {
    let mut played = Played {
        rows: shares(stage).await?,
        ..Played::default()
    };
    let bad = Behaviour::works(10).failing(0.3);
    aborted(stage, &mut played, "30 % errors", bad).await?;
    let slow = Behaviour::works(30);
    aborted(stage, &mut played, "3 times the latency", slow).await?;
    Ok(played)
}

/// The n-th request.
type Asking = fn(u64) -> Ask;

/// Of 20,000 users, how many are led to it.
async fn shares(stage: &Stage<'_>) -> Result<Vec<Row>> {
    let asked: [(&str, f64, Asking); 3] = [
        ("1%", 1.0, |number| user("/one", number)),
        ("5%", 5.0, |number| user("/five", number)),
        ("50%", 50.0, |number| user("/fifty", number)),
    ];
    let works = Behaviour::works(0);
    let stable = stage.endpoints("s", 2, works, None).await?;
    let canary = stage.endpoints("c", 1, works, None).await?;
    let mut configuration = Configuration::default()
        .pool("stable", &stable, "")
        .pool("canary", &canary, "");
    for (share, _, ask) in asked {
        let path = ask(0).path;
        configuration = configuration.route(&format!(
            "match: {{ path_prefix: {path} }}, pool: stable, \
             split: [{{ pool: canary, share: {share}, key: {{ header: x-user }} }}]"
        ));
    }
    let sealane = stage.sealane(&configuration).await?;
    let mut rows = Vec::new();
    for (share, wanted, ask) in asked {
        let width = (REQUESTS, WIDTH);
        let records = as_fast_as_it_goes(sealane.web, stage.epoch, width, ask).await;
        let led = percent(led_to_it(records.iter()), records.len());
        let row = Row::told(
            &format!("share of 20,000 users at {share}"),
            String::new(),
            percents(led),
        );
        rows.push(row.held_to("± 0.5 points", (led - wanted).abs() <= 0.5));
    }
    Ok(rows)
}

fn user(path: &'static str, number: u64) -> Ask {
    Ask::path(path).field("x-user", format!("user-{number}"))
}

fn led_to_it<'a>(records: impl Iterator<Item = &'a Record>) -> usize {
    records.filter(|record| record.by.starts_with('c')).count()
}

/// How long a bad canary goes on, and what it costs.
async fn aborted(
    stage: &Stage<'_>,
    played: &mut Played,
    how: &'static str,
    bad: Behaviour,
) -> Result<()> {
    const BAD_AT: f64 = 4.0;
    const END: f64 = 18.0;
    let mut measured = Vec::new();
    for (name, keys) in [
        (TRIALS[0], ", abort: { errors: none, latency: none }"),
        (TRIALS[1], ""),
    ] {
        let works = Behaviour::works(10);
        let stable = stage.endpoints("s", 4, works, None).await?;
        let canary = stage.endpoints("c", 2, works, None).await?;
        let configuration = Configuration::default()
            .pool("stable", &stable, "ejection: off")
            .pool("canary", &canary, "ejection: off")
            .route(&format!(
                "pool: stable, split: [{{ pool: canary, share: 10%, key: {{ header: x-user }}{keys} }}]"
            ));
        let sealane = stage.sealane(&configuration).await?;
        let turn = || canary.iter().for_each(|endpoint| endpoint.behave(bad));
        let acts = vec![Act::after(BAD_AT as u64, how, turn)];
        let trial = stage
            .trial(
                &sealane,
                &[(300, END as u32)],
                |number| user("/", number),
                acts,
            )
            .await;
        let lasts = lasts(&canary, &trial, BAD_AT, END);
        measured.push((lasts, 100.0 - success(&trial.between(BAD_AT..END))));
        played
            .curves
            .push(trial.curve(match (name, played.curves.len()) {
                (_, 0) => "without (errors)",
                (_, 1) => "with (errors)",
                (_, 2) => "without (slow)",
                _ => "with (slow)",
            }));
    }
    let seconds =
        |of: Option<f64>| of.map_or_else(|| "goes on".to_owned(), |of| format!("{of:.1} s"));
    let [without, with] = [measured[0], measured[1]];
    let what = format!("{how}: the canary goes on for");
    let in_time = with.0.is_some_and(|lasts| lasts < 10.0);
    let row = Row::told(&what, seconds(without.0), seconds(with.0));
    played.rows.push(row.held_to("< 10 s", in_time));
    let what = format!("{how}: failed requests");
    let row = Row::told(&what, percents(without.1), percents(with.1));
    played.rows.push(row);
    Ok(())
}

/// How long after `from` the canary got requests; `None`: to the end.
fn lasts(canary: &[Endpoint], trial: &crate::stage::Trial, from: f64, end: f64) -> Option<f64> {
    let tenths = ((end - from) * 10.0) as u32;
    let at = |tenth: u32| from + f64::from(tenth) / 10.0;
    let last = (0..tenths).rev().find(|tenth| {
        let tenth = at(*tenth)..at(*tenth) + 0.1;
        trial.reached(canary, tenth) > 0
    });
    let lasts = last.map_or(0.0, |tenth| at(tenth) + 0.1 - from);
    (lasts < end - from - 1.0).then_some(lasts)
}
