//! Names, units and labels of everything that control counts. Label values come from the
//! configuration and from enums alone, so their number is bounded by the file.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use sealane_model::{
    Correction, EndpointId, Judged, Learned, MemberHealth, Outcome, PoolId, RampStep, Room,
    Snapshot, Standing, Topology, Verdict,
};

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(
        "control_probes_total",
        Unit::Count,
        "Probes that ended, by pool and result (`passed`, or the word for what failed)"
    );
    describe_histogram!(
        "control_probe_duration_seconds",
        Unit::Seconds,
        "How long a probe took from its start to its result, by pool"
    );
    describe_counter!(
        "control_probes_delayed_total",
        Unit::Count,
        "Probes and look-ups that had to wait because too many were in flight"
    );
    describe_counter!(
        "control_lookups_total",
        Unit::Count,
        "Look-ups of endpoints' host names, by result"
    );
    describe_counter!(
        "control_tasks_lost_total",
        Unit::Count,
        "Probes and look-ups that ended without a result, by our own fault"
    );
    describe_gauge!(
        "control_endpoints",
        Unit::Count,
        "Endpoints by pool, region and verdict"
    );
    describe_counter!(
        "control_verdict_changes_total",
        Unit::Count,
        "Changes of an endpoint's verdict, by pool, new verdict and who brought it about"
    );
    describe_counter!(
        "control_client_round_trips_total",
        Unit::Count,
        "Clients' connections whose round trip was learned from"
    );
    describe_gauge!(
        "control_client_networks",
        Unit::Count,
        "Client networks whose round trip to this node is known"
    );
    describe_gauge!(
        "control_client_corrections",
        Unit::Count,
        "Client networks for which round trips correct the map, by kind: near, or slower"
    );
    describe_gauge!(
        "control_region_in",
        Unit::Count,
        "1 while the region may be chosen for the pool, 0 while it is out"
    );
    describe_gauge!(
        "control_region_degraded",
        Unit::Count,
        "1 while live requests find more of the region's endpoints out of order than may be ejected"
    );
    describe_gauge!(
        "control_ejected_endpoints",
        Unit::Count,
        "Endpoints that the proxy leaves out for what live requests saw, or has on trial, by pool and region"
    );
    describe_counter!(
        "control_standing_changes_total",
        Unit::Count,
        "Changes of a region's standing in a pool, by new standing"
    );
    describe_gauge!(
        "control_region_limit_per_second",
        Unit::CountPerSecond,
        "What a region can carry now: its capacity, times the usable part; absent without a capacity"
    );
    describe_gauge!(
        "control_region_load_per_second",
        Unit::CountPerSecond,
        "What this node sends to a region that has a capacity"
    );
    describe_gauge!(
        "control_region_excess_per_second",
        Unit::CountPerSecond,
        "Of the load, what came although no region had room for it"
    );
    describe_gauge!(
        "control_region_accepts_ratio",
        Unit::Count,
        "Share of those who choose a region that it has room for; the others go to the next best one"
    );
    describe_gauge!(
        "control_region_ramp_ratio",
        Unit::Count,
        "Share of its own that a region is given: below 1 while it returns step by step"
    );
    describe_counter!(
        "control_ramp_steps_total",
        Unit::Count,
        "Ends of a returning region's steps, by pool, region and result (`next`, `held`, `done`)"
    );
    describe_gauge!(
        "control_snapshot_generation",
        Unit::Count,
        "Number of the published world"
    );
    describe_gauge!(
        "control_snapshot_age_seconds",
        Unit::Seconds,
        "Time since the world was published; more than a minute means that control stands still"
    );
    describe_counter!(
        "control_observations_dropped_total",
        Unit::Count,
        "Observations of live requests that found the queue full"
    );
    describe_counter!(
        "control_state_writes_total",
        Unit::Count,
        "Times that the map was written to disk, by result (`ok`, `failed`)"
    );
    describe_gauge!(
        "control_state_size_bytes",
        Unit::Bytes,
        "Size of the map on disk"
    );
    describe_gauge!(
        "control_state_age_seconds",
        Unit::Seconds,
        "Age that the map on disk had when this process started; absent without one"
    );
    describe_counter!(
        "control_orders_total",
        Unit::Count,
        "Operators' orders, by kind and result (`followed`, `already`, `dry_run`, `refused`)"
    );
    describe_gauge!("control_overrides", Unit::Count, "Overrides in force");
    describe_gauge!(
        "control_first_round_seconds",
        Unit::Seconds,
        "How long the first round of probes took"
    );
    describe_counter!(
        "control_admin_requests_total",
        Unit::Count,
        "Requests to the admin API, by route and status"
    );
}

const VERDICTS: [Verdict; 6] = [
    Verdict::Unknown,
    Verdict::Up,
    Verdict::Suspect,
    Verdict::Probation,
    Verdict::Draining,
    Verdict::Down,
];

pub(crate) fn probed(topology: &Topology, pool: PoolId, outcome: &Outcome, took: Duration) {
    let pool = pool_name(topology, pool);
    let result = match outcome {
        Outcome::Passed { .. } => "passed",
        Outcome::Failed(failure) => failure.as_str(),
        Outcome::Judged(_) => "judged",
    };
    counter!("control_probes_total", "pool" => pool.clone(), "result" => result).increment(1);
    histogram!("control_probe_duration_seconds", "pool" => pool).record(took.as_secs_f64());
}

pub(crate) fn delayed() {
    counter!("control_probes_delayed_total").increment(1);
}

pub(crate) fn looked_up(found: bool) {
    let result = if found { "found" } else { "failed" };
    counter!("control_lookups_total", "result" => result).increment(1);
}

pub(crate) fn lost() {
    counter!("control_tasks_lost_total").increment(1);
}

pub(crate) fn verdict_changed(
    topology: &Topology,
    pool: PoolId,
    to: Verdict,
    by: sealane_model::Source,
) {
    let pool = pool_name(topology, pool);
    counter!("control_verdict_changes_total", "pool" => pool, "verdict" => to.as_str(), "by" => by.as_str())
        .increment(1);
}

pub(crate) fn standing_changed(topology: &Topology, pool: PoolId, region: &str, to: Standing) {
    let (pool, region) = (pool_name(topology, pool), region.to_owned());
    let standing = standing_word(to);
    counter!("control_standing_changes_total", "pool" => pool, "region" => region, "standing" => standing)
        .increment(1);
}

/// The gauges that follow from the published world.
pub(crate) fn heard(round_trips: usize) {
    counter!("control_client_round_trips_total").increment(round_trips as u64);
}

pub(crate) fn learned(networks: usize, learned: &Learned) {
    gauge!("control_client_networks").set(as_f64(networks));
    let near = learned
        .corrections()
        .filter(|one| *one == Correction::Near)
        .count();
    gauge!("control_client_corrections", "kind" => "near").set(as_f64(near));
    gauge!("control_client_corrections", "kind" => "slower").set(as_f64(learned.len() - near));
}

pub(crate) fn published(world: &Snapshot, overrides: usize) {
    for pool in world.topology.pools() {
        for (member, health) in world.members(pool.id) {
            let region = world.topology.region_name(member.region).to_owned();
            let pool = pool.name.to_string();
            for verdict in VERDICTS {
                let has = |id: &&EndpointId| world.verdict(**id) == verdict;
                let count = member.endpoints.iter().filter(has).count();
                gauge!("control_endpoints", "pool" => pool.clone(), "region" => region.clone(), "verdict" => verdict.as_str())
                    .set(as_f64(count));
            }
            let is_in = f64::from(u8::from(health.standing == Standing::In));
            gauge!("control_region_in", "pool" => pool.clone(), "region" => region.clone())
                .set(is_in);
            let ejected = member.endpoints.iter().filter(|id| is_ejected(world, **id));
            gauge!("control_ejected_endpoints", "pool" => pool.clone(), "region" => region.clone())
                .set(as_f64(ejected.count()));
            let degraded = f64::from(u8::from(health.degraded));
            gauge!("control_region_degraded", "pool" => pool.clone(), "region" => region.clone())
                .set(degraded);
            share_published(&pool, &region, health);
        }
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 publications take millions of years"
    )]
    gauge!("control_snapshot_generation").set(world.generation.0 as f64);
    gauge!("control_overrides").set(as_f64(overrides));
}

fn is_ejected(world: &Snapshot, id: EndpointId) -> bool {
    let judged = world.endpoint(id).and_then(|health| health.judged);
    matches!(
        judged,
        Some(Judged::Ejected { .. } | Judged::OnTrial { .. })
    )
}

fn share_published(pool: &str, region: &str, health: &MemberHealth) {
    let set = |name: &'static str, value: f64| {
        gauge!(name, "pool" => pool.to_owned(), "region" => region.to_owned()).set(value);
    };
    set(
        "control_region_ramp_ratio",
        health.ramp.map_or(1.0, |ramp| ramp.share),
    );
    if let Some(room) = health.room {
        set("control_region_limit_per_second", room.limit);
        set("control_region_load_per_second", room.load);
        set("control_region_excess_per_second", room.excess);
        set("control_region_accepts_ratio", room.accepts);
    }
}

/// `None`: the region has its whole share.
pub(crate) fn ramped(topology: &Topology, pool: PoolId, region: &str, step: Option<RampStep>) {
    let result = match step {
        None => "done",
        Some(step) if step.held => "held",
        Some(_) => "next",
    };
    let (pool, region) = (pool_name(topology, pool), region.to_owned());
    counter!("control_ramp_steps_total", "pool" => pool, "region" => region, "result" => result)
        .increment(1);
}

/// Before the world loses some of its members: their gauges would stay as they were.
pub(crate) fn leaving(world: &Snapshot) {
    for pool in world.topology.pools() {
        for (member, health) in world.members(pool.id) {
            let region = world.topology.region_name(member.region).to_owned();
            let pool = pool.name.to_string();
            for verdict in VERDICTS {
                gauge!("control_endpoints", "pool" => pool.clone(), "region" => region.clone(), "verdict" => verdict.as_str())
                    .set(0.0);
            }
            for gone in [
                "control_region_in",
                "control_ejected_endpoints",
                "control_region_degraded",
            ] {
                gauge!(gone, "pool" => pool.clone(), "region" => region.clone()).set(0.0);
            }
            let gone = MemberHealth {
                room: health.room.map(|_| Room {
                    limit: 0.0,
                    load: 0.0,
                    excess: 0.0,
                    accepts: 0.0,
                }),
                ..MemberHealth::default()
            };
            share_published(&pool, &region, &gone);
        }
    }
}

/// Gauges that move by themselves: set just before they are shown.
pub(crate) fn snapshot_age(age: Duration) {
    gauge!("control_snapshot_age_seconds").set(age.as_secs_f64());
}

pub(crate) fn observations_dropped(in_all: u64) {
    counter!("control_observations_dropped_total").absolute(in_all);
}

pub(crate) fn state_written(result: Result<u64, ()>) {
    let word = if result.is_ok() { "ok" } else { "failed" };
    counter!("control_state_writes_total", "result" => word).increment(1);
    if let Ok(bytes) = result {
        #[expect(clippy::cast_precision_loss, reason = "a map is far below 2^53 bytes")]
        gauge!("control_state_size_bytes").set(bytes as f64);
    }
}

pub(crate) fn state_age(age: Duration) {
    gauge!("control_state_age_seconds").set(age.as_secs_f64());
}

pub(crate) fn ordered(kind: &'static str, result: &'static str) {
    counter!("control_orders_total", "kind" => kind, "result" => result).increment(1);
}

pub(crate) fn first_round(took: Duration) {
    gauge!("control_first_round_seconds").set(took.as_secs_f64());
}

/// `route` is one of ours, never a path that a client made up.
pub(crate) fn admin_answered(route: String, status: u16) {
    counter!("control_admin_requests_total", "route" => route, "status" => status.to_string())
        .increment(1);
}

/// `in`, or why not.
#[must_use]
pub(crate) const fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::In => "in",
        Standing::Out(why) => why.as_str(),
    }
}

fn pool_name(topology: &Topology, pool: PoolId) -> String {
    topology
        .pool(pool)
        .map_or_else(|| "?".to_owned(), |pool| pool.name.to_string())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of configured things are small"
)]
const fn as_f64(count: usize) -> f64 {
    count as f64
}
