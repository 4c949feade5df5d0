//! The JSON that the admin API speaks: what each answer and each order looks like.
//!
//! The only file of the API that knows serde. Everything goes by name, never by id; times are
//! RFC 3339 in UTC, durations carry their unit in the key. Decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use sealane_model::{
    Judged, Location, Member, MemberHealth, OutReason, Pool, PoolId, RampStep, RegionId, Room,
    Snapshot, Standing, Timestamp, Topology,
};
use sealane_steering::{Candidate, Decision, Entry};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{Canary, Zone};
use crate::core::{OrderReply, Overview};
use crate::overrides::Override;

/// The body of an order.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderBody {
    pub(super) target: String,
    #[serde(default)]
    pub(super) dry_run: bool,
    #[serde(default)]
    pub(super) reason: Option<String>,
    #[serde(default)]
    pub(super) force: bool,
}

/// Reads an order. An error says where, and whether the text is no JSON at all (`true`).
pub(super) fn parse_order(bytes: &[u8]) -> Result<OrderBody, (String, bool)> {
    serde_json::from_slice(bytes).map_err(|error| (error.to_string(), !error.is_data()))
}

/// A canary that is to get its share again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CanaryBody {
    pub(super) route: String,
    pub(super) pool: String,
}

/// As [`parse_order`].
pub(super) fn parse_canary(bytes: &[u8]) -> Result<CanaryBody, (String, bool)> {
    serde_json::from_slice(bytes).map_err(|error| (error.to_string(), !error.is_data()))
}

/// `GET /v1/canaries`.
#[derive(Debug, Serialize)]
pub(super) struct CanariesView {
    canaries: Vec<CanaryView>,
}

#[derive(Debug, Serialize)]
struct CanaryView {
    route: String,
    pool: String,
    /// What it gets now.
    share: f64,
    /// What the configuration gives it.
    configured_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aborted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aborted_seconds_ago: Option<u64>,
}

impl From<&[Canary]> for CanariesView {
    fn from(canaries: &[Canary]) -> Self {
        let view = |canary: &Canary| CanaryView {
            route: canary.route.clone(),
            pool: canary.pool.clone(),
            share: if canary.aborted.is_some() {
                0.0
            } else {
                canary.share
            },
            configured_share: canary.share,
            aborted: canary.aborted.as_ref().map(|(why, _)| why.clone()),
            aborted_seconds_ago: canary.aborted.as_ref().map(|(_, ago)| ago.as_secs()),
        };
        Self {
            canaries: canaries.iter().map(view).collect(),
        }
    }
}

/// `GET /v1/zones`.
#[derive(Debug, Serialize)]
pub(super) struct ZonesView {
    zones: Vec<ZoneView>,
}

#[derive(Debug, Serialize)]
struct ZoneView {
    name: String,
    role: &'static str,
    serial: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    servers_told: usize,
    servers_to_tell: usize,
}

impl From<&[Zone]> for ZonesView {
    fn from(zones: &[Zone]) -> Self {
        let view = |zone: &Zone| ZoneView {
            name: zone.name.clone(),
            role: if zone.is_secondary {
                "secondary"
            } else {
                "primary"
            },
            serial: zone.serial,
            from: zone.from.clone(),
            heard_at: zone.heard_at,
            expires_at: zone.expires_at,
            failures: zone.failures,
            error: zone.error.clone(),
            servers_told: zone.told.0,
            servers_to_tell: zone.told.1,
        };
        Self {
            zones: zones.iter().map(view).collect(),
        }
    }
}

/// `POST /v1/canaries/reset`.
#[derive(Debug, Serialize)]
pub(super) struct ResetView {
    result: &'static str,
}

impl ResetView {
    pub(super) const fn new(was_aborted: bool) -> Self {
        Self {
            result: if was_aborted { "done" } else { "already" },
        }
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value)
        .unwrap_or_else(|_| br#"{"error": "this answer cannot be written as JSON"}"#.to_vec());
    text.push(b'\n');
    text
}

/// A refusal.
#[derive(Debug, Serialize)]
pub(super) struct ErrorView {
    pub(super) error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) paths: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReadyView {
    pub(super) ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
    pub(super) generation: u64,
    pub(super) snapshot_age_ms: u64,
}

/// `GET /v1/snapshot`.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotView {
    node: String,
    generation: u64,
    published_at: String,
    started_at: String,
    first_round_over: bool,
    /// How old the map was that this process began with.
    restored_state_age_seconds: Option<u64>,
    regions: Vec<RegionView>,
    pools: Vec<PoolView>,
    overrides: Vec<OverrideView>,
}

#[derive(Debug, Serialize)]
struct RegionView {
    name: String,
    location: Option<[f32; 2]>,
    #[serde(rename = "override")]
    word: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PoolView {
    name: String,
    failover_threshold: String,
    hold_down_ms: u64,
    members: Vec<MemberView>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    region: String,
    standing: StandingView,
    since: String,
    weight: u32,
    priority: u16,
    healthy: u32,
    total: u32,
    suspect: bool,
    degraded: bool,
    rtt_ms: Option<f64>,
    rtt_floor_ms: Option<f64>,
    /// Absent without a capacity.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<RoomView>,
    /// Absent unless it returns step by step.
    #[serde(skip_serializing_if = "Option::is_none")]
    ramp: Option<RampView>,
    addresses: Vec<String>,
    endpoints: Vec<EndpointView>,
}

#[derive(Debug, Serialize)]
struct RoomView {
    limit_per_second: f64,
    load_per_second: f64,
    /// What came although no region had room, sent or refused.
    excess_per_second: f64,
    /// The share of those who choose it that it has room for.
    accepts: f64,
}

impl From<Room> for RoomView {
    fn from(room: Room) -> Self {
        Self {
            limit_per_second: tenths(room.limit),
            load_per_second: tenths(room.load),
            excess_per_second: tenths(room.excess),
            accepts: room.accepts,
        }
    }
}

#[derive(Debug, Serialize)]
struct RampView {
    /// The share of its own that it is given.
    share: f64,
    step: u16,
    of: u16,
    since: String,
    /// Too many errors to be given more.
    held: bool,
}

impl From<RampStep> for RampView {
    fn from(step: RampStep) -> Self {
        Self {
            share: step.share,
            step: step.step,
            of: step.of,
            since: rfc3339(step.since),
            held: step.held,
        }
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[derive(Debug, Serialize)]
struct StandingView {
    #[serde(rename = "in")]
    is_in: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

#[derive(Debug, Serialize)]
struct EndpointView {
    name: String,
    az: Option<String>,
    weight: u32,
    verdict: &'static str,
    since: String,
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    rtt_ms: Option<f64>,
    /// What the proxy concluded from live requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<JudgedView>,
    addresses: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct JudgedView {
    /// `ejected`, `on_trial`, `kept_in_need` or `slow`.
    is: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    /// Of its weight, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_percent: Option<u32>,
}

#[derive(Debug, Serialize)]
struct OverrideView {
    kind: &'static str,
    target: String,
    #[serde(rename = "override")]
    wish: &'static str,
    by: String,
    reason: Option<String>,
    at: String,
    /// Does anything of that name exist now?
    exists: bool,
}

impl SnapshotView {
    pub(super) fn new(world: &Snapshot, overview: &Overview) -> Self {
        let topology = &world.topology;
        Self {
            node: overview.node.to_string(),
            generation: world.generation.0,
            published_at: rfc3339(world.published_at),
            started_at: rfc3339(overview.started_at),
            first_round_over: overview.first_round_over,
            restored_state_age_seconds: restored_age(overview).map(|age| age.as_secs()),
            regions: topology
                .regions()
                .map(|region| RegionView {
                    name: region.name.to_string(),
                    location: region.location.map(degrees),
                    word: word_on(&region.name, overview),
                })
                .collect(),
            pools: topology
                .pools()
                .map(|pool| pool_view(pool, world))
                .collect(),
            overrides: overview
                .overrides
                .iter()
                .map(|one| override_view(one, topology))
                .collect(),
        }
    }
}

fn pool_view(pool: &Pool, world: &Snapshot) -> PoolView {
    let members = world.members(pool.id);
    PoolView {
        name: pool.name.to_string(),
        failover_threshold: pool.failover.threshold.to_string(),
        hold_down_ms: millis(pool.failover.hold_down),
        members: members
            .map(|(member, health)| member_view(member, health, world))
            .collect(),
    }
}

fn member_view(member: &Member, health: &MemberHealth, world: &Snapshot) -> MemberView {
    MemberView {
        region: world.topology.region_name(member.region).to_owned(),
        standing: standing_view(health.standing),
        since: rfc3339(health.since),
        weight: member.weight.get(),
        priority: member.priority,
        healthy: health.healthy,
        total: health.total,
        suspect: health.suspect,
        degraded: health.degraded,
        rtt_ms: health.rtt.map(fraction_ms),
        rtt_floor_ms: health.rtt_floor.map(fraction_ms),
        room: health.room.map(RoomView::from),
        ramp: health.ramp.map(RampView::from),
        addresses: health.addresses.iter().map(ToString::to_string).collect(),
        endpoints: member
            .endpoints
            .iter()
            .filter_map(|id| {
                let endpoint = world.topology.endpoint(*id)?;
                let health = world.endpoint(*id).cloned().unwrap_or_default();
                Some(EndpointView {
                    name: endpoint.name.to_string(),
                    az: endpoint.az.as_deref().map(str::to_owned),
                    weight: endpoint.weight.get(),
                    verdict: health.verdict.as_str(),
                    since: rfc3339(health.since),
                    by: health.by.as_str(),
                    cause: health.cause.as_deref().map(str::to_owned),
                    rtt_ms: health.rtt.map(fraction_ms),
                    judged: health.judged.map(judged_view),
                    addresses: health.addresses.iter().map(ToString::to_string).collect(),
                })
            })
            .collect(),
    }
}

fn judged_view(judged: Judged) -> JudgedView {
    match judged {
        Judged::Ejected { why, times, until } => JudgedView {
            is: "ejected",
            why: Some(why.as_str()),
            times: Some(times),
            until: Some(rfc3339(until)),
            ..JudgedView::default()
        },
        Judged::OnTrial { times, .. } => JudgedView {
            is: "on_trial",
            times: Some(times),
            ..JudgedView::default()
        },
        Judged::KeptInNeed { why, until } => JudgedView {
            is: "kept_in_need",
            why: Some(why.as_str()),
            until: Some(rfc3339(until)),
            ..JudgedView::default()
        },
        Judged::Weighs { share } => JudgedView {
            is: "slow",
            weight_percent: Some(percent(share)),
            ..JudgedView::default()
        },
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a weight is within 0–1"
)]
fn percent(share: f32) -> u32 {
    (share * 100.0).round() as u32
}

fn standing_view(standing: Standing) -> StandingView {
    match standing {
        Standing::In => StandingView {
            is_in: true,
            reason: None,
            until: None,
        },
        Standing::Out(why) => StandingView {
            is_in: false,
            reason: Some(why.as_str()),
            until: match why {
                OutReason::HoldDown { until } => Some(rfc3339(until)),
                _ => None,
            },
        },
    }
}

fn override_view(one: &Override, topology: &Topology) -> OverrideView {
    let exists = match &one.subject {
        crate::overrides::Subject::Region(name) => topology.region_named(name).is_some(),
        endpoint @ crate::overrides::Subject::Endpoint(_) => {
            !crate::overrides::endpoints_of(topology, endpoint).is_empty()
        }
    };
    OverrideView {
        kind: one.subject.kind(),
        target: one.subject.name().to_string(),
        wish: one.wish.as_str(),
        by: one.by.to_string(),
        reason: one.reason.as_deref().map(str::to_owned),
        at: rfc3339(one.at),
        exists,
    }
}

/// `GET /v1/status`: a line for each region, for people and for the command line.
#[derive(Debug, Serialize)]
pub(super) struct StatusView {
    node: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    generation: u64,
    published_at: String,
    snapshot_age_ms: u64,
    restored_state_age_seconds: Option<u64>,
    pools: Vec<StatusPool>,
    overrides: Vec<OverrideView>,
}

#[derive(Debug, Serialize)]
struct StatusPool {
    name: String,
    regions_in: usize,
    regions: Vec<StatusRegion>,
}

#[derive(Debug, Serialize)]
struct StatusRegion {
    name: String,
    standing: &'static str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    healthy: u32,
    total: u32,
    suspect: bool,
    rtt_ms: Option<f64>,
}

impl StatusView {
    pub(super) fn new(
        world: &Snapshot,
        overview: &Overview,
        waiting_for: Option<String>,
        now: Timestamp,
    ) -> Self {
        let overrides = overview.overrides.iter();
        Self {
            node: overview.node.to_string(),
            ready: waiting_for.is_none(),
            waiting_for,
            generation: world.generation.0,
            published_at: rfc3339(world.published_at),
            snapshot_age_ms: millis(now.since(world.published_at)),
            restored_state_age_seconds: restored_age(overview).map(|age| age.as_secs()),
            pools: world
                .topology
                .pools()
                .map(|pool| status_pool(pool, world))
                .collect(),
            overrides: overrides
                .map(|one| override_view(one, &world.topology))
                .collect(),
        }
    }
}

fn status_pool(pool: &Pool, world: &Snapshot) -> StatusPool {
    let region = |(member, health): (&Member, &MemberHealth)| StatusRegion {
        name: world.topology.region_name(member.region).to_owned(),
        standing: crate::metrics::standing_word(health.standing),
        since: rfc3339(health.since),
        until: standing_view(health.standing).until,
        healthy: health.healthy,
        total: health.total,
        suspect: health.suspect,
        rtt_ms: health.rtt.map(fraction_ms),
    };
    let is_in = |(_, health): &(&Member, &MemberHealth)| health.standing == Standing::In;
    StatusPool {
        name: pool.name.to_string(),
        regions_in: world.members(pool.id).filter(is_in).count(),
        regions: world.members(pool.id).map(region).collect(),
    }
}

/// The answer to an order.
#[derive(Debug, Serialize)]
pub(super) struct OrderView {
    order: &'static str,
    kind: &'static str,
    target: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    /// `followed`, `already`, `would_follow` or `would_refuse`.
    result: &'static str,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    pools: Vec<EffectView>,
}

#[derive(Debug, Serialize)]
struct EffectView {
    pool: String,
    regions_before: Vec<String>,
    regions_after: Vec<String>,
}

impl From<&OrderReply> for OrderView {
    fn from(reply: &OrderReply) -> Self {
        let names = |regions: &[std::sync::Arc<str>]| -> Vec<String> {
            regions.iter().map(ToString::to_string).collect()
        };
        Self {
            order: reply.kind.as_str(),
            kind: reply.subject.kind(),
            target: reply.subject.name().to_string(),
            endpoints: reply.endpoints.clone(),
            result: match (&reply.refusal, reply.already, reply.dry_run) {
                (Some(_), ..) => "would_refuse",
                (None, true, _) => "already",
                (None, false, true) => "would_follow",
                (None, false, false) => "followed",
            },
            dry_run: reply.dry_run,
            refusal: reply.refusal.as_ref().map(ToString::to_string),
            pools: reply
                .pools
                .iter()
                .map(|effect| EffectView {
                    pool: effect.pool.to_string(),
                    regions_before: names(&effect.before),
                    regions_after: names(&effect.after),
                })
                .collect(),
        }
    }
}

/// `GET /v1/explain`.
#[derive(Debug, Serialize)]
pub(super) struct ExplainView {
    via: String,
    pool: String,
    policy: &'static str,
    client: ClientView,
    generation: u64,
    published_at: String,
    reason: String,
    winner: Option<String>,
    /// Best first.
    ranking: Vec<String>,
    /// The leading bits of the client's address for which this holds.
    scope: u8,
    suspect: bool,
    candidates: Vec<CandidateView>,
    notes: BTreeMap<&'static str, Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ClientView {
    address: String,
    how: &'static str,
    location: Option<[f32; 2]>,
    region: Option<String>,
    located_for_prefix: u8,
}

#[derive(Debug, Serialize)]
struct CandidateView {
    region: String,
    /// 0 is the winner; `null` is not in the ranking.
    position: Option<usize>,
    standing: StandingView,
    /// What kept it from winning, in words.
    filter: Option<String>,
    priority: u16,
    weight: f64,
    healthy: u32,
    total: u32,
    latency_ms: f64,
    latency_from: &'static str,
    in_band: bool,
    /// The free part of its capacity that the share goes by.
    free: f64,
    /// The share of those who choose it that it has room for.
    accepts: f64,
    /// The share of its own that it is given while it returns.
    ramp: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<RoomView>,
    share: f64,
}

impl From<&Decision> for ExplainView {
    fn from(decision: &Decision) -> Self {
        let Decision {
            via,
            pool,
            policy,
            place,
            explanation,
            world,
            notes,
        } = decision;
        let topology = &world.topology;
        let name = |region| topology.region_name(region).to_owned();
        let ranking = &explanation.ranking;
        let winner = explanation
            .candidates
            .iter()
            .find(|one| one.position == Some(0));
        let mut grouped: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (key, value) in notes {
            grouped.entry(*key).or_default().push(value.clone());
        }
        Self {
            via: via.clone(),
            pool: topology
                .pool(*pool)
                .map_or("?", |pool| &pool.name)
                .to_owned(),
            policy,
            client: ClientView {
                address: place.address.to_string(),
                how: place.how.as_str(),
                location: place.location.map(degrees),
                region: place.region.map(name),
                located_for_prefix: place.scope.0,
            },
            generation: world.generation.0,
            published_at: rfc3339(world.published_at),
            reason: ranking.reason.describe(topology),
            winner: ranking.first().map(name),
            ranking: ranking.regions().map(name).collect(),
            scope: ranking.scope.0,
            suspect: ranking.suspect,
            candidates: explanation
                .candidates
                .iter()
                .map(|candidate| CandidateView {
                    region: name(candidate.region),
                    position: candidate.position,
                    standing: standing_view(candidate.standing),
                    filter: filter(candidate, winner, topology.pool(*pool), world),
                    priority: candidate.tier,
                    weight: candidate.weight,
                    healthy: candidate.healthy,
                    total: candidate.total,
                    latency_ms: round(candidate.latency_ms, 3),
                    latency_from: candidate.basis.as_str(),
                    in_band: candidate.in_band,
                    free: round(candidate.free, 3),
                    accepts: round(candidate.accepts, 3),
                    ramp: candidate.ramp,
                    room: room_of(world, *pool, candidate.region),
                    share: round(candidate.share, 6),
                })
                .collect(),
            notes: grouped,
        }
    }
}

fn room_of(world: &Snapshot, pool: PoolId, region: RegionId) -> Option<RoomView> {
    let (_, health) = world.member(pool, region)?;
    health.room.map(RoomView::from)
}

/// Why this one did not win, with the numbers. `None` for the winner.
fn filter(
    candidate: &Candidate,
    winner: Option<&Candidate>,
    pool: Option<&Pool>,
    world: &Snapshot,
) -> Option<String> {
    if candidate.position == Some(0) {
        return None;
    }
    if candidate.fenced {
        return Some("a rule of the pool keeps this client's network from it".to_owned());
    }
    if let Standing::Out(why) = candidate.standing {
        return Some(out_in_words(candidate, why, pool));
    }
    let winner = winner?;
    let beaten_by = world.topology.region_name(winner.region);
    Some(if candidate.weight <= 0.0 {
        "its weight is 0".to_owned()
    } else if candidate.entry == Entry::Full {
        let percent = candidate.accepts * 100.0;
        format!("it has room for {percent:.1} % of those who choose it, and not for this one")
    } else if candidate.entry == Entry::NotYet {
        let percent = candidate.ramp * 100.0;
        format!("it returns step by step: {percent:.0} % of its own now, and not this one yet")
    } else if candidate.tier > winner.tier {
        format!(
            "priority {} comes after {beaten_by}'s {}",
            candidate.tier, winner.tier
        )
    } else if !candidate.in_band {
        format!(
            "{:.1} ms is too far above the nearest to share; {beaten_by} has {:.1} ms",
            candidate.latency_ms, winner.latency_ms
        )
    } else if candidate.share > 0.0 {
        format!(
            "gets {:.1} % of such clients; this one was drawn for {beaten_by}",
            candidate.share * 100.0
        )
    } else {
        format!(
            "{beaten_by} comes first: {:.1} ms against {:.1} ms",
            winner.latency_ms, candidate.latency_ms
        )
    })
}

fn out_in_words(candidate: &Candidate, why: OutReason, pool: Option<&Pool>) -> String {
    match why {
        OutReason::Failed => {
            let threshold = pool.map_or_else(String::new, |pool| {
                format!("; the failover threshold is {}", pool.failover.threshold)
            });
            format!(
                "failed: {} of {} endpoints usable{threshold}",
                candidate.healthy, candidate.total
            )
        }
        OutReason::HoldDown { until } => {
            format!("well again, but held down until {}", rfc3339(until))
        }
        OutReason::FailedOver => "failed over by the operator".to_owned(),
        OutReason::Draining => "drained by the operator".to_owned(),
        OutReason::Empty => "has no endpoints".to_owned(),
    }
}

fn word_on(region: &str, overview: &Overview) -> Option<&'static str> {
    let about = |one: &&Override| matches!(&one.subject, crate::overrides::Subject::Region(name) if &**name == region);
    overview
        .overrides
        .iter()
        .find(about)
        .map(|one| one.wish.as_str())
}

fn restored_age(overview: &Overview) -> Option<Duration> {
    overview
        .restored_at
        .map(|written| overview.started_at.since(written))
}

const fn degrees(location: Location) -> [f32; 2] {
    [location.latitude(), location.longitude()]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds to the microsecond.
fn fraction_ms(duration: Duration) -> f64 {
    round(duration.as_secs_f64() * 1_000.0, 3)
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// `2026-01-02T03:04:05.678Z` (RFC 3339 section 5.6).
pub(super) fn rfc3339(at: Timestamp) -> String {
    let nanos = i128::from(at.as_millis()) * 1_000_000;
    // RFC 3339 ends with the year 9999.
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .unwrap_or(PrimitiveDateTime::MAX.assume_utc());
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, milli) = time.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_over_leap_days_and_ends_of_years() {
        let written = |millis| rfc3339(Timestamp::from_millis(millis));
        assert_eq!(written(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(written(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(written(1_767_225_599_000), "2025-12-31T23:59:59.000Z");
        assert_eq!(written(1_767_225_600_000), "2026-01-01T00:00:00.000Z");
        assert_eq!(written(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn an_order_with_a_key_that_is_not_known_is_refused_with_its_place() {
        let (message, malformed) = parse_order(br#"{"target": "eu", "dryrun": true}"#).unwrap_err();
        assert!(
            message.contains("dryrun") && message.contains("column"),
            "{message}"
        );
        assert!(!malformed);
        assert!(parse_order(b"{").unwrap_err().1);
    }
}
