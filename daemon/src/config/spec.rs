//! The configuration file word for word: every key, its type, its range and its default.
//!
//! Checks no more than one key at a time; what keys have to do with each other is `parse`'s. Each
//! default is what a careful operator would choose; the reasons are in `docs/CONFIG.md`.

use serde_json::{Map, Value, json};

use super::bounds::{
    ConcurrencySpec, Frequency, PoolBulkheadSpec, RateLimitSpec, RouteBulkheadSpec, TenantSpec,
};
use super::decode::{At, Decoder, List, OneOrMany, Out, Shape, Table, choice, emit, shape};
use super::error::Mistake;
use super::unit::{
    Bind, Degrees, Flag, HedgeAfterText, Host, Ip, Lifetime, MoreErrors, Net, Period, Reach,
    RedirectStatus, RetryWord, Seconds, Secret, Share, Size, SizeOrNone, Statuses, Text, Times,
    TlsVersionText, UnhealthyShare, Version, Whole,
};
use super::yaml::{Kind, Node};

/// A weight (`sealane_model::Weight`).
pub type WeightNumber = Whole<0, 1_000_000>;
/// A period of probing: 100 ms – 1 h.
pub type ProbePeriod = Period<100, 3_600_000>;
/// A time limit of the data plane: 1 ms – 1 h.
pub type Limit = Period<1, 3_600_000>;
/// How long a session may be silent, or live: 1 ms – 7 days.
pub type SessionPeriod = Period<1, 604_800_000>;
/// The number of an autonomous system (RFC 6793).
pub type SystemNumber = Whole<1, 4_294_967_295>;
/// A TTL: 0 – 7 days.
pub type TtlText = Lifetime<0, 604_800>;

shape! {
    /// The whole configuration file of Sealane.
    FileSpec {
        /// The version of this format: 1. May be left out only where `global_load_balancer` stands alone.
        version: Version,
        /// This process.
        node: NodeSpec = "{}",
        /// Regions by name. Well-known cloud regions need no entry.
        regions: Table<RegionSpec> = "{}",
        /// What is said of every pool and route that does not say otherwise.
        defaults: DefaultsSpec,
        /// Sets of endpoints that serve the same thing, by name.
        pools: Table<PoolSpec> = "{}",
        /// Addresses on which clients are served, by name.
        listeners: Table<ListenerSpec> = "{}",
        /// Which requests go to which pool.
        routes: List<RouteSpec> = "[]",
        /// The authoritative name server and geography.
        dns: DnsSpec,
        /// From whom certificates are ordered, for listeners that name them by `acme`.
        acme: AcmeSpec,
        /// The admin API.
        admin: AdminSpec = "{}",
        /// Bounds on what one client can make the proxy hold.
        limits: LimitsSpec = "{}",
        /// Networks whose X-Forwarded-For and X-Request-Id are believed.
        trusted_proxies: List<Net> = "[]",
        /// Secrets by which sticky cookies are made (the first) and honoured (all): references such as
        /// `file:sticky.key`, the same on every node.
        sticky_keys: OneOrMany<Secret> = "[]",
        /// Header field in which trusted proxies say how much a request matters (1–4), and endpoints are told. Nobody says when left out.
        tier_header: Text,
        /// Say in the headers x-sealane-region and x-sealane-endpoint who answered.
        name_endpoint: Flag = "false",
        /// A global load balancer in short form.
        global_load_balancer: GlbSpec,
    }
    later ["include", "cluster", "runbooks", "tenants", "telemetry", "tracing", "services"]
}

shape! {
    /// This process.
    NodeSpec {
        /// The node's name in logs and in the admin API. The host's name when left out.
        name: Text,
        /// The region in which this node stands.
        region: Text,
        /// The availability zone in that region in which it stands: endpoints there come first.
        az: Text,
        /// Directory in which the health map and ordered certificates are kept over a restart.
        state_dir: Text,
        /// Threads that carry traffic. One for each core when left out.
        workers: Whole<1, 1024>,
        /// No listener opens before the first round of probes ended or this passed.
        first_round_limit: Period<0, 600_000> = "10s",
        /// How long accepted work may go on after a stop was asked for.
        drain_limit: Period<0, 3_600_000> = "30s",
        /// How long a new program may take to be ready at an upgrade; then the old one stays.
        upgrade_limit: Period<100, 3_600_000> = "60s",
    }
    later ["zone", "user", "group"]
}

shape! {
    /// A region: the unit of geography and failover.
    RegionSpec {
        /// Latitude and longitude in degrees. Known for well-known cloud regions.
        location: Point,
    }
    later ["capacity", "cost", "azs", "fallback"]
}

shape! {
    /// What is said of every pool and route that does not say otherwise.
    DefaultsSpec {
        /// For every pool.
        pool: PoolDefaultsSpec,
        /// For every route.
        route: RouteDefaultsSpec,
    }
}

shape! {
    /// What is said of every pool that does not say otherwise.
    PoolDefaultsSpec {
        /// How HTTP is spoken to the endpoints.
        protocol: Protocol,
        /// Speak TLS to the endpoints, and how both sides prove who they are.
        tls: EndpointTlsSpec,
        /// How endpoints are checked.
        probe: ProbeSpec,
        /// How regions are ordered for a client.
        steering: SteeringSpec,
        /// When a region leaves and returns.
        failover: FailoverSpec,
        /// How many requests may be at its endpoints in one region at once.
        concurrency: ConcurrencySpec,
        /// What it can be asked for at once.
        bulkhead: PoolBulkheadSpec,
        /// How a region's endpoints share its work.
        balance: BalanceChoice,
        /// When an endpoint is left out for what live requests saw.
        ejection: EjectionChoice,
    }
    later ["tier"]
}

shape! {
    /// What is said of every route that does not say otherwise.
    RouteDefaultsSpec {
        /// Time limits of requests.
        timeouts: TimeoutsSpec,
        /// When a request is tried again.
        retry: RetrySpec,
        /// A second attempt beside a slow one.
        hedge: HedgeSpec,
        /// Largest request body.
        body_max: SizeOrNone,
        /// Changes to the headers that endpoints see.
        request_headers: HeadersSpec,
        /// Changes to the headers that clients see.
        response_headers: HeadersSpec,
        /// Nobody gets through but some.
        maintenance: MaintenanceSpec,
        /// Which other origins' pages may read answers.
        cors: CorsSpec,
        /// Which answers are compressed.
        compression: CompressionSpec,
        /// Which requests share an attempt.
        coalesce: CoalesceSpec,
        /// How much its requests matter.
        tier: Whole<1, 4>,
        /// On whose behalf requests come.
        tenant: TenantSpec,
        /// What it can be asked for at once.
        bulkhead: RouteBulkheadSpec,
        /// How often requests may come.
        rate_limit: List<RateLimitSpec>,
    }
    later ["rate", "split"]
}

shape! {
    /// A named set of endpoints that serve the same thing, in one or more regions.
    PoolSpec {
        /// How HTTP is spoken to the endpoints: `http` (HTTP/1.1) or `h2`.
        protocol: Protocol = "http",
        /// Speak TLS to all of its endpoints. What an endpoint says itself wins, key by key.
        tls: EndpointTlsSpec,
        /// Tell endpoints who the client is, in a PROXY header before its first byte. For `tcp` and `tls_passthrough`.
        proxy_protocol: ProxyProtocolWord = "none",
        /// What the pool has in each region.
        regions: Table<MemberSpec> = required,
        /// How endpoints are checked. A TCP probe when left out.
        probe: ProbeSpec = "{}",
        /// How regions are ordered for a client.
        steering: SteeringSpec = "{}",
        /// When a region leaves and returns, and what happens when none is left.
        failover: FailoverSpec = "{}",
        /// How many requests may be at its endpoints in one region at once: `off`, `adaptive` (as many as latency says that they bear) or `{max: N}`.
        concurrency: ConcurrencySpec = "off",
        /// What it can be asked for at once, in all regions together. Not bounded when left out.
        bulkhead: PoolBulkheadSpec,
        /// How a region's endpoints share its work.
        balance: BalanceChoice = "{}",
        /// When an endpoint is left out for what live requests saw of it; `off`: never.
        ejection: EjectionChoice = "{}",
    }
    later ["tier", "discovery", "sticky", "role"]
}

/// How a region's endpoints share its work: a map, or the policy's word alone.
#[derive(Clone, Debug, PartialEq)]
pub struct BalanceChoice(pub BalanceSpec);

impl Shape for BalanceChoice {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Scalar(_)) {
            return BalanceSpec::decode(node, decoder).map(Self);
        }
        let policy = At::new(BalanceWord::decode(node, decoder)?, node.span);
        Some(Self(BalanceSpec {
            span: node.span,
            policy: Some(policy),
            ..BalanceSpec::default()
        }))
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let (word, spec) = (BalanceWord::schema(defs), BalanceSpec::schema(defs));
        json!({ "anyOf": [word, spec] })
    }

    fn emit(&self) -> Out {
        self.0.emit()
    }

    fn fill(&mut self) {
        self.0.fill();
    }

    fn inherit(&mut self, from: &Self) {
        self.0.inherit(&from.0);
    }
}

shape! {
    /// How a region's endpoints share its work.
    BalanceSpec {
        /// What decides.
        policy: BalanceWord = "least_loaded",
        /// For `ring_hash`: `client_ip`, `{header: NAME}` or `{cookie: NAME}`. `client_ip` when left out.
        key: HashKeySpec,
        /// An endpoint that comes up gets its whole share only after this; `0s`: at once.
        slow_start: Period<0, 3_600_000> = "30s",
        /// Below this share of usable endpoints in a region, all of them are used; `0%`: never.
        panic: Share = "0%",
    }
    later ["bound", "zones"]
}

choice! {
    /// What decides which endpoint of a region serves.
    BalanceWord {
        /// Of two, drawn by weight, the one with fewer requests in flight and less latency.
        LeastLoaded = "least_loaded",
        /// Each in turn, by weight.
        RoundRobin = "round_robin",
        /// The same key to the same endpoint, while that has room.
        RingHash = "ring_hash",
    }
    later ["random", "maglev", "first"]
}

/// What a request's endpoint follows from.
#[derive(Clone, Debug, PartialEq)]
pub enum HashKeySpec {
    ClientIp,
    Of(HashFieldSpec),
}

shape! {
    /// A header or a cookie.
    HashFieldSpec {
        /// A header's name.
        header: Text,
        /// A cookie's name.
        cookie: Text,
    }
}

impl Shape for HashKeySpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        const EXPECTED: &str = "`client_ip`, `{header: NAME}` or `{cookie: NAME}`";
        match &node.kind {
            Kind::Map(_) => HashFieldSpec::decode(node, decoder).map(Self::Of),
            Kind::Scalar(scalar) if &*scalar.text == "client_ip" => Some(Self::ClientIp),
            Kind::Scalar(scalar) => {
                let near = super::decode::nearest(&scalar.text, ["client_ip"]);
                let mistake: Mistake = decoder.wrong_type(node, EXPECTED).nearest(near);
                decoder.notes.mistake(mistake);
                None
            }
            Kind::List(_) => {
                let mistake = decoder.wrong_type(node, EXPECTED);
                decoder.notes.mistake(mistake);
                None
            }
        }
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let field = HashFieldSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["client_ip"] }, field] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::ClientIp => Out::Plain("client_ip".to_owned()),
            Self::Of(field) => field.emit(),
        }
    }
}

/// Whether, and when, an endpoint is left out for what live requests saw.
#[derive(Clone, Debug, PartialEq)]
pub enum EjectionChoice {
    Off,
    When(Box<EjectionSpec>),
}

shape! {
    /// When an endpoint is left out for what live requests saw of it: failures to connect or to answer in time, broken answers, and the statuses 500, 502, 503 (without `Retry-After`) and 504.
    EjectionSpec {
        /// Errors in a row.
        consecutive_errors: Whole<1, 1000> = "5",
        /// Share of good answers below which it is compared with the region's others; `0%`: it is not.
        success: Share = "85%",
        /// Requests in the last seconds below which that share says nothing.
        requests: Whole<1, 10_000> = "20",
        /// So many times the others' 95th percentile, three times in a row: its weight is cut, to a tenth at least. 0: it is not.
        latency: Whole<0, 100> = "3",
        /// How long, the first time; the n-th time n times as long …
        time: Period<1_000, 3_600_000> = "30s",
        /// … and never longer than this.
        time_max: Period<1_000, 86_400_000> = "5m",
        /// Share of a region's endpoints, and of those in each of its zones, that may be out at once; one always may where there are others.
        share_max: Share = "33%",
    }
    later ["interval", "statuses"]
}

impl Shape for EjectionChoice {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        const EXPECTED: &str = "`off`, or a map of keys such as `consecutive_errors`";
        match &node.kind {
            Kind::Map(_) => {
                EjectionSpec::decode(node, decoder).map(|spec| Self::When(Box::new(spec)))
            }
            Kind::Scalar(scalar) if &*scalar.text == "off" => Some(Self::Off),
            Kind::Scalar(_) | Kind::List(_) => {
                let mistake = decoder.wrong_type(node, EXPECTED);
                decoder.notes.mistake(mistake);
                None
            }
        }
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let spec = EjectionSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["off"] }, spec] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::Off => Out::Plain("off".to_owned()),
            Self::When(spec) => spec.emit(),
        }
    }

    fn fill(&mut self) {
        if let Self::When(spec) = self {
            spec.fill();
        }
    }

    fn inherit(&mut self, from: &Self) {
        if let (Self::When(own), Self::When(from)) = (self, from) {
            own.inherit(from);
        }
    }
}

choice! {
    /// Whether, and how, an endpoint is told who the client is.
    ProxyProtocolWord {
        /// It is not.
        None = "none",
        /// One line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

choice! {
    /// How HTTP is spoken to an endpoint.
    Protocol {
        /// HTTP/1.1.
        Http = "http",
        /// HTTP/2: by ALPN over TLS, by prior knowledge without.
        H2 = "h2",
    }
    later ["tcp", "udp", "tls", "h3"]
}

shape! {
    /// What a pool has in one region.
    MemberSpec {
        /// What DNS answers for this region: addresses, or `of_endpoints`.
        addresses: AddressesSpec = "of_endpoints",
        /// The region's share relative to the others'.
        weight: WeightNumber = "100",
        /// Tier: the lowest number that has a usable region is served from.
        priority: Whole<0, 65535> = "1",
        /// What this node may send here at most; what is more goes to the next best region, and is refused where none has room. No limit when left out.
        capacity: Frequency,
        /// Who serves here.
        endpoints: List<EndpointSpec> = required,
    }
    later ["cost", "azs"]
}

/// What DNS answers for a region.
#[derive(Clone, Debug, PartialEq)]
pub enum AddressesSpec {
    OfEndpoints,
    Fixed(Vec<At<Ip>>),
}

impl Shape for AddressesSpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if &*scalar.text == "of_endpoints" => Some(Self::OfEndpoints),
            _ => OneOrMany::<Ip>::decode(node, decoder).map(|list| Self::Fixed(list.0)),
        }
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let ips = OneOrMany::<Ip>::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["of_endpoints"] }, ips] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::OfEndpoints => Out::Plain("of_endpoints".to_owned()),
            Self::Fixed(list) => Out::List(list.iter().map(emit).collect()),
        }
    }
}

shape! {
    /// One address that serves.
    EndpointSpec {
        /// `host:port` or `address:port`.
        address: Reach = required,
        /// Availability zone within the region.
        az: Text,
        /// Its share relative to the region's other endpoints.
        weight: WeightNumber = "100",
        /// How HTTP is spoken to it. The pool's when left out.
        protocol: Protocol,
        /// Tell it who the client is. The pool's when left out.
        proxy_protocol: ProxyProtocolWord,
        /// Speak TLS to it, and how both sides prove who they are. The pool's when left out.
        tls: EndpointTlsSpec,
    }
    later ["role", "capacity", "backup", "tags"]
}

shape! {
    /// How an endpoint proves who it is, and how we do. Its name is always verified.
    EndpointTlsSpec {
        /// PEM file of the authorities that are believed, or `system` for the host's.
        ca: Text = "system",
        /// The name that its certificate must bear. The host of `address` when left out.
        server_name: Text,
        /// Our own certificate, shown to endpoints that ask for one. None when left out.
        certificate: CertificateSpec,
        /// The oldest version of TLS that is spoken.
        minimum: TlsVersionText = "\"1.2\"",
    }
    later ["alpn", "spiffe", "crl"]
}

shape! {
    /// How endpoints are checked: over HTTP or TCP.
    ProbeSpec {
        /// Passes when the answer to a GET is as expected.
        http: HttpProbeSpec,
        /// Passes when a connection opens (and TLS is agreed on where the endpoint speaks TLS).
        tcp: TcpProbeSpec,
        /// Probed instead of the endpoint's own port.
        port: Whole<1, 65535>,
        /// From the start of one probe to the start of the next, ± a tenth.
        interval: ProbePeriod = "5s",
        /// For the whole probe; below `interval`.
        timeout: ProbePeriod = "2s",
        /// Consecutive failures until an endpoint is down.
        fall: Whole<1, 100> = "2",
        /// Consecutive passes until a down endpoint is up.
        rise: Whole<1, 100> = "3",
        /// From the end of a first failed probe to the next one.
        recheck: Period<0, 3_600_000> = "500ms",
    }
    later [
        "grpc", "dns", "exec", "postgres", "patroni", "redis", "mongodb", "kafka", "vault", "tls",
        "steps", "lag",
    ]
    inherit keep_kind
    ; settle settle_probe
}

/// A pool that says how it is probed takes no other kind from the defaults.
fn keep_kind(own: &ProbeSpec, from: &ProbeSpec) -> ProbeSpec {
    let mut from = from.clone();
    if own.tcp.is_some() {
        from.http = None;
    }
    if own.http.is_some() {
        from.tcp = None;
    }
    from
}

fn settle_probe(probe: &mut ProbeSpec) {
    if probe.http.is_none() && probe.tcp.is_none() {
        probe.tcp = Some(At::unwritten(TcpProbeSpec::default()));
    }
}

shape! {
    /// A GET whose answer is judged.
    HttpProbeSpec {
        /// Its path, with a query where needed.
        path: Text = "/health",
        /// Statuses that pass.
        expect: OneOrMany<Statuses> = "200-299",
        /// The Host header. The endpoint's host name or address when left out.
        host: Text,
        /// Must occur in the first 64 KiB of the body.
        body_contains: Text,
    }
    later ["method", "headers", "body", "json"]
}

shape! {
    /// A connection that opens.
    TcpProbeSpec {}
    later ["send", "expect"]
}

shape! {
    /// How regions are ordered for a client.
    SteeringSpec {
        /// What decides.
        policy: Policy = "weighted_latency",
        /// Shares of regions, by name; for `weighted_latency` and `weighted`. Equal when left out.
        weights: Table<WeightNumber>,
        /// The region that serves; for `pinned`.
        region: Text,
        /// Clients whom some regions alone may serve. The first entry that names a client holds.
        clients: List<ClientsSpec>,
    }
    later ["sticky", "canary", "bias"]
}

shape! {
    /// Clients whom some regions alone may serve, also when these are down.
    ClientsSpec {
        /// The networks that the clients come from.
        nets: OneOrMany<Net> = "[]",
        /// The countries that they come from, by `dns.geo.database`: codes of ISO 3166-1, such as `DE`.
        countries: OneOrMany<Text> = "[]",
        /// The continents that they come from, by `dns.geo.database`: `AF`, `AN`, `AS`, `EU`, `NA`, `OC` or `SA`.
        continents: OneOrMany<Text> = "[]",
        /// The autonomous systems that they come from, by `dns.geo.asn`: their numbers.
        asns: OneOrMany<SystemNumber> = "[]",
        /// The regions that may serve them.
        regions: OneOrMany<Text> = required,
    }
    later ["headers"]
}

choice! {
    /// What decides which region serves a client.
    Policy {
        /// Among the regions that are near enough, by weight, health and latency.
        WeightedLatency = "weighted_latency",
        /// The least latency first.
        Nearest = "nearest",
        /// By weight alone.
        Weighted = "weighted",
        /// By tier alone; within a tier the least latency first.
        Priority = "priority",
        /// One region while it is usable.
        Pinned = "pinned",
    }
    later ["geo_fence", "cost", "load"]
}

shape! {
    /// When a region leaves and returns, and what happens when none is left.
    FailoverSpec {
        /// Share of endpoints down at which the region is out.
        threshold: Share = "50%",
        /// How long a region that went out stays out after it is well again.
        hold_down: Period<0, 86_400_000> = "60s",
        /// When no region is usable: `fail_open`, `no_data` or `{fallback: [addresses]}`.
        all_down: AllDownSpec = "fail_open",
        /// A promise that is checked: probes find a dead endpoint within this.
        detection_time: ProbePeriod,
        /// Below this share of usable endpoints, what still works in regions that are out serves too. 0%: never.
        panic: Share = "0%",
        /// How a region that returns gets its share back: `{steps, hold, max_errors}`, or `none` for at once.
        ramp: RampSpec = "{}",
    }
    later ["require_approval", "gate", "rto", "rpo"]
}

/// How a region that returns gets its share back.
#[derive(Clone, Debug, PartialEq)]
pub enum RampSpec {
    None,
    Steps(RampStepsSpec),
}

shape! {
    /// Step by step, each held by live errors.
    RampStepsSpec {
        /// Shares of what would be the region's own, ascending; the whole follows the last one.
        steps: List<Share> = "[5%, 25%, 50%]",
        /// How long each step lasts at least.
        hold: Period<100, 86_400_000> = "30s",
        /// A step with a larger share of failed requests, beyond what other regions have, lasts on.
        max_errors: Share = "1%",
    }
}

impl Shape for RampSpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => RampStepsSpec::decode(node, decoder).map(Self::Steps),
            Kind::Scalar(scalar) if &*scalar.text == "none" => Some(Self::None),
            Kind::Scalar(_) | Kind::List(_) => {
                let mistake = decoder.wrong_type(node, "`{steps, hold, max_errors}` or `none`");
                decoder.notes.mistake(mistake);
                None
            }
        }
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let steps = RampStepsSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["none"] }, steps] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::None => Out::Plain("none".to_owned()),
            Self::Steps(steps) => steps.emit(),
        }
    }

    fn fill(&mut self) {
        if let Self::Steps(steps) = self {
            steps.fill();
        }
    }

    fn inherit(&mut self, from: &Self) {
        if let (Self::Steps(own), Self::Steps(from)) = (self, from) {
            own.inherit(from);
        }
    }
}

/// What is answered when no region is usable.
#[derive(Clone, Debug, PartialEq)]
pub enum AllDownSpec {
    FailOpen,
    NoData,
    Fallback(FallbackSpec),
}

shape! {
    /// Addresses that DNS answers when no region is usable.
    FallbackSpec {
        /// IP addresses, of a page that apologises for instance.
        fallback: OneOrMany<Ip> = required,
    }
}

impl Shape for AllDownSpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        const EXPECTED: &str = "`fail_open`, `no_data` or `{fallback: [addresses]}`";
        match &node.kind {
            Kind::Map(_) => FallbackSpec::decode(node, decoder).map(Self::Fallback),
            Kind::Scalar(scalar) if &*scalar.text == "fail_open" => Some(Self::FailOpen),
            Kind::Scalar(scalar) if &*scalar.text == "no_data" => Some(Self::NoData),
            Kind::Scalar(scalar) => {
                let near = super::decode::nearest(&scalar.text, ["fail_open", "no_data"]);
                let mistake: Mistake = decoder.wrong_type(node, EXPECTED).nearest(near);
                decoder.notes.mistake(mistake);
                None
            }
            Kind::List(_) => {
                let mistake = decoder.wrong_type(node, EXPECTED);
                decoder.notes.mistake(mistake);
                None
            }
        }
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let fallback = FallbackSpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["fail_open", "no_data"] }, fallback] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::FailOpen => Out::Plain("fail_open".to_owned()),
            Self::NoData => Out::Plain("no_data".to_owned()),
            Self::Fallback(fallback) => fallback.emit(),
        }
    }
}

shape! {
    /// Addresses on which clients are served.
    ListenerSpec {
        /// Addresses with ports.
        bind: OneOrMany<Bind> = required,
        /// `http` (also HTTP/2 by prior knowledge), `https` (HTTP/1.1 and HTTP/2 over TLS), `tcp`, `tls_passthrough` (TLS that the endpoints speak) or `udp`.
        protocol: ListenerKind = "http",
        /// For `https`: chosen by server name; the first one is for clients that send none.
        certificates: List<ListenerCertificateSpec>,
        /// For `https`: which versions are spoken, and what is asked of clients.
        tls: ListenerTlsSpec,
        /// For `tcp` and `udp`: the pool that serves. For `tls_passthrough`: that serves the names which are not in `sni`, and clients that send none; they are refused when left out.
        pool: Text,
        /// For `tls_passthrough`: pools by the server name that clients ask for.
        sni: List<SniSpec>,
        /// Time limits of sessions and flows; not for HTTP.
        timeouts: SessionTimeoutsSpec,
        /// What becomes of sessions and flows whose endpoint goes down; not for HTTP. `keep` when left out, for `udp` `close`.
        on_down: OnDownWord,
        /// For `udp`: bounds and ends of flows.
        flows: FlowsSpec,
        /// Connections that begin with a PROXY header, which says whom they are from.
        proxy_protocol: SendersSpec,
        /// For `http`: every request is sent to the same place by HTTPS, at this port.
        redirect_to_https: Whole<1, 65535>,
    }
    later ["role", "alpn", "limits", "quic"]
}

choice! {
    /// What is spoken on a listener.
    ListenerKind {
        Http = "http",
        Https = "https",
        /// Bytes as they come.
        Tcp = "tcp",
        /// Bytes as they come, after the server name was looked at.
        TlsPassthrough = "tls_passthrough",
        /// Datagrams as they come.
        Udp = "udp",
    }
    later ["tls", "h3", "quic"]
}

shape! {
    /// A server name, and the pool that speaks TLS for it.
    SniSpec {
        /// `db.example.com`, or `*.example.com` for any number of labels before it.
        r#match: Text = required,
        /// The pool that serves.
        pool: Text = required,
    }
    later ["alpn"]
}

shape! {
    /// Who says in a PROXY header whom a connection is from (versions 1 and 2).
    SendersSpec {
        /// Their networks: from there a header must come, from elsewhere none is read.
        from: List<Net> = required,
    }
}

shape! {
    /// Time limits of what is carried without a look inside.
    SessionTimeoutsSpec {
        /// For one connection to an endpoint.
        connect: Limit = "1s",
        /// Without a byte either way; for `udp`, without a datagram of the client. `1h` when left out, for `udp` `60s`.
        idle: SessionPeriod,
        /// Whatever moves. No limit when left out.
        lifetime: SessionPeriod,
    }
}

choice! {
    /// What becomes of sessions and flows whose endpoint goes down.
    OnDownWord {
        /// They go on while they can.
        Keep = "keep",
        /// Sessions are closed, so that clients come back to another endpoint; a flow's next datagram goes to another one.
        Close = "close",
    }
}

shape! {
    /// Bounds and ends of UDP flows: one client's datagrams, from one port of its.
    FlowsSpec {
        /// At once for each address; beyond it those that never showed life on both sides make way, then new ones are refused.
        max: Whole<1, 1_000_000> = "16384",
        /// Of one client (an IPv4 address, an IPv6 /64) on each worker.
        per_client: Whole<1, 1_000_000> = "1024",
        /// A flow ends once each of its client's datagrams had so many answers. Nobody counts when left out.
        answers: Whole<1, 65_535>,
    }
}

shape! {
    /// Which versions of TLS are spoken, and what is asked of clients.
    ListenerTlsSpec {
        /// The oldest version of TLS that is spoken.
        minimum: TlsVersionText = "\"1.2\"",
        /// Certificates that are asked of clients, by server name. None when left out.
        client_auth: List<ClientAuthSpec> = "[]",
    }
    later ["alpn", "ciphers", "tickets"]
}

shape! {
    /// A certificate that is asked of clients.
    ClientAuthSpec {
        /// Server names: `api.example.com`, or `*.example.com` for all below it. Those that no other entry has, and clients that name none, when left out.
        r#for: OneOrMany<Text>,
        /// `required`: no certificate, no connection. `optional`: one that is shown must be good.
        mode: ClientAuthWord = "required",
        /// PEM file of the authorities that are believed.
        ca: Text = required,
        /// PEM file of revocation lists, one for each authority that issues clients' certificates.
        crl: Text,
        /// Who is let in. Everybody with a good certificate when left out.
        allow: AllowSpec,
    }
    later ["depth", "header"]
}

choice! {
    /// Whether a client must show a certificate.
    ClientAuthWord {
        /// No certificate, no connection.
        Required = "required",
        /// One that is shown must be good.
        Optional = "optional",
    }
}

shape! {
    /// Who is let in: clients of which any one name is listed.
    AllowSpec {
        /// Host names among the certificate's alternative names; `*.` for one label before it.
        san: OneOrMany<Text>,
        /// SPIFFE identities: `spiffe://example.com/ns/web`, or `spiffe://example.com/ns/*` for all below it.
        spiffe: OneOrMany<Text>,
    }
    later ["uri", "email", "subject", "fingerprint"]
}

shape! {
    /// A certificate and its key.
    CertificateSpec {
        /// PEM file: the certificate, then its intermediates.
        chain: Text = required,
        /// PEM file: the private key.
        key: Text = required,
    }
    later ["ocsp"]
}

shape! {
    /// A certificate and its key: two files, or the names for which one is ordered.
    ListenerCertificateSpec {
        /// PEM file: the certificate, then its intermediates.
        chain: Text,
        /// PEM file: the private key.
        key: Text,
        /// Instead of files: host names for which a certificate is ordered and renewed.
        acme: OneOrMany<Text>,
    }
    later ["ocsp"]
}

shape! {
    /// From whom certificates are ordered (RFC 8555).
    AcmeSpec {
        /// The URL of the authority's directory.
        directory: Text = "https://acme-v02.api.letsencrypt.org/directory",
        /// That the authority's terms of service are agreed to.
        terms_agreed: Flag = "false",
        /// Where the authority reaches the operator: `mailto:` URLs.
        contact: OneOrMany<Text> = "[]",
        /// PEM file of the roots that vouch for the directory's server, or `system` for the host's.
        ca: Text = "system",
        /// How names are proved; after a failure the next one has its turn. `tls-alpn-01` when left
        /// out, after `http-01` where there is a listener of plain HTTP.
        challenges: OneOrMany<ChallengeWord>,
        /// From a first failure to the next order; three times as long after each further one, up to
        /// 12 hours.
        retry: Period<1_000, 86_400_000> = "2m",
    }
    later ["external_account", "profile", "key_type"]
}

choice! {
    /// How it is proved that a name is ours.
    ChallengeWord {
        /// A file at a well-known path, on port 80 (RFC 8555 §8.3).
        Http01 = "http-01",
        /// A certificate in a handshake of its own, on port 443 (RFC 8737).
        TlsAlpn01 = "tls-alpn-01",
    }
    later ["dns-01"]
}

shape! {
    /// Which requests go to which pool, or are answered here.
    RouteSpec {
        /// How metrics and logs call it. Made of host and path when left out.
        name: Text,
        /// All that is given must hold. Every request when left out.
        r#match: MatchSpec = "{}",
        /// The pool that serves. This, `redirect` or `respond`.
        pool: Text,
        /// Where clients are sent instead.
        redirect: RedirectSpec,
        /// What is answered here, without an endpoint.
        respond: RespondSpec,
        /// Time limits of requests.
        timeouts: TimeoutsSpec = "{}",
        /// When a request is tried again.
        retry: RetrySpec = "{}",
        /// A second attempt beside a slow one. None when left out.
        hedge: HedgeSpec,
        /// Largest request body; more is refused with 413.
        body_max: SizeOrNone = "none",
        /// Another path or host for endpoints.
        rewrite: RewriteSpec,
        /// Changes to the headers that endpoints see.
        request_headers: HeadersSpec,
        /// Changes to the headers that clients see, on every answer of the route.
        response_headers: HeadersSpec,
        /// Nobody gets through but some.
        maintenance: MaintenanceSpec,
        /// Which other origins' pages may read answers.
        cors: CorsSpec,
        /// Which answers are compressed. None when left out.
        compression: CompressionSpec,
        /// Which requests share an attempt when they come together. None when left out.
        coalesce: CoalesceSpec,
        /// A second pool that sees some of the requests, and whose answers nobody gets.
        mirror: MirrorSpec,
        /// How much its requests matter, from 1 (vital) to 4 (can wait): of what cannot all be served, the highest number is refused first.
        tier: Whole<1, 4> = "2",
        /// On whose behalf requests come: `host` or `{header: NAME}`. Nobody's when left out.
        tenant: TenantSpec,
        /// What it can be asked for at once. Not bounded when left out.
        bulkhead: RouteBulkheadSpec,
        /// How often requests may come. Each rule counts each request.
        rate_limit: List<RateLimitSpec> = "[]",
        /// Other pools that get a share of the requests.
        split: List<SplitSpec>,
        /// Requests of one session go to one endpoint: by a cookie or by a header.
        sticky: StickySpec,
    }
    later ["timeout", "rate", "cache"]
}

shape! {
    /// A pool that gets a share of the requests: a canary.
    SplitSpec {
        /// Who serves them.
        pool: Text = required,
        /// Of all requests of the route.
        share: Share = required,
        /// Requests with the same one go the same way: `client_ip`, `{header: NAME}` or
        /// `{cookie: NAME}`. When left out, each request is drawn by itself; of a route with sticky
        /// cookies, each session.
        key: SplitKeySpec,
        /// When it gets no more requests.
        abort: AbortSpec = "{}",
    }
}

shape! {
    /// How a session is known. One of the two.
    StickySpec {
        /// A cookie of ours that names the endpoint, signed with `sticky_keys`.
        cookie: StickyCookieSpec,
        /// The name of a header whose value is the session's.
        header: Text,
    }
}

shape! {
    /// The cookie that clients are given.
    StickyCookieSpec {
        /// Its name.
        name: Text = "sealane",
        /// How long it lasts. Until the browser is closed when left out.
        max_age: Lifetime<1, 34_560_000>,
        /// Over TLS only. As the request came when left out.
        secure: Flag,
        /// Not for scripts.
        http_only: Flag = "true",
        /// Whether other sites' pages send it along.
        same_site: SameSiteWord = "lax",
    }
}

choice! {
    /// Whether other sites' pages send a cookie along.
    SameSiteWord {
        /// Never.
        Strict = "strict",
        /// With links.
        Lax = "lax",
        /// Always; needs `secure`.
        None = "none",
    }
}

shape! {
    /// When a canary does worse than the route's own pool.
    AbortSpec {
        /// Share of its requests that may fail beyond the share that fails there; or `none`.
        errors: MoreErrors = "+2%",
        /// So many times the latency there is allowed; or `none`.
        latency: Times = "1.5x",
        /// Requests that each side must have had in the window.
        requests_min: Whole<5, 1_000_000> = "10",
        /// How far back requests count.
        window: Period<1_000, 3_600_000> = "30s",
    }
}

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq)]
pub enum SplitKeySpec {
    ClientIp,
    Named(NamedKeySpec),
}

shape! {
    /// Something in a request that is the same for one client. Either of them.
    NamedKeySpec {
        /// A header field.
        header: Text,
        /// A cookie.
        cookie: Text,
    }
}

impl Shape for SplitKeySpec {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Map(_) => NamedKeySpec::decode(node, decoder).map(Self::Named),
            Kind::Scalar(scalar) if &*scalar.text == "client_ip" => Some(Self::ClientIp),
            Kind::Scalar(_) | Kind::List(_) => {
                const EXPECTED: &str = "`client_ip`, `{header: NAME}` or `{cookie: NAME}`";
                let mistake = decoder.wrong_type(node, EXPECTED);
                decoder.notes.mistake(mistake);
                None
            }
        }
    }

    fn schema(defs: &mut Map<String, Value>) -> Value {
        let named = NamedKeySpec::schema(defs);
        json!({ "anyOf": [{ "type": "string", "enum": ["client_ip"] }, named] })
    }

    fn emit(&self) -> Out {
        match self {
            Self::ClientIp => Out::Plain("client_ip".to_owned()),
            Self::Named(named) => named.emit(),
        }
    }
}

shape! {
    /// Changes to headers: removed, then set, then added.
    HeadersSpec {
        /// Names.
        remove: OneOrMany<Text>,
        /// Values by name, instead of what is there. `{client_ip}` and the like stand for themselves.
        set: Table<Text>,
        /// Values by name, beside what is there.
        add: Table<OneOrMany<Text>>,
    }
}

shape! {
    /// Another path or host for endpoints.
    RewriteSpec {
        /// In place of the route's `path_prefix`; in front of the path where the route has none.
        prefix: Text,
        /// The Host header, with a port where needed.
        host: Text,
    }
    later ["regex", "path", "query"]
}

shape! {
    /// Where clients are sent. What is left out stays as the client asked.
    RedirectSpec {
        /// 301, 302, 303, 307 or 308.
        status: RedirectStatus = "308",
        /// `http` or `https`.
        scheme: SchemeWord,
        /// A host name or address without a port.
        host: Text,
        /// Left out: the scheme's own, where scheme or host change.
        port: Whole<1, 65535>,
        /// In place of the route's `path_prefix`.
        prefix: Text,
        /// In place of the whole path.
        path: Text,
        /// Whether the query goes along.
        query: QueryWord = "keep",
    }
    later ["regex"]
}

choice! {
    /// How HTTP is spoken to us.
    SchemeWord {
        Http = "http",
        Https = "https",
    }
}

choice! {
    /// What becomes of a query.
    QueryWord {
        Keep = "keep",
        Drop = "drop",
    }
}

shape! {
    /// A fixed answer.
    RespondSpec {
        /// Its status.
        status: Whole<200, 599> = "200",
        /// Its body, as text. None when this and `file` are left out.
        body: Text,
        /// A file with its body: at most 1 MiB.
        file: Text,
        /// Its Content-Type, where it has a body.
        content_type: Text = "text/plain; charset=utf-8",
    }
    later ["headers"]
}

shape! {
    /// While it is in force, every request is answered here.
    MaintenanceSpec {
        /// Whether it is in force.
        on: Flag = "true",
        /// In force only while this file exists.
        when_file: Text,
        /// The answer's status.
        status: Whole<200, 599> = "503",
        /// The answer's body, as text.
        body: Text = "Down for maintenance.",
        /// A file with the answer's body, instead: at most 1 MiB.
        file: Text,
        /// The answer's Content-Type.
        content_type: Text = "text/plain; charset=utf-8",
        /// When clients may come back.
        retry_after: Lifetime<1, 604_800>,
        /// Clients that get through.
        except: OneOrMany<Net>,
    }
}

shape! {
    /// Which other origins' pages may read answers (the Fetch standard's CORS). Preflights are answered here.
    CorsSpec {
        /// `https://app.example.com`, `https://*.example.com` for any below it, or `*` for all.
        origins: OneOrMany<Text> = required,
        /// Methods that pages may use.
        methods: OneOrMany<Text> = "[GET, HEAD, POST]",
        /// Headers that pages may send; `*` for any.
        headers: OneOrMany<Text>,
        /// Headers of answers that pages may read.
        expose: OneOrMany<Text>,
        /// Whether cookies and the like go along; never with the origin `*`.
        credentials: Flag = "false",
        /// How long a browser may remember a preflight's answer.
        max_age: Lifetime<0, 86_400> = "10m",
    }
}

shape! {
    /// Which requests share an attempt: those that ask the same while it is under way.
    CoalesceSpec {
        /// `GET`, `HEAD` or both. An empty list switches coalescing off.
        methods: OneOrMany<SharedMethodWord> = "[GET, HEAD]",
        /// Of the headers that nearly every client sends, those on which answers depend.
        headers: OneOrMany<Text> = "[accept, accept-encoding, accept-language, origin]",
        /// `none`: requests with credentials (Authorization, Cookie and the like) share with nobody; `by_value`: with those that have the same.
        authorization: AuthorizationWord = "none",
        /// How long a request waits for another one's answer to begin, and how long after its beginning an attempt is joined.
        wait: Period<1, 60_000> = "5s",
        /// Requests that share one attempt, besides the one that began it. Further ones have their own.
        followers: Whole<1, 65_536> = "1024",
        /// Answers that are known to have a larger body are not shared; of others, whoever is further behind is cut.
        body_max: Size<0, 67_108_864> = "1MiB",
    }
}

shape! {
    /// A second pool that sees some of the requests, and whose answers nobody gets.
    MirrorSpec {
        /// The pool. Not the route's own.
        pool: Text = required,
        /// Of the requests, drawn for each.
        share: Share = "100%",
        /// Methods that are mirrored; any when left out.
        methods: OneOrMany<Text>,
        /// Requests with a larger body are not mirrored.
        body_max: Size<0, 1_048_576> = "64KiB",
        /// How long a mirrored request may take in all, once its body has arrived.
        timeout: Limit = "5s",
    }
}

choice! {
    /// A method whose answers may be for several.
    SharedMethodWord {
        Get = "GET",
        Head = "HEAD",
    }
}

choice! {
    /// What becomes of requests with credentials.
    AuthorizationWord {
        /// They share with nobody.
        None = "none",
        /// Those with the same credentials share.
        ByValue = "by_value",
    }
}

shape! {
    /// Which answers are compressed, and how.
    CompressionSpec {
        /// Of those that a client likes equally, the first. An empty list switches compression off.
        encodings: OneOrMany<EncodingWord> = "[zstd, br, gzip]",
        /// Media types; one `*` stands for anything.
        types: OneOrMany<Text> = "[\"text/*\", application/json, \"application/*+json\", application/javascript, application/xml, \"application/*+xml\", application/wasm, image/svg+xml]",
        /// Answers that are known to be smaller are left alone.
        size_min: Size<0, 1_073_741_824> = "1KiB",
        /// From 1 (fast) to 9 (small).
        level: Whole<1, 9> = "4",
    }
    later ["dictionary"]
}

choice! {
    /// A content coding.
    EncodingWord {
        Zstd = "zstd",
        Brotli = "br",
        Gzip = "gzip",
    }
    later ["deflate", "brotli"]
}

shape! {
    /// All that is given must hold.
    MatchSpec {
        /// `api.example.com`, or `*.example.com` for any number of labels before it.
        host: Text,
        /// Whole segments: `/v1` matches `/v1` and `/v1/x`, not `/v10`.
        path_prefix: Text,
        /// Any method when left out.
        methods: OneOrMany<Text>,
        /// Header fields by name, with the value they must have; `"*"` for any.
        headers: Table<Text>,
    }
    later ["path", "path_regex", "query", "client", "sni"]
}

shape! {
    /// Time limits of requests.
    TimeoutsSpec {
        /// For a new connection to an endpoint, TLS included.
        connect: Limit = "1s",
        /// For one attempt, while another one may follow.
        attempt: Limit = "2s",
        /// Less than `attempt` where the route's attempts are quicker. Not when left out.
        adaptive: AdaptiveSpec,
        /// From the request's head to the answer's head, over all attempts.
        request: Limit = "30s",
        /// Between two pieces of a body, on either side.
        idle: Limit = "60s",
    }
}

shape! {
    /// An attempt's time-out from what the route's attempts took in the last half minute.
    AdaptiveSpec {
        /// So many percent of them took no longer.
        of: PercentileWord = "p99",
        /// Times that.
        factor: Whole<1, 100> = "2",
        /// But no less than this.
        floor: Limit = "50ms",
    }
}

choice! {
    /// So many percent of a route's attempts took no longer.
    PercentileWord {
        P50 = "p50",
        P90 = "p90",
        P95 = "p95",
        P99 = "p99",
    }
}

shape! {
    /// When a request is tried again.
    RetrySpec {
        /// Attempts in all, the first included.
        attempts: Whole<1, 8> = "3",
        /// Share of requests that may be tried again.
        budget: Share = "20%",
        /// After what: failures by kind, answers by status.
        on: OneOrMany<RetryWord> = "[connect, reset, timeout]",
        /// Methods that endpoints may see twice, besides those that HTTP calls idempotent.
        methods: OneOrMany<Text>,
        /// Pauses between attempts.
        backoff: BackoffSpec = "{}",
    }
}

shape! {
    /// Pauses between attempts: from none to a bound that doubles, drawn each time.
    BackoffSpec {
        /// The first bound.
        first: Limit = "25ms",
        /// The last bound.
        max: Limit = "1s",
    }
}

shape! {
    /// A second attempt at another endpoint beside one that takes long.
    HedgeSpec {
        /// When it begins: as what part of the route's attempts took, or a duration.
        after: HedgeAfterText = "p95",
        /// Share of requests that may be hedged; they count as retries too. 0% switches hedging off.
        budget: Share = "5%",
    }
    later ["max"]
}

shape! {
    /// The authoritative name server and geography.
    DnsSpec {
        /// Addresses with ports; UDP and TCP on each.
        bind: OneOrMany<Bind> = "[\"0.0.0.0:53\", \"[::]:53\"]",
        /// Take questions over TLS (RFC 7858), too.
        tls: DnsTlsSpec,
        /// Take questions over HTTPS (RFC 8484), too.
        https: DnsHttpsSpec,
        /// Take questions over QUIC (RFC 9250), too.
        quic: DnsQuicSpec,
        /// Where clients are; the proxy uses it too.
        geo: GeoSpec = "{}",
        /// Zones by name.
        zones: Table<ZoneSpec> = "{}",
        /// Bounds on what one client can make the name server hold.
        limits: DnsLimitsSpec = "{}",
        /// What signed zones have in common.
        dnssec: DnssecSpec = "{}",
        /// DNS cookies (RFC 7873): who has one has not forged its address.
        cookies: DnsCookiesSpec = "{}",
        /// Response rate limiting: how much a forged address can be sent over UDP.
        rrl: RrlSpec = "{}",
        /// Which server answers, for those who ask by the option NSID (RFC 5001). Nothing is told when left out.
        nsid: Text,
        /// What is told in class CH to those who ask for the server's version or name. Nothing of what is left out.
        chaos: ChaosSpec,
        /// Resolvers, with ports, that are asked for what `aliases` lead to. Those of `/etc/resolv.conf` when left out.
        resolvers: OneOrMany<Bind> = "[]",
        /// Log questions, one line each, at target `sealane::query`. Not logged when left out.
        query_log: QueryLogSpec,
        /// Tell questions and answers by dnstap. Not told when left out.
        dnstap: DnstapSpec,
        /// Secrets shared with other name servers (TSIG, RFC 8945), by the keys' names.
        tsig_keys: Table<TsigKeySpec> = "{}",
    }
}

shape! {
    /// A secret that two name servers share. Its name is part of it: both call it the same.
    TsigKeySpec {
        /// How messages are authenticated.
        algorithm: TsigAlgorithmWord = "hmac-sha256",
        /// In base64, by reference.
        secret: Secret = required,
    }
}

choice! {
    /// How messages between name servers are authenticated.
    TsigAlgorithmWord {
        /// The one that every server knows.
        HmacSha256 = "hmac-sha256",
        /// With longer hashes.
        HmacSha384 = "hmac-sha384",
        /// With the longest.
        HmacSha512 = "hmac-sha512",
    }
    later ["hmac-md5", "hmac-sha1"]
}

shape! {
    /// The query log.
    QueryLogSpec {
        /// The share of questions that is logged, drawn by chance.
        sample: Share = "1%",
    }
    later ["zones", "clients"]
}

shape! {
    /// Questions and answers, told by dnstap (Frame Streams over a Unix socket that a reader listens on).
    DnstapSpec {
        /// The socket's path.
        socket: Text = required,
        /// The share of questions that is told, drawn by chance.
        sample: Share = "100%",
        /// Which server this is, for the reader. `nsid` when left out.
        identity: Text,
    }
    later ["tcp", "tls", "messages"]
}

shape! {
    /// What is told in class CH (RFC 4892).
    ChaosSpec {
        /// For `version.bind` and `version.server`.
        version: Text,
        /// For `id.server` and `hostname.bind`.
        id: Text,
    }
}

shape! {
    /// DNS over TLS.
    DnsTlsSpec {
        /// Addresses with ports.
        bind: OneOrMany<Bind> = "[\"0.0.0.0:853\", \"[::]:853\"]",
        /// Certificates, as listeners have them; the first serves clients that name no server, or an unknown one.
        certificates: List<ListenerCertificateSpec> = required,
    }
}

shape! {
    /// DNS over HTTPS: HTTP/2 and HTTP/1.1.
    DnsHttpsSpec {
        /// Addresses with ports, which no listener has.
        bind: OneOrMany<Bind> = required,
        /// The path of questions.
        path: Text = "/dns-query",
        /// Certificates, as listeners have them; the first serves clients that name no server, or an unknown one.
        certificates: List<ListenerCertificateSpec> = required,
    }
}

shape! {
    /// DNS over QUIC.
    DnsQuicSpec {
        /// Addresses with ports, of UDP.
        bind: OneOrMany<Bind> = "[\"0.0.0.0:853\", \"[::]:853\"]",
        /// Certificates, as listeners have them; the first serves clients that name no server, or an unknown one.
        certificates: List<ListenerCertificateSpec> = required,
    }
}

shape! {
    /// Where clients are.
    GeoSpec {
        /// MMDB file with locations (GeoLite2-City and alike).
        database: Text,
        /// MMDB file with autonomous systems (GeoLite2-ASN and alike), for rules that name these.
        asn: Text,
        /// Networks that belong to a region whatever the database says.
        overrides: List<OverrideSpec> = "[]",
        /// Let clients' connections correct the map, where `node.region` says where they end.
        learn: Flag = "true",
    }
    later ["refresh"]
}

shape! {
    /// A network that belongs to a region.
    OverrideSpec {
        /// In CIDR notation.
        net: Net = required,
        /// The region's name.
        region: Text = required,
    }
}

shape! {
    /// DNS cookies (RFC 7873, RFC 9018).
    DnsCookiesSpec {
        /// Whether answers have cookies.
        enabled: Flag = "true",
        /// What cookies are made by (the first) and honoured by (all), the same on every server of the zones:
        /// 32 hexadecimal digits each, by reference. Without any, one that this process alone knows.
        secrets: OneOrMany<Secret> = "[]",
    }
}

shape! {
    /// Response rate limiting: answers over UDP to one network (an IPv4 /24, an IPv6 /56) that say the same.
    RrlSpec {
        /// So many in a second and for each thread; more are dropped or shortened. 0: no limit.
        answers: Whole<0, 10_000_000> = "1000",
        /// So many are saved up while a network asks less. `answers` when left out.
        burst: Whole<1, 10_000_000>,
        /// Every so many answers above the rate one is sent short, so that who really asks comes back over TCP or
        /// with a cookie. 0: none.
        slip: Whole<0, 100> = "2",
        /// Networks that are never limited.
        exempt: OneOrMany<Net> = "[127.0.0.0/8, \"::1/128\"]",
    }
}

shape! {
    /// Bounds on what one client can make the name server hold.
    DnsLimitsSpec {
        /// Connections at once, those with TLS, HTTPS and QUIC among them; more are closed at once.
        tcp_connections: Whole<1, 1_000_000> = "1024",
        /// Such a connection without a question is closed after this.
        tcp_idle: Period<100, 3_600_000> = "10s",
    }
    later ["rate", "udp_size"]
}

shape! {
    /// One zone that we are an authority for.
    ZoneSpec {
        /// Zone file (RFC 1035 §5) with the static part.
        file: Text,
        /// Start of authority.
        soa: SoaSpec,
        /// Host names of the zone's name servers.
        ns: OneOrMany<Text>,
        /// TTL of static records that have none of their own.
        ttl: TtlText = "5m",
        /// Static records.
        records: List<RecordSpec> = "[]",
        /// Names whose addresses are those of the region chosen for each client.
        steered: Table<SteeredSpec> = "{}",
        /// Names that have the addresses of another name, wherever that one is served; `@`, too, where no CNAME may be.
        aliases: Table<AliasSpec> = "{}",
        /// Sign the zone, by its keys in `dns.dnssec.key_dir`. `{}` will do; not signed when left out.
        dnssec: ZoneDnssecSpec,
        /// Other servers that may have copies of the zone. Nobody may when left out.
        transfers: TransfersSpec,
        /// The zone's static part is a copy of another server's, which is asked for changes.
        secondary_of: SecondarySpec,
    }
    later ["also_notify", "allow_transfer", "primary"]
}

shape! {
    /// Who may have copies of a zone, by AXFR and IXFR, and who is told of changes.
    TransfersSpec {
        /// Networks that may ask. Any may when there are none and `tsig` has keys.
        to: OneOrMany<Net> = "[]",
        /// Names of keys in `dns.tsig_keys`: who asks must sign with one of them. Nobody needs to when there are none.
        tsig: OneOrMany<Text> = "[]",
        /// Addresses of servers that are told when the zone changes, signed by the first of `tsig`.
        notify: OneOrMany<Text> = "[]",
        /// What copies have for steered names.
        steered: SteeredAsWord = "snapshot",
    }
}

choice! {
    /// What copies of a zone have for names whose answers are chosen for each client.
    SteeredAsWord {
        /// What a client whose place nobody knows would be answered; follows the health map.
        Snapshot = "snapshot",
        /// Nothing, as if the names did not exist.
        Omit = "omit",
    }
}

shape! {
    /// Where a zone's static part comes from.
    SecondarySpec {
        /// Addresses of its primaries, asked in this order.
        primaries: OneOrMany<Text> = required,
        /// The name of a key in `dns.tsig_keys`: it signs what is asked, and must have signed what is answered or told.
        tsig: Text,
    }
}

shape! {
    /// What signed zones have in common.
    DnssecSpec {
        /// Directory of the keys, which `sealane dnssec` makes. `dnssec` in `node.state_dir` when left out.
        key_dir: Text,
        /// How long all of a zone's name servers take to have a change.
        propagation: Lifetime<0, 604_800> = "5m",
        /// Signatures made in a second, for each zone, while questions wait; more are answered SERVFAIL.
        signatures_per_second: Whole<1, 1_000_000> = "2000",
    }
    later ["pkcs11", "kms"]
}

shape! {
    /// How a zone is signed.
    ZoneDnssecSpec {
        /// How it is proven that something is not there.
        denial: DenialWord = "nsec",
        /// How long a signature holds; made anew when a third of it is left.
        validity: Lifetime<60, 31_536_000> = "14d",
        /// TTL of the zone's keys.
        key_ttl: TtlText = "1h",
        /// TTL of the zone's DS records, which its parent decides on.
        ds_ttl: TtlText = "1d",
        /// No TTL in the zone may be longer: it is what a roll-over of keys waits for.
        longest_ttl: TtlText = "1d",
        /// Roll keys over by themselves. Only by command when left out.
        roll_after: RollAfterSpec,
    }
    later ["nsec3", "algorithm", "offline_ksk"]
}

choice! {
    /// How it is proven that something is not there.
    DenialWord {
        /// By a chain of the zone's names that is signed ahead; whoever wants can list them.
        Nsec = "nsec",
        /// By a signature for each name that is asked for (RFC 9824); tells nothing.
        Compact = "compact",
    }
    later ["nsec3"]
}

shape! {
    /// After how long a key is succeeded by a new one.
    RollAfterSpec {
        /// Zone-signing keys. Never by themselves when left out.
        zsk: Lifetime<60, 315_360_000>,
        /// Key-signing keys, also those that sign everything: the DS is for you to exchange, and to confirm. Never by themselves when left out.
        ksk: Lifetime<60, 315_360_000>,
    }
}

shape! {
    /// Start of authority (RFC 1035 §3.3.13).
    SoaSpec {
        /// The zone's first name server. The first of `ns` when left out, else `ns1` in the zone.
        primary: Text,
        /// The mail address of who is responsible. `hostmaster` in the zone when left out.
        mailbox: Text,
        /// Grows with each change. The time of the newest file when left out.
        serial: Whole<0, 4_294_967_295>,
        /// How often secondaries look for changes.
        refresh: TtlText = "1h",
        /// How soon they look again when that failed.
        retry: TtlText = "10m",
        /// When they give up.
        expire: Lifetime<0, 31_536_000> = "7d",
        /// How long the absence of a name may be remembered.
        minimum: TtlText = "5s",
        /// How long the SOA itself may be kept.
        ttl: TtlText = "60s",
    }
}

shape! {
    /// One or more static records of one name and type.
    RecordSpec {
        /// Relative to the zone; `@` is the zone itself.
        name: Text = required,
        /// A, AAAA, CNAME, DNAME, MX, NS, PTR, SRV, TXT, CAA, HTTPS, SVCB, TLSA, SSHFP, NAPTR, LOC and others; `TYPE` and a number for the rest (RFC 3597).
        r#type: Text = required,
        /// The zone's `ttl` when left out.
        ttl: TtlText,
        /// As in a zone file: `192.0.2.1`, `10 mail.example.com.`
        value: Text,
        /// Several values.
        values: List<Text>,
    }
}

shape! {
    /// A name whose addresses are those of the region chosen for each client.
    SteeredSpec {
        /// The pool whose regions are chosen from.
        pool: Text = required,
        /// How long an answer may be kept.
        ttl: TtlText = "10s",
        /// The same while one of the pool's regions is in doubt.
        ttl_suspect: TtlText = "5s",
        /// How many regions after the best are answered as well.
        alternates: Whole<0, 8> = "0",
        /// Locate by the resolver's address even where it sends a client subnet.
        ignore_client_subnet: Flag = "false",
        /// How regions are ordered for this name. As for the pool when left out.
        steering: SteeringSpec,
        /// What is answered for this name when no region is usable. As for the pool when left out.
        all_down: AllDownSpec,
        /// A share of clients that is led to another pool; not beside `hosts`.
        canary: DnsCanarySpec,
        /// Host names by region: the name is a CNAME of the chosen region's host. Regions without one are passed over.
        hosts: Table<Text>,
        /// Parameters of an HTTPS record (RFC 9460) whose hints are the chosen addresses: `alpn=h2,h3 port=8443`.
        https: Text,
    }
    later ["split", "sticky", "types", "addresses"]
}

shape! {
    /// A name that has the addresses of another name: looked up in the background, again whenever their TTL ends.
    AliasSpec {
        /// Whose addresses: a whole host name.
        to: Text = required,
        /// How long an answer may be kept at most.
        ttl: TtlText = "1m",
    }
    later ["types"]
}

shape! {
    /// A share of clients that is led to another pool while that one is well.
    DnsCanarySpec {
        /// The pool that they are led to, in its own order of regions.
        pool: Text = required,
        /// How many of the clients' networks (/24, /56) are.
        share: Share = required,
    }
    later ["weights", "clients"]
}

shape! {
    /// The admin API.
    AdminSpec {
        /// Addresses with ports.
        bind: OneOrMany<Bind> = "[\"127.0.0.1:9900\"]",
        /// Who may read and change. With none, every change is refused.
        tokens: List<TokenSpec> = "[]",
    }
    later ["tls", "certificates", "oidc", "audit", "cors"]
}

shape! {
    /// A bearer token: by its hash or by a reference to it.
    TokenSpec {
        /// Whose it is, for the audit log.
        name: Text = required,
        /// `viewer` may read, `operator` may change.
        role: RoleWord = required,
        /// `sha256:` and the token's SHA-256 in hexadecimal.
        hash: Secret,
        /// `${VARIABLE}` or `file:PATH`; never the token itself.
        token: Secret,
    }
    later ["regions", "expires", "scopes"]
}

choice! {
    /// What a token allows.
    RoleWord {
        Viewer = "viewer",
        Operator = "operator",
    }
    later ["admin", "approver"]
}

shape! {
    /// Bounds on what one client can make the proxy hold.
    LimitsSpec {
        /// Connections at once over all listeners; more are closed at once.
        connections: Whole<1, 10_000_000> = "65536",
        /// Of them, how many one client may have: an IPv4 address, or an IPv6 /64. `trusted_proxies`
        /// may have any number.
        connections_per_client: Whole<1, 10_000_000> = "2048",
        /// The request's head; more is refused with 431.
        head_bytes: Size<1024, 1_048_576> = "64KiB",
        /// Header fields in one head; more is refused with 431.
        head_fields: Whole<8, 1000> = "100",
        /// For the whole head, from its first byte; then 408.
        head_timeout: Limit = "10s",
        /// A connection without a request is closed after this.
        keep_alive: Limit = "60s",
        /// Concurrent HTTP/2 streams of one connection.
        streams: Whole<1, 10_000> = "100",
        /// PING, SETTINGS and other frames without payload that an HTTP/2 connection may send in a
        /// second, on top of one for each 64 bytes that it gets or sends; more end it.
        control_frames: Whole<10, 1_000_000> = "2000",
        /// For the TLS handshake, and for a PROXY header or a server name before it.
        handshake_timeout: Limit = "10s",
    }
    later ["rate", "bandwidth", "requests"]
}

shape! {
    /// A global load balancer in short form: one pool, one zone, one route.
    GlbSpec {
        /// `geo_dns`.
        r#type: GlbKind = "geo_dns",
        /// The name that clients use. The domain that the endpoints' host names share when left out.
        domain: Host,
        /// How endpoints are checked.
        health_checks: GlbChecksSpec = "{}",
        /// How regions are ordered for a client.
        routing_policy: GlbPolicySpec = "{}",
        /// When a region leaves.
        failover: GlbFailoverSpec = "{}",
        /// One entry for each endpoint.
        endpoints: List<GlbEndpointSpec> = required,
    }
    later ["regions", "tls", "listeners"]
}

choice! {
    /// How clients are led to a region.
    GlbKind {
        GeoDns = "geo_dns",
    }
    later ["anycast", "http"]
}

shape! {
    /// How endpoints are checked. Bare numbers are seconds.
    GlbChecksSpec {
        /// From the start of one check to the start of the next.
        interval: Seconds<100, 3_600_000> = "5",
        /// For the whole check.
        timeout: Seconds<100, 3_600_000> = "2",
        /// Consecutive failures until an endpoint is down.
        unhealthy_threshold: Whole<1, 100> = "2",
        /// Consecutive passes until it is up again.
        healthy_threshold: Whole<1, 100> = "3",
        /// The path that is asked for.
        path: Text = "/health",
    }
    later ["type", "protocol"]
}

shape! {
    /// How regions are ordered for a client.
    GlbPolicySpec {
        /// What decides.
        r#type: Policy = "weighted_latency",
        /// Shares of regions, by name; hyphens and underscores are the same.
        weights: Table<WeightNumber>,
    }
}

shape! {
    /// When a region leaves.
    GlbFailoverSpec {
        /// A promise that is checked: probes find a dead endpoint within this.
        detection_time: Seconds<100, 3_600_000>,
        /// Share of a region's endpoints that are down when it leaves.
        failover_threshold: UnhealthyShare = "50%_unhealthy",
    }
    later ["dns_ttl", "failover_time"]
}

shape! {
    /// One endpoint of the short form.
    GlbEndpointSpec {
        /// Its region; hyphens and underscores are the same.
        region: Text = required,
        /// Its host name; HTTPS on port 443 unless a port is written.
        endpoint: Text = required,
        /// Tier: the lowest number that has a usable region is served from.
        priority: Whole<0, 65535> = "1",
        /// Its region's share relative to the others'.
        weight: WeightNumber = "100",
    }
    later ["health_check", "capacity"]
}

/// Latitude and longitude in degrees, as a list of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point(pub sealane_model::Location);

impl Shape for Point {
    fn decode(node: &Node, decoder: &mut Decoder<'_>) -> Option<Self> {
        const EXPECTED: &str = "`[latitude, longitude]`; −90–90 and −180–180 degrees";
        let degrees = match &node.kind {
            Kind::List(items) if items.len() == 2 => List::<Degrees>::decode(node, decoder)?,
            _ => {
                let mistake = decoder.wrong_type(node, EXPECTED);
                decoder.notes.mistake(mistake);
                return None;
            }
        };
        let [latitude, longitude] = degrees.0.as_slice() else {
            return None;
        };
        let location = sealane_model::Location::new(latitude.0, longitude.0);
        if location.is_none() {
            let message = format!("{} lies off the globe", decoder.here());
            let mut mistake = Mistake::new(node.span, message).expected(EXPECTED);
            if sealane_model::Location::new(longitude.0, latitude.0).is_some() {
                mistake = mistake.help("latitude comes first");
            }
            decoder.notes.mistake(mistake);
        }
        location.map(Self)
    }

    fn schema(_: &mut Map<String, Value>) -> Value {
        json!({
            "type": "array",
            "prefixItems": [
                { "type": "number", "minimum": -90, "maximum": 90 },
                { "type": "number", "minimum": -180, "maximum": 180 },
            ],
            "minItems": 2,
            "maxItems": 2,
        })
    }

    fn emit(&self) -> Out {
        let number = |degrees: f32| Out::Plain(degrees.to_string());
        Out::List(vec![number(self.0.latitude()), number(self.0.longitude())])
    }
}
