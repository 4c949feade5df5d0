//! What the policies cost on the request path: nanoseconds per call, the least of several rounds: whatever
//! else runs on the machine only adds.
//!
//! Compiles the crate's own files into itself, as they are private to it. Run alone on a quiet
//! machine: `cargo bench -p sealane-proxy --bench policies`.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "a part of the crate is compiled a second time, and only some of it is called"
)]

#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/config.rs"]
mod config;
#[path = "../src/h1/mod.rs"]
mod h1;
#[path = "../src/metrics.rs"]
pub mod metrics;
#[path = "../src/random.rs"]
mod random;
#[path = "../src/slots.rs"]
mod slots;
#[path = "../src/tcp"]
mod tcp {
    pub(crate) mod end;
}
#[path = "../src/upstream/mod.rs"]
mod upstream;
#[path = "../src/http"]
mod http {
    pub(crate) mod coalesce {
        mod part;
        pub(crate) use part::Part;
    }
    pub(crate) mod fields;
    pub(crate) mod headers;
    pub(crate) mod message;
    pub(crate) mod mirror {
        mod outcome;
        pub(crate) use outcome::Mirrored;
    }
    pub(crate) mod refuse;
    pub(crate) mod retry;
    pub(crate) mod route;
}

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{Method, Version};
use sealane_model::Verdict::{Down, Up};
use sealane_model::{PoolId, Ratio, Snapshot, Traffic};
use sealane_steering::{ClientPlace, GeoTable, How, SteeringPolicy, Weights};
use sealane_testkit::{Names, World};

use crate::config::{
    Action, Backoff, BalancePolicy, Balancing, Destination, HashKey, HostPattern, RetryOn,
    RetryPolicy, Route, RouteMatch, RouteOptions, Timeouts,
};
use crate::h1::head;
use crate::http::fields::Fields;
use crate::http::headers::{Forwarding, PeerText, request_id, toward_endpoint};
use crate::http::route::RouteTable;
use crate::upstream::budget::Budget;
use crate::upstream::{Answered, Endpoints, LoadTable, SelectAsk, select};

fn main() {
    for routes in [3, 1_000] {
        routes_found(routes);
    }
    headers_forwarded();
    budget_used();
    for endpoints in [3, 100] {
        endpoints_selected(endpoints);
    }
}

fn routes_found(count: usize) {
    let routes: Vec<Route> = (0..count).map(|at| route(at, count)).collect();
    let table = RouteTable::new(&routes);
    let headers = Fields::new();
    let find = |host: &str, path: &str| {
        let found = table.find(black_box(host), black_box(path), &Method::GET, &headers);
        black_box(found.is_some());
    };
    measure(&format!("find, {count} routes, exact host"), || {
        find("H1.example.test:8443", "/v1/users?x=1");
    });
    measure(
        &format!("find, {count} routes, any host, all paths missed"),
        || {
            find("a.b.c.elsewhere.test", "/none/of/them");
        },
    );
    measure(
        &format!("find, {count} routes, any host, one path of a third"),
        || {
            find("elsewhere.test", "/path/0/users/7?x=1");
        },
    );
}

/// A third by exact host, a third by suffix, a third by path alone.
fn route(at: usize, count: usize) -> Route {
    let host = match at * 3 / count {
        0 => None,
        1 => Some(HostPattern::Exact(
            format!("h{}.example.test", at - count / 3).into(),
        )),
        _ => Some(HostPattern::Suffix(format!(".s{at}.example.test").into())),
    };
    Route {
        name: at.to_string().into(),
        when: RouteMatch {
            path_prefix: host.is_none().then(|| format!("/path/{at}").into()),
            host,
            ..RouteMatch::default()
        },
        action: Action::Forward(Destination {
            pool: PoolId::from_index(0).expect("0 is an index"),
            steering: Arc::new(SteeringPolicy::Nearest),
            balance: Arc::default(),
        }),
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            attempt: Duration::from_secs(5),
            adaptive: None,
            request: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        },
        retry: RetryPolicy {
            attempts: 2,
            budget: Ratio::new(0.2).expect("a ratio"),
            on: RetryOn::default(),
            methods: Vec::new(),
            backoff: Backoff::default(),
        },
        hedge: None,
        body_max: None,
        options: RouteOptions::default(),
    }
}

fn headers_forwarded() {
    let text = "GET /v1/users?x=1 HTTP/1.1\r\n\
        Host: www.example.test\r\n\
        Connection: keep-alive\r\n\
        Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\
        Accept-Encoding: gzip, deflate, br\r\n\
        Accept-Language: en\r\n\
        Cookie: session=0123456789abcdef\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
        Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
    measure("a browser's head read", || {
        black_box(head::request(black_box(text.as_bytes()).to_vec()).is_ok());
    });
    let Ok(read) = head::request(text.as_bytes().to_vec()) else {
        unreachable!("it is lawful");
    };
    let peer = PeerText::new([203, 0, 113, 7].into());
    let id = request_id(&read.head.fields, false, 7);
    let forwarding = Forwarding {
        peer: &peer,
        trusted_peer: false,
        scheme: "https",
        request_id: &id,
        identity: None,
        upgrade: false,
        received: Version::HTTP_11,
    };
    let mut out = bytes::BytesMut::with_capacity(4_096);
    measure("headers toward endpoint, cloned and written", || {
        let mut head = read.head.for_attempt();
        toward_endpoint(&mut head.fields, &forwarding);
        out.clear();
        head.write_to(&mut out);
        black_box(&out);
    });
    measure("head cloned only", || {
        black_box(read.head.for_attempt());
    });
}

fn budget_used() {
    let budget = Budget::new(Ratio::new(0.2).expect("a ratio"));
    let now = now();
    measure("budget, a deposit", || budget.deposit(now));
    measure("budget, a withdrawal", || {
        black_box(budget.withdraw(now));
    });
}

fn endpoints_selected(endpoints: usize) {
    let world = World::new()
        .region("eu", Up)
        .endpoints(endpoints)
        .region("us", Up)
        .endpoints(endpoints)
        .region("ap", Down)
        .endpoints(endpoints)
        .build();
    let loads = Arc::<LoadTable>::default();
    let known = Endpoints::new(Arc::clone(&loads), Traffic::default().shard());
    let pool = world.pool_id("api");
    let place = ClientPlace::locate([192, 0, 2, 1].into(), How::Connection, &GeoTable::empty());
    let policy = SteeringPolicy::WeightedLatency(Weights::default());
    for balance in [
        BalancePolicy::LeastLoaded,
        BalancePolicy::RoundRobin,
        BalancePolicy::RingHash(HashKey::ClientIp),
    ] {
        let word = balance.as_str();
        let balance = Arc::new(Balancing {
            policy: balance,
            ..Balancing::default()
        });
        let began = now();
        let mut random = 1_u64;
        measure(
            &format!("select, 3 regions of {endpoints} endpoints, {word}"),
            || {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let ask = SelectAsk {
                    pool,
                    policy: &policy,
                    balance: &balance,
                    place: &place,
                    key: random,
                    hash: Some(random),
                    random,
                    may_shed: false,
                    now: began + Duration::from_micros(random >> 50),
                    repeatable: true,
                    tried: &[],
                };
                let selected = select(&world, &known, &ask).expect("regions are up");
                drop(black_box(loads.begin(selected.endpoint)));
            },
        );
        let ask = SelectAsk {
            pool,
            policy: &policy,
            balance: &balance,
            place: &place,
            key: 1,
            hash: Some(1),
            random: 1,
            may_shed: false,
            now: began,
            repeatable: true,
            tried: &[],
        };
        let selected = select(&world, &known, &ask).expect("regions are up");
        let mut later = began;
        measure(&format!("an answer noted, {word}"), || {
            later += Duration::from_micros(20);
            selected.answered(black_box(later), Answered::Well);
        });
    }
}

const ROUNDS: usize = 30;
const CALLS: u32 = 10_000;

fn measure(what: &str, mut call: impl FnMut()) {
    let least = (0..ROUNDS)
        .map(|_| {
            let began = now();
            (0..CALLS).for_each(|_| call());
            began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what}: {least:.0} ns");
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}
