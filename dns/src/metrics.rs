//! Names, units and labels of this crate's metrics. Counts only; exposes nothing.
//!
//! Labels come from enums and from region names, so the configuration bounds their number.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use sealane_model::{RegionId, Topology};
use sealane_steering::Reason;

use crate::alias::Source;
use crate::config;
use crate::cookie::Proof;
use crate::dnssec::timing::Moment;
use crate::engine::{Answered, Transport};
use crate::name::Name;
use crate::rules::Rules;
use crate::transfer::book::Status;
use crate::wire::Rcode;

/// Tells the recorder what each metric means. To be called once the recorder is installed.
pub fn describe() {
    describe_signing();
    describe_aliases();
    describe_transfers();
    let count = Unit::Count;
    describe_counter!(
        "dns_questions_total",
        count,
        "Messages received, by transport."
    );
    describe_counter!(
        "dns_answers_total",
        count,
        "Answers sent, by transport and response code."
    );
    describe_counter!(
        "dns_zone_answers_total",
        count,
        "Answers sent, by zone, transport and response code. What no zone of ours is asked for is (none); from the 257th zone on all are (other)."
    );
    describe_counter!(
        "dns_zone_steered_answers_total",
        count,
        "Answers for steered names, by zone and reason."
    );
    describe_counter!(
        "dns_tap_written_total",
        count,
        "Records of questions written, to the query log or by dnstap (one for a question and one for its answer)."
    );
    describe_counter!(
        "dns_tap_dropped_total",
        count,
        "Questions of the sample that were not told because too many waited to be written, by where to: log or dnstap."
    );
    describe_counter!(
        "dns_tap_lost_total",
        count,
        "dnstap's records that nobody took: no reader, or one that went away or was too slow."
    );
    describe_counter!(
        "dns_ignored_total",
        count,
        "Messages that get no answer: answers, and what is shorter than a header."
    );
    describe_counter!(
        "dns_truncated_total",
        count,
        "Answers too long for their datagram; the asker comes back by TCP."
    );
    describe_counter!(
        "dns_limited_total",
        count,
        "Answers over UDP that were above their network's rate, by what was done: dropped, shortened, or asked for a cookie."
    );
    describe_counter!(
        "dns_cookies_total",
        count,
        "Questions with a DNS cookie, by whether it was ours and held (proven) or not (new)."
    );
    describe_counter!(
        "dns_client_subnet_total",
        count,
        "Questions that told their client's subnet (EDNS Client Subnet)."
    );
    describe_counter!(
        "dns_steered_answers_total",
        count,
        "Answers for steered names, by reason."
    );
    describe_counter!(
        "dns_canary_answers_total",
        count,
        "Answers for steered names that led to the name's canary."
    );
    describe_counter!(
        "dns_region_answers_total",
        count,
        "Answers for steered names, by the region that came first."
    );
    describe_counter!(
        "dns_udp_errors_total",
        count,
        "Datagrams that the system would not take or give, by operation."
    );
    describe_gauge!(
        "dns_tcp_connections",
        count,
        "Connections open now, by what they carry: tcp, tls, https or, over UDP, quic."
    );
    describe_counter!(
        "dns_tcp_connections_refused_total",
        count,
        "Connections closed at once because too many were open, in all or from one client, by what they would have carried."
    );
    describe_counter!(
        "dns_handshakes_failed_total",
        count,
        "Connections whose handshake failed or took too long, by transport."
    );
    describe_counter!(
        "dns_quic_retries_total",
        count,
        "Clients over QUIC that were to show first that they receive what is sent to them."
    );
    describe_counter!(
        "dns_requests_refused_total",
        count,
        "Requests over HTTPS that hold no question, by status."
    );
    describe_counter!(
        "dns_thread_failures_total",
        count,
        "Threads that failed by a fault of Sealane's own and began anew."
    );
    describe_gauge!(
        "dns_names",
        count,
        "Names served, those without data of their own included."
    );
}

/// Tells the recorder of what concerns aliases.
fn describe_aliases() {
    describe_counter!(
        "dns_alias_lookups_total",
        Unit::Count,
        "Look-ups of what aliases lead to, by result: found or failed."
    );
    describe_gauge!(
        "dns_aliases_failing",
        Unit::Count,
        "Targets of aliases that could not be looked up last time: their last addresses stay, if there are any."
    );
    describe_gauge!(
        "dns_alias_age_seconds",
        Unit::Seconds,
        "Since when an alias's addresses are known, by target."
    );
}

/// Tells the recorder of what concerns zones that are transferred.
fn describe_transfers() {
    describe_counter!(
        "dns_transfers_out_total",
        Unit::Count,
        "Transfers of zones to other servers, by zone, kind (axfr, ixfr) and result."
    );
    describe_counter!(
        "dns_transfers_in_total",
        Unit::Count,
        "Times that primaries were asked for a zone, by zone, what came (axfr, ixfr, soa: nothing newer, none) and result."
    );
    describe_counter!(
        "dns_notifies_total",
        Unit::Count,
        "Servers told that a zone changed, by zone and result: answered, or given up."
    );
    describe_gauge!(
        "dns_zone_serial",
        Unit::Count,
        "Serial of a zone that is transferred; none while there is nothing to serve."
    );
    describe_gauge!(
        "dns_zone_heard_at_seconds",
        Unit::Seconds,
        "When a primary of the zone was last heard of, in seconds since 1970."
    );
    describe_gauge!(
        "dns_zone_expires_at_seconds",
        Unit::Seconds,
        "When a secondary zone expires if no primary is heard of, in seconds since 1970."
    );
}

/// Tells the recorder of what concerns signed zones.
fn describe_signing() {
    describe_counter!(
        "dns_signatures_made_total",
        Unit::Count,
        "DNSSEC signatures made, by when: while zones are compiled, or on the way (ahead of questions, and for them)."
    );
    describe_counter!(
        "dns_signatures_kept_total",
        Unit::Count,
        "DNSSEC signatures taken over from before when zones were compiled anew."
    );
    describe_counter!(
        "dns_signatures_refused_total",
        Unit::Count,
        "Answers that needed a new DNSSEC signature when this second's were used up: they were SERVFAIL."
    );
    describe_gauge!(
        "dns_signed_sets",
        Unit::Count,
        "Sets of steered names whose signatures are kept, by zone."
    );
    describe_gauge!(
        "dns_signature_expires_at_seconds",
        Unit::Seconds,
        "When the signature that ends first ends, in seconds since 1970, by zone."
    );
}

/// What concerns signed zones; shown by the one thread that signs.
#[derive(Default)]
pub(crate) struct Signing {
    /// What each zone's counters said when they were last added, and when it was compiled.
    seen: HashMap<Name, (Moment, u64, u64)>,
}

impl Signing {
    pub(crate) fn show(&mut self, rules: &Rules) {
        for (zone, sealed) in rules.table.sealed() {
            let label = zone.apex.to_string();
            let made = sealed.kept.made.load(Ordering::Relaxed);
            let refused = sealed.kept.refused.load(Ordering::Relaxed);
            let before = self
                .seen
                .insert(zone.apex.clone(), (sealed.made_at, made, refused));
            let before = before.filter(|(made_at, ..)| *made_at == sealed.made_at);
            if before.is_none() {
                counter!("dns_signatures_made_total", "when" => "compiled").increment(sealed.made);
                counter!("dns_signatures_kept_total").increment(sealed.taken_over);
            }
            let (_, made_before, refused_before) = before.unwrap_or_default();
            counter!("dns_signatures_made_total", "when" => "on_the_way")
                .increment(made.saturating_sub(made_before));
            counter!("dns_signatures_refused_total")
                .increment(refused.saturating_sub(refused_before));
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            let (sets, expires) = (sealed.kept.len() as f64, sealed.expiration.0 as f64);
            gauge!("dns_signed_sets", "zone" => label.clone()).set(sets);
            gauge!("dns_signature_expires_at_seconds", "zone" => label).set(expires);
        }
    }
}

/// What concerns aliases; shown by the one thread that looks them up.
#[derive(Default)]
pub(crate) struct Aliases {
    /// Of targets that were found once, when it was.
    ages: HashMap<Name, Gauge>,
}

impl Aliases {
    pub(crate) fn show(&mut self, sources: &[Arc<Source>], now: u32) {
        let failing = sources.iter().filter(|source| source.known().failures > 0);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 names")]
        gauge!("dns_aliases_failing").set(failing.count() as f64);
        for source in sources {
            let Some(found_at) = source.known().found_at() else {
                continue;
            };
            let gauge = self.ages.entry(source.target.clone()).or_insert_with_key(
                |target| gauge!("dns_alias_age_seconds", "target" => target.to_string()),
            );
            gauge.set(f64::from(now.saturating_sub(found_at)));
        }
    }
}

pub(crate) fn count_alias_lookup(found: bool) {
    let result = if found { "found" } else { "failed" };
    counter!("dns_alias_lookups_total", "result" => result).increment(1);
}

/// Words of [`sealane_steering::Reason`], in the order of [`reason_index`].
const REASONS: [&str; Reason::WORDS] = [
    "weighted_latency",
    "nearest",
    "weighted",
    "priority",
    "pinned",
    "failed_over",
    "hold_down_ignored",
    "all_down",
    "no_data",
    "fallback",
    "no_members",
    "spilled",
    "ramping",
    "no_room",
    "confined",
    "panic",
];

fn reason_index(word: &str) -> Option<usize> {
    REASONS.iter().position(|reason| *reason == word)
}

/// Zones that are counted by themselves; further ones are counted together.
const ZONES_COUNTED_MAX: usize = 256;

/// What is counted by zone: handles, made when something is counted for the first time by these rules.
#[derive(Debug)]
pub(crate) struct ZoneCounters {
    /// Of the first zones, then of all others, then of what is in none.
    zones: Vec<OneZone>,
}

#[derive(Debug)]
struct OneZone {
    label: String,
    answers: [[OnceLock<Counter>; Rcode::ALL.len()]; Transport::ALL.len()],
    reasons: [OnceLock<Counter>; REASONS.len()],
}

impl ZoneCounters {
    pub(crate) fn new(zones: &[config::Zone]) -> Self {
        let named = zones.iter().take(ZONES_COUNTED_MAX);
        let labels = named.map(|zone| zone.apex.to_string());
        let rest = ["(other)", "(none)"].map(str::to_owned);
        Self {
            zones: labels.chain(rest).map(OneZone::new).collect(),
        }
    }

    /// Its place in the table.
    fn place(&self, zone: Option<u32>) -> usize {
        let other = self.zones.len().saturating_sub(2);
        zone.map_or(other + 1, |zone| (zone as usize).min(other))
    }

    fn add(&self, counted: &OfZone, transport: Transport) {
        let Some(zone) = self.zones.get(self.place(counted.zone)) else {
            return;
        };
        let label = &zone.label;
        let answers = &zone.answers[transport as usize];
        for ((number, counter), code) in counted.answers.iter().zip(answers).zip(Rcode::ALL) {
            if *number > 0 {
                let made = || counter!("dns_zone_answers_total", "zone" => label.clone(), "transport" => transport.as_str(), "code" => code.as_str());
                counter.get_or_init(made).increment((*number).into());
            }
        }
        if !counted.is_steered {
            return;
        }
        for ((number, counter), reason) in counted.reasons.iter().zip(&zone.reasons).zip(REASONS) {
            if *number > 0 {
                let made = || counter!("dns_zone_steered_answers_total", "zone" => label.clone(), "reason" => reason);
                counter.get_or_init(made).increment((*number).into());
            }
        }
    }
}

impl OneZone {
    fn new(label: String) -> Self {
        Self {
            label,
            answers: Default::default(),
            reasons: Default::default(),
        }
    }
}

/// What was counted of one zone over a batch of questions.
#[derive(Clone, Default)]
struct OfZone {
    zone: Option<u32>,
    answers: [u32; Rcode::ALL.len()],
    reasons: [u32; REASONS.len()],
    is_steered: bool,
}

/// Handles of one transport's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    transport: Transport,
    questions: Counter,
    ignored: Counter,
    truncated: Counter,
    client_subnet: Counter,
    cookies: [Counter; 2],
    limited: [Counter; 3],
    answers: [Counter; Rcode::ALL.len()],
    reasons: [Counter; REASONS.len()],
    canaries: Counter,
    pub(crate) receive_errors: Counter,
    pub(crate) send_errors: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) handshakes_failed: Counter,
}

impl Metrics {
    pub(crate) fn new(transport: Transport) -> Self {
        let of = transport;
        let transport = transport.as_str();
        Self {
            transport: of,
            questions: counter!("dns_questions_total", "transport" => transport),
            ignored: counter!("dns_ignored_total", "transport" => transport),
            truncated: counter!("dns_truncated_total"),
            client_subnet: counter!("dns_client_subnet_total"),
            cookies: ["new", "proven"].map(|proof| counter!("dns_cookies_total", "proof" => proof)),
            limited: ["dropped", "shortened", "cookie"]
                .map(|action| counter!("dns_limited_total", "action" => action)),
            answers: Rcode::ALL.map(|rcode| {
                counter!("dns_answers_total", "transport" => transport, "code" => rcode.as_str())
            }),
            reasons: REASONS.map(|reason| counter!("dns_steered_answers_total", "reason" => reason)),
            canaries: counter!("dns_canary_answers_total"),
            receive_errors: counter!("dns_udp_errors_total", "operation" => "receive"),
            send_errors: counter!("dns_udp_errors_total", "operation" => "send"),
            connections: gauge!("dns_tcp_connections", "transport" => transport),
            connections_refused: counter!("dns_tcp_connections_refused_total", "transport" => transport),
            handshakes_failed: counter!("dns_handshakes_failed_total", "transport" => transport),
        }
    }
}

pub(crate) fn count_refused_request(status: &'static str) {
    counter!("dns_requests_refused_total", "status" => status).increment(1);
}

pub(crate) fn count_quic_retry() {
    counter!("dns_quic_retries_total").increment(1);
}

/// Primaries were asked for a zone.
pub(crate) fn count_transfer_in(zone: &Name, kind: &'static str, is_whole: bool) {
    let result = if is_whole { "succeeded" } else { "failed" };
    counter!("dns_transfers_in_total", "zone" => zone.to_string(), "kind" => kind, "result" => result)
        .increment(1);
}

/// A server was told that a zone changed.
pub(crate) fn count_notice(zone: &Name, result: &'static str) {
    counter!("dns_notifies_total", "zone" => zone.to_string(), "result" => result).increment(1);
}

/// How a zone that is transferred stands.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(crate) fn show_zone(status: &Status) {
    let zone = || status.zone.clone();
    gauge!("dns_zone_serial", "zone" => zone()).set(status.serial.map_or(f64::NAN, f64::from));
    if !status.is_secondary {
        return;
    }
    gauge!("dns_zone_heard_at_seconds", "zone" => zone())
        .set(status.heard_at.map_or(f64::NAN, |at| at as f64));
    gauge!("dns_zone_expires_at_seconds", "zone" => zone())
        .set(status.expires_at.map_or(f64::NAN, |at| at as f64));
}

/// A transfer to another server ended.
pub(crate) fn count_transfer_out(zone: &Name, kind: &'static str, is_whole: bool) {
    let result = if is_whole { "succeeded" } else { "failed" };
    counter!("dns_transfers_out_total", "zone" => zone.to_string(), "kind" => kind, "result" => result)
        .increment(1);
}

pub(crate) fn count_thread_failure() {
    counter!("dns_thread_failures_total").increment(1);
}

pub(crate) fn set_names(names: usize) {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 names")]
    gauge!("dns_names").set(names as f64);
}

/// Plain numbers, gathered over a batch of questions and added to the shared counters at its end:
/// threads that answer do not meet on a counter's cache line for each question.
#[derive(Default)]
pub(crate) struct Tally {
    questions: u64,
    ignored: u64,
    truncated: u64,
    client_subnet: u64,
    /// New, proven.
    cookies: [u64; 2],
    /// Dropped, shortened, asked for a cookie.
    limited: [u64; 3],
    answers: [u64; Rcode::ALL.len()],
    reasons: [u64; REASONS.len()],
    canaries: u64,
    /// One for each zone that was asked for, the last one last.
    zones: Vec<OfZone>,
    /// By [`RegionId::index`]; as long as the largest id seen, at most 65,536.
    regions: Vec<u64>,
    /// Handles, by the same index. A region keeps its id and name as long as the process lives.
    region_counters: Vec<Option<Counter>>,
}

impl Tally {
    pub(crate) fn record(&mut self, answered: Option<&Answered>) {
        self.questions += 1;
        let Some(answered) = answered else {
            self.ignored += 1;
            return;
        };
        self.answers[answered.rcode.index()] += 1;
        self.truncated += u64::from(answered.truncated);
        self.client_subnet += u64::from(answered.client_subnet);
        self.cookies[0] += u64::from(answered.proof == Proof::Asks);
        self.cookies[1] += u64::from(answered.proof == Proof::Proven);
        let zone = self.zone(answered.zone);
        zone.answers[answered.rcode.index()] += 1;
        let Some(steered) = answered.steered else {
            return;
        };
        if let Some(index) = reason_index(steered.reason.as_str()) {
            self.reasons[index] += 1;
            let zone = self.zone(answered.zone);
            zone.reasons[index] += 1;
            zone.is_steered = true;
        }
        self.canaries += u64::from(steered.canary);
        if let Some(region) = steered.region {
            if self.regions.len() <= region.index() {
                self.regions.resize(region.index() + 1, 0);
            }
            self.regions[region.index()] += 1;
        }
    }

    /// Most questions in a row are of one zone.
    fn zone(&mut self, zone: Option<u32>) -> &mut OfZone {
        let known = self.zones.iter().rposition(|of| of.zone == zone);
        let place = known.unwrap_or_else(|| {
            self.zones.push(OfZone {
                zone,
                ..OfZone::default()
            });
            self.zones.len() - 1
        });
        &mut self.zones[place]
    }

    /// A question whose answer was above its network's rate; what is sent instead, if anything.
    pub(crate) fn limited(&mut self, instead: Option<&Answered>) {
        let action = match instead {
            None => 0,
            Some(short) if short.rcode == Rcode::BadCookie => 2,
            Some(_) => 1,
        };
        self.limited[action] += 1;
        match instead {
            Some(_) => self.record(instead),
            None => self.questions += 1,
        }
    }

    /// Adds everything to the shared counters and begins anew.
    pub(crate) fn flush(&mut self, metrics: &Metrics, rules: &Rules, topology: &Topology) {
        for counted in self.zones.drain(..) {
            rules.zones.add(&counted, metrics.transport);
        }
        add(&metrics.questions, &mut self.questions);
        add(&metrics.ignored, &mut self.ignored);
        add(&metrics.truncated, &mut self.truncated);
        add(&metrics.client_subnet, &mut self.client_subnet);
        for (counter, number) in metrics.cookies.iter().zip(&mut self.cookies) {
            add(counter, number);
        }
        for (counter, number) in metrics.limited.iter().zip(&mut self.limited) {
            add(counter, number);
        }
        for (counter, number) in metrics.answers.iter().zip(&mut self.answers) {
            add(counter, number);
        }
        for (counter, number) in metrics.reasons.iter().zip(&mut self.reasons) {
            add(counter, number);
        }
        add(&metrics.canaries, &mut self.canaries);
        self.region_counters
            .resize_with(self.regions.len(), || None);
        let regions = self.regions.iter_mut().zip(&mut self.region_counters);
        for (index, (number, counter)) in regions.enumerate() {
            if *number == 0 {
                continue;
            }
            let counter = counter.get_or_insert_with(|| region_counter(index, topology));
            add(counter, number);
        }
    }
}

fn region_counter(index: usize, topology: &Topology) -> Counter {
    let region = RegionId::from_index(index);
    let name = region.map_or("?", |region| topology.region_name(region));
    counter!("dns_region_answers_total", "region" => name.to_owned())
}

fn add(counter: &Counter, number: &mut u64) {
    if *number != 0 {
        counter.increment(std::mem::take(number));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use metrics::{Histogram, Key, KeyName, Metadata, Recorder, SharedString, with_local_recorder};

    use super::*;
    use crate::record::parse_zone_file;
    use sealane_model::Ttl;

    /// Counters by name and labels.
    #[derive(Default)]
    struct Counted(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Recorder for Counted {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
            let name = format!("{} {}", key.name(), labels.join(" "));
            Counter::from_arc(self.0.lock().unwrap().entry(name).or_default().clone())
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn rules(zones: usize) -> Rules {
        let zones = (0..zones).map(|number| {
            let apex = Name::parse(&format!("z{number}.test"), None).unwrap();
            let file = parse_zone_file("@ SOA a b 1 2 3 4 5", &apex, Ttl::from_secs(60)).unwrap();
            config::Zone::new(apex, file.soa.unwrap(), file.records)
        });
        let geo = sealane_steering::GeoTable::empty();
        Rules::compile(&config::Config::new(zones.collect(), Arc::new(geo)))
    }

    #[test]
    fn answers_are_counted_by_zone_and_of_many_zones_the_last_ones_together() {
        let counted = Counted::default();
        with_local_recorder(&counted, || {
            let rules = rules(ZONES_COUNTED_MAX + 3);
            let (metrics, mut tally) = (Metrics::new(Transport::Stream), Tally::default());
            let answered = |zone, rcode, steered| Answered {
                length: 12,
                rcode,
                truncated: false,
                client_subnet: false,
                steered,
                proof: Proof::Silent,
                said: crate::limit::Said::Error,
                zone,
            };
            let to = crate::engine::SteeredTo {
                region: None,
                reason: Reason::Nearest,
                canary: false,
            };
            for zone in [Some(0), Some(1), Some(0), Some(256), Some(258), None] {
                tally.record(Some(&answered(zone, Rcode::NoError, None)));
            }
            tally.record(Some(&answered(Some(1), Rcode::NxDomain, None)));
            tally.record(Some(&answered(Some(1), Rcode::NoError, Some(to))));
            tally.flush(&metrics, &rules, &Topology::default());
            tally.record(Some(&answered(Some(0), Rcode::NoError, None)));
            tally.flush(&metrics, &rules, &Topology::default());
        });
        let counters = counted.0.into_inner().unwrap();
        let by_zone: std::collections::BTreeMap<_, _> = counters
            .iter()
            .filter_map(|(name, number)| Some((name.strip_prefix("dns_zone_")?, number)))
            .map(|(name, number)| (name, number.load(Ordering::Relaxed)))
            .collect();
        let expected = [
            ("answers_total (none) tcp noerror", 1),
            ("answers_total (other) tcp noerror", 2),
            ("answers_total z0.test tcp noerror", 3),
            ("answers_total z1.test tcp noerror", 2),
            ("answers_total z1.test tcp nxdomain", 1),
            ("steered_answers_total z1.test nearest", 1),
        ];
        assert_eq!(by_zone, expected.into());
    }

    #[test]
    fn every_reason_has_its_counter() {
        let region = RegionId::from_index(0).unwrap();
        let reasons = [
            Reason::WeightedLatency,
            Reason::Nearest,
            Reason::Weighted,
            Reason::Priority,
            Reason::Pinned,
            Reason::FailedOver { from: region },
            Reason::HoldDownIgnored,
            Reason::AllDown,
            Reason::NoData,
            Reason::Fallback,
            Reason::NoMembers,
            Reason::Spilled { from: region },
            Reason::Ramping { from: region },
            Reason::NoRoom,
            Reason::Confined,
            Reason::Panic,
        ];
        for (place, reason) in reasons.iter().enumerate() {
            assert_eq!(reason_index(reason.as_str()), Some(place));
        }
    }
}
