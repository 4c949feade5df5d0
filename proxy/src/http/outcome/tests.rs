//! What is observed and logged when something ends.

use std::io;
use std::sync::{Arc, Mutex};

use sealane_model::Traffic;
use sealane_model::Verdict::Up;
use sealane_model::publish::observation_channel;
use sealane_steering::{ClientPlace, GeoTable, How, SteeringPolicy};
use sealane_testkit::{Names, World};

use super::*;
use crate::config::RouteMatch;
use crate::http::retry::GiveUp;
use crate::http::route::RouteTable;
use crate::http::route::tests::route;
use crate::upstream::{Endpoints, LoadTable, SelectAsk, select};

fn selected() -> Selected {
    let world = World::new()
        .region("eu", Up)
        .endpoint("10.0.0.1:80", Up)
        .build();
    let place = ClientPlace::locate([192, 0, 2, 1].into(), How::Connection, &GeoTable::empty());
    let ask = SelectAsk {
        pool: world.pool_id("api"),
        policy: &SteeringPolicy::Nearest,
        balance: &Arc::default(),
        place: &place,
        key: 1,
        hash: None,
        random: 1,
        may_shed: false,
        now: clock::now().into_std(),
        repeatable: true,
        tried: &[],
    };
    select(
        &world,
        &Endpoints::new(Arc::default(), Traffic::default().shard()),
        &ask,
    )
    .unwrap()
}

fn routes() -> RouteTable {
    RouteTable::new(&[route("web", RouteMatch::default())])
}

/// What control hears of an attempt that ended so.
fn observed(end: AttemptEnd<'_>, reused: bool) -> Option<Observation> {
    let (sender, mut receiver) = observation_channel();
    let (loads, selected, routes) = (LoadTable::default(), selected(), routes());
    let load = loads.begin(selected.endpoint);
    let outcome = AttemptOutcome {
        route: routes.routes().next().unwrap(),
        selected: &selected,
        end,
        reused,
        retry: Some(Retry::GiveUp(GiveUp::AttemptsUsed)),
    };

    settle_attempt(&outcome, load, &sender);

    assert_eq!(loads.in_flight(selected.endpoint), 0);
    receiver.try_recv().ok()
}

#[test]
fn failures_of_transport_are_observed() {
    for failure in [
        Failure::Refused,
        Failure::Unreachable,
        Failure::ConnectTimedOut,
        Failure::Tls("bad".into()),
        Failure::TimedOut,
        Failure::Closed,
        Failure::Protocol("bad".into()),
    ] {
        let observation = observed(AttemptEnd::Failed(&failure), false).unwrap();

        assert_eq!(observation.endpoint, selected().endpoint);
        assert_eq!(observation.source, Source::Traffic);
        assert_eq!(observation.outcome, Outcome::Failed(failure));
    }
}

#[test]
fn answers_aborts_and_kept_connections_found_closed_are_not() {
    assert_eq!(observed(AttemptEnd::Answered, false), None);
    assert_eq!(observed(AttemptEnd::Abandoned, false), None);
    assert_eq!(observed(AttemptEnd::Failed(&Failure::Closed), true), None);
    assert!(observed(AttemptEnd::Failed(&Failure::TimedOut), true).is_some());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(outcome: &RequestOutcome<'_>) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || settle_request(outcome));
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

static ID: &str = "id-1";

fn refused() -> RequestOutcome<'static> {
    RequestOutcome {
        client: [192, 0, 2, 1].into(),
        method: &Method::GET,
        host: "www.test",
        path: "/a?token=secret",
        status: Some(StatusCode::NOT_FOUND),
        received: 0,
        sent: 12,
        route: None,
        selected: None,
        attempts: 0,
        hedge: None,
        way: None,
        session: None,
        took: Duration::from_millis(3),
        request_id: ID,
        refusal: Some("no_route"),
        cut_short: false,
        shared: None,
        tier: Tier::Second,
    }
}

#[test]
fn a_request_is_one_line_that_says_where_it_went_and_why() {
    let (selected, routes) = (selected(), routes());
    let line = logged(&RequestOutcome {
        status: Some(StatusCode::OK),
        route: routes.routes().next().map(|route| &**route),
        selected: Some(&selected),
        attempts: 2,
        hedge: None,
        way: None,
        session: None,
        refusal: None,
        ..refused()
    });

    assert_eq!(line.lines().count(), 1);
    for part in [
        "\"target\":\"sealane::access\"",
        "\"level\":\"INFO\"",
        "\"client\":\"192.0.2.1\"",
        "\"method\":\"GET\"",
        "\"host\":\"www.test\"",
        "\"path\":\"/a\"",
        "\"status\":200",
        "\"route\":\"web\"",
        "\"pool\":\"api\"",
        "\"region\":\"eu\"",
        "\"endpoint\":\"10.0.0.1:80\"",
        "\"attempts\":2",
        "\"reason\":\"nearest\"",
        "\"duration_ms\":3.0",
        "\"request_id\":\"id-1\"",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!line.contains("secret"));
    assert!(!line.contains("refusal"));
}

#[test]
fn a_refusal_names_its_kind_and_no_endpoint() {
    let line = logged(&refused());

    assert!(line.contains("\"refusal\":\"no_route\""), "{line}");
    assert!(line.contains("\"status\":404"), "{line}");
    assert!(!line.contains("\"endpoint\""), "{line}");
}

#[test]
fn what_a_stranger_writes_cannot_begin_a_line_of_its_own() {
    let line = logged(&RequestOutcome {
        host: "a\n{\"level\":\"ERROR\"}",
        ..refused()
    });

    assert_eq!(line.lines().count(), 1);
}
