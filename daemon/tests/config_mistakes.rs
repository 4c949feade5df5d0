//! Each mistake in a configuration file: where it is said to be, what is said, what is suggested.

use std::path::Path;

use sealane::config::{Loaded, Report, load_text};
use sealane_acme::ChallengeKind;
use sealane_model::{IdBook, ProxyVersion};
use sealane_proxy::config::{Action, BalancePolicy, HostPattern, ListenerProtocol, OnDown};

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("correct-horse-battery-staple".to_owned()),
        "PORT" => Some("8080".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn load_in(base: &Path, text: &str) -> Result<Loaded, Report> {
    load_text("test.yaml", text, base, &env, &mut IdBook::default())
}

fn load(text: &str) -> Result<Loaded, Report> {
    load_in(Path::new("/nonexistent"), text)
}

/// Lines that make a lawful file of whatever `extra` is about.
const BASE: &str = "\
version: 1
pools:
  api:
    regions:
      us-east-1: { endpoints: [{ address: \"10.0.0.1:80\" }] }
      eu-central-1: { endpoints: [{ address: \"10.0.0.2:80\" }] }
listeners: { web: { bind: \"127.0.0.1:80\" } }
routes: [{ pool: api }]
";
/// The first line of `extra` in the whole.
const EXTRA: usize = 9;

#[track_caller]
fn check(text: &str, wanted: &[&str]) {
    let report = load(text).expect_err("there is a mistake in it");
    let lines: Vec<String> = report.lines().collect();
    let wanted: Vec<String> = wanted
        .iter()
        .map(|line| format!("test.yaml:{line}"))
        .collect();
    assert_eq!(lines, wanted, "\n{report}");
    assert_eq!(report.mistakes(), wanted.len());
}

/// The mistakes in `extra`, whose own first line counts as 1.
#[track_caller]
fn check_extra(extra: &str, wanted: &[&str]) {
    let shift = |line: &&str| {
        let (number, rest) = line.split_once(':').expect("LINE:COLUMN: message");
        let number: usize = number.parse().expect("a line's number");
        format!("{}:{rest}", number + EXTRA - 1)
    };
    let wanted: Vec<String> = wanted.iter().map(shift).collect();
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    check(&format!("{BASE}{extra}"), &wanted);
}

/// One pool `api` with these further keys, on line 4.
#[track_caller]
fn check_pool(keys: &str, wanted: &[&str]) {
    let text = format!(
        "version: 1\npools:\n  api:\n    {keys}\n    regions:\n      us-east-1: {{ endpoints: [{{ \
         address: \"10.0.0.1:80\" }}] }}\nlisteners: {{ web: {{ bind: \"127.0.0.1:80\" }} }}\n\
         routes: [{{ pool: api }}]\n"
    );
    check(&text, wanted);
}

/// One zone `example.com` with these keys, on line 4 of what follows the base.
#[track_caller]
fn check_zone(keys: &str, wanted: &[&str]) {
    check_extra(
        &format!("dns:\n  zones:\n    example.com:\n      {keys}\n"),
        wanted,
    );
}

#[test]
fn the_base_of_these_tests_has_no_mistakes() {
    assert!(load(BASE).unwrap().warnings.is_empty());
}

#[test]
fn what_is_no_yaml_is_shown_where_it_stops_being_yaml() {
    check(
        "a:\n\tb: 1\n",
        &["2:2: not YAML: tabs disallowed within this context (block indentation)"],
    );
    check(
        "a: [1, 2\nb: 3",
        &["2:2: not YAML: illegal placement of ':' indicator"],
    );
    check("", &["1:1: the file is empty"]);
    check(
        "version: 1\n---\nx: 1\n",
        &["2:1: a second document begins here"],
    );
    check("[1, 2]\n", &["1:1: the file cannot be a list"]);
    check("? [a]\n: 1\n", &["1:3: a key must be a word"]);
}

#[test]
fn a_key_stands_once() {
    check_extra(
        "limits: { streams: 1, streams: 2 }\n",
        &["1:23: the key `streams` stands here twice"],
    );
    check_extra("pools: {}\n", &["1:1: the key `pools` stands here twice"]);
}

#[test]
fn tags_mean_nothing() {
    check_extra(
        "node: { name: !secret x }\n",
        &["1:23: the tag `!secret` means nothing here"],
    );
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    let report = load(&format!("{BASE}limitz: {{}}\n")).unwrap_err();
    assert_eq!(
        report.to_string(),
        "test.yaml:9:1: unknown key `limitz` in the file\n  |\n9 | limitz: {}\n  | ^^^^^^\n  = \
         expected `version`, `node`, `regions`, `defaults`, `pools`, `listeners`, `routes`, `dns`, `acme`, \
         `admin`, `limits`, `trusted_proxies`, `sticky_keys`, `tier_header`, `name_endpoint` or `global_load_balancer`\n  = help: \
         did you mean `limits`?\n\n1 mistake in test.yaml"
    );
    let report = load(&format!("{BASE}zebra: {{}}\n")).unwrap_err();
    assert!(!report.to_string().contains("did you mean"), "{report}");
}

#[test]
fn the_report_can_be_coloured() {
    let report = load(&format!("{BASE}limitz: {{}}\n")).unwrap_err();
    assert!(
        report
            .coloured()
            .contains("\x1b[31munknown key `limitz` in the file\x1b[0m")
    );
    assert!(!report.to_string().contains('\x1b'));
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    let report = load("version: 1\nx: \"\\e[2J\" # \u{9b}31m\n\"k\\e\": 1\n").unwrap_err();
    assert!(
        !report.to_string().contains(['\x1b', '\u{9b}']),
        "{report:?}"
    );
}

#[test]
fn keys_of_later_versions_are_refused_as_such() {
    check_pool(
        "discovery: { dns: api.internal }",
        &["4:5: this version of Sealane does not know `discovery` in `pools.api`"],
    );
    check_pool(
        "protocol: tcp",
        &["4:15: `pools.api.protocol`: `tcp` isn't known to this version of Sealane"],
    );
    let text = BASE.replace(
        "{ pool: api }",
        "{ pool: api, hedge: { max: 2 }, cache: 1 }",
    );
    check(
        &text,
        &[
            "8:32: this version of Sealane does not know `max` in `routes[0].hedge`",
            "8:42: this version of Sealane does not know `cache` in `routes[0]`",
        ],
    );
}

#[test]
fn a_missing_key_is_named_where_it_should_be() {
    check(
        "pools: {}\n",
        &["1:1: the key `version` is missing in the file"],
    );
    let text = BASE.replace("{ address: \"10.0.0.1:80\" }", "{ az: a }");
    check(
        &text,
        &["5:34: the key `address` is missing in `pools.api.regions.us-east-1.endpoints[0]`"],
    );
}

#[test]
fn only_version_1_is_read() {
    check(
        &BASE.replace("version: 1", "version: 2"),
        &["1:10: `version`: `2` is a version that this Sealane does not read"],
    );
}

#[test]
fn values_of_the_wrong_type_are_shown_with_the_right_one() {
    check_extra(
        "node: 5\nlimits: { streams: many, connections: \"10\" }\nname_endpoint: yes\n\
         trusted_proxies: 10.0.0.0/8\nadmin: ~\n",
        &[
            "1:7: `node` cannot be `5`",
            "2:20: `limits.streams` cannot be `many`",
            "2:39: `limits.connections`: `10` is text, not a number",
            "3:16: `name_endpoint` cannot be `yes`",
            "4:18: `trusted_proxies` cannot be `10.0.0.0/8`",
            "5:8: `admin` cannot be nothing",
        ],
    );
    check_extra(
        "node: { name: 12, region: true }\n",
        &[
            "1:15: `node.name`: `12` is a number, not text",
            "1:27: `node.region`: `true` is true or false, not text",
        ],
    );
}

#[test]
fn units_are_never_guessed() {
    check_extra(
        "limits: { head_timeout: 5, keep_alive: 5sec, head_bytes: 64kb, handshake_timeout: 5 s }\n",
        &[
            "1:25: `limits.head_timeout`: `5` lacks a unit",
            "1:40: `limits.keep_alive`: `5sec` has the unknown unit `sec`",
            "1:58: `limits.head_bytes`: `64kb` has the unknown unit `kb`",
            "1:83: `limits.handshake_timeout` cannot be `5 s`",
        ],
    );
    check_pool(
        "failover: { threshold: 50 }",
        &["4:28: `pools.api.failover.threshold`: `50` is out of range"],
    );
}

#[test]
fn ranges_are_kept() {
    check_extra(
        "limits: { head_timeout: 2h, streams: 0, head_bytes: 1B }\n\
         node: { first_round_limit: 99999999999999999999999d }\n",
        &[
            "1:25: `limits.head_timeout`: `2h` is out of range",
            "1:38: `limits.streams`: `0` is out of range",
            "1:53: `limits.head_bytes`: `1B` is out of range",
            "2:28: `node.first_round_limit`: `99999999999999999999999d` is out of range",
        ],
    );
    check_extra(
        "regions: { here: { location: [100, 8] }, there: { location: [1] } }\n",
        &[
            "1:30: `regions.here.location` lies off the globe",
            "1:61: `regions.there.location` cannot be a list",
        ],
    );
    check_pool(
        "failover: { threshold: 0% }",
        &["4:28: a threshold of 0% would keep every region out"],
    );
}

#[test]
fn names_that_do_not_exist_are_shown_with_the_nearest() {
    let report = load(&BASE.replace("pool: api", "pool: apo")).unwrap_err();
    assert!(
        report.to_string().contains("did you mean `api`?"),
        "{report}"
    );
    check(
        &BASE.replace("pool: api", "pool: apo"),
        &["8:18: there is no pool `apo`"],
    );
    check(
        &BASE.replace("us-east-1", "us_east_1"),
        &["5:7: there is no region `us_east_1`"],
    );
    check_extra(
        "node: { region: eu-central-7 }\ndns: { geo: { overrides: [{ net: 10.0.0.0/8, region: nowhere }] } }\n",
        &[
            "1:17: there is no region `eu-central-7`",
            "2:54: there is no region `nowhere`",
        ],
    );
    check_zone(
        "steered: { \"@\": { pool: apo } }",
        &["4:31: there is no pool `apo`"],
    );
}

#[test]
fn pools_are_not_empty() {
    let text = BASE.replace("[{ address: \"10.0.0.1:80\" }]", "[]");
    check(
        &text,
        &["5:31: the region `us-east-1` of this pool has no endpoints"],
    );
    let text = "version: 1\npools: { api: { regions: {} } }\n\
                listeners: { web: { bind: \"127.0.0.1:80\" } }\nroutes: [{ pool: api }]\n";
    check(text, &["2:15: the pool `api` has no region"]);
}

#[test]
fn something_must_weigh_something() {
    let zero = "{ address: \"10.0.0.1:80\", weight: 0 }";
    let text = BASE.replace("{ address: \"10.0.0.1:80\" }", zero);
    check(
        &text,
        &["5:31: all endpoints of `us-east-1` have the weight 0"],
    );
    check_pool(
        "steering: { weights: { us-east-1: 0 } }",
        &["3:3: all regions of the pool `api` have the weight 0"],
    );
}

#[test]
fn endpoints_are_addresses_with_ports_and_stand_once() {
    let cases = [
        ("http://10.0.0.1/", "`http://10.0.0.1/` is a URL"),
        ("10.0.0.1", "`10.0.0.1` lacks a port"),
        ("host", "`host` lacks a port"),
        ("host:0", "`host:0` has the port 0"),
        ("host:99999", "`host:99999` has no lawful port"),
        ("-host:80", "`-host:80` has no lawful host name"),
    ];
    for (address, message) in cases {
        let text = BASE.replace("10.0.0.1:80", address);
        let path = "`pools.api.regions.us-east-1.endpoints[0].address`";
        check(&text, &[&format!("5:43: {path}: {message}")]);
    }
    let twice = "{ address: \"10.0.0.1:80\" }, { address: \"10.0.0.1:80\" }";
    let text = BASE.replace("{ address: \"10.0.0.1:80\" }", twice);
    check(&text, &["5:71: the endpoint 10.0.0.1:80 stands here twice"]);
}

#[test]
fn probes_end_before_the_next_one_and_are_of_one_kind() {
    check_pool(
        "probe: { interval: 2s, timeout: 2s }",
        &["4:37: the probe's timeout of 2s is not below its interval of 2s"],
    );
    check_pool(
        "probe: { recheck: 10s }",
        &["4:23: the recheck after 10s comes later than the next probe, after 5s"],
    );
    check_pool(
        "probe: { http: {}, tcp: {} }",
        &["4:20: a probe is over `http` or over `tcp`, not both"],
    );
    check_pool(
        "probe: { http: { path: health } }",
        &["4:28: `health` is no path"],
    );
    check_pool(
        "probe: { http: { expect: [200, 600, 299-200] } }",
        &[
            "4:36: `pools.api.probe.http.expect[1]`: `600` is out of range",
            "4:41: `pools.api.probe.http.expect[2]`: `299-200` ends before it begins",
        ],
    );
}

#[test]
fn a_promise_of_detection_is_checked_with_its_arithmetic() {
    check_pool(
        "failover: { detection_time: 9s }",
        &[
            "4:33: a `detection_time` of 9s cannot be met: at worst a dead endpoint is found after \
             10s = 5.5s (interval 5s and a tenth) + 2s (timeout) + 500ms (recheck) + 2s (timeout)",
        ],
    );
    check_pool(
        "failover: { detection_time: 10s }\n    probe: { fall: 4 }",
        &[
            "4:33: a `detection_time` of 10s cannot be met: at worst a dead endpoint is found after \
             21s = 5.5s (interval 5s and a tenth) + 2s (timeout) + 500ms (recheck) + 2 × 5.5s \
             (further failures) + 2s (timeout)",
        ],
    );
}

#[test]
fn steering_has_what_its_policy_needs_and_no_more() {
    check_pool(
        "steering: { policy: nearest, weights: { us-east-1: 1 } }",
        &["4:43: the policy `nearest` has no weights"],
    );
    check_pool(
        "steering: { region: us-east-1 }",
        &["4:25: the policy `weighted_latency` has no region"],
    );
    check_pool(
        "steering: { policy: pinned }",
        &["4:25: the policy `pinned` lacks its `region`"],
    );
    check_pool(
        "steering: { policy: pinned, region: us-west-2 }",
        &["4:41: the pool `api` has no region `us-west-2`"],
    );
    check_pool(
        "steering: { weights: { us-east-2: 1 } }",
        &["4:28: the pool `api` has no region `us-east-2`"],
    );
    check_pool(
        "steering: { policy: wieghted }",
        &["4:25: `pools.api.steering.policy`: `wieghted` isn't known"],
    );
    check_pool(
        "failover: { ramp: fast }",
        &["4:23: `pools.api.failover.ramp` cannot be `fast`"],
    );
    check_pool(
        "failover: { ramp: { steps: [] } }",
        &["4:32: a ramp without steps"],
    );
    check_pool(
        "failover: { ramp: { steps: [25%, 5%] } }",
        &["4:38: a ramp's steps must rise, from above 0% to below 100%"],
    );
    check_pool(
        "failover: { ramp: { steps: [50%, 100%] } }",
        &["4:38: a ramp's steps must rise, from above 0% to below 100%"],
    );
    check_pool(
        "steering: { clients: [{ nets: 10.0.0.0/8, regions: us-west-2 }] }",
        &["4:56: the pool `api` has no region `us-west-2`"],
    );
    check_pool(
        "steering: { clients: [{ nets: [], regions: us-east-1 }] }",
        &["4:27: these clients could be served nowhere, or nobody is meant"],
    );
    check_pool(
        "steering: { clients: [{ regions: us-east-1 }] }",
        &["4:27: these clients could be served nowhere, or nobody is meant"],
    );
    check_pool(
        "steering: { clients: [{ countries: [DE, de], continents: XX, regions: us-east-1 }] }",
        &["4:45: `de` is no country", "4:62: `XX` is no continent"],
    );
    check_pool(
        "steering: { clients: [{ countries: DE, regions: us-east-1 }] }",
        &["4:27: nothing says where countries and continents are"],
    );
    check_pool(
        "steering: { clients: [{ asns: [64500], regions: us-east-1 }] }",
        &["4:27: nothing says where autonomous systems are"],
    );
    check_pool(
        "steering: { clients: [{ asns: 0, regions: us-east-1 }] }",
        &["4:35: `pools.api.steering.clients[0].asns`: `0` is out of range"],
    );
    check_pool(
        "failover: { all_down: fail-open }",
        &["4:27: `pools.api.failover.all_down` cannot be `fail-open`"],
    );
}

#[test]
fn sockets_are_not_shared() {
    check_extra(
        "admin: { bind: \"127.0.0.1:80\" }\n",
        &["1:16: 127.0.0.1:80 of the admin API is taken by the listener `web`"],
    );
    check_extra(
        "admin: { bind: \"0.0.0.0:80\" }\n",
        &["1:16: 0.0.0.0:80 of the admin API is taken by the listener `web`"],
    );
    check_extra(
        "dns: { bind: \"[::]:53\", zones: { example.com: { ns: ns.other.test } } }\n\
         admin: { bind: [\"[::1]:53\", \"0.0.0.0:53\"] }\n",
        &["2:17: [::1]:53 of the admin API is taken by the name server"],
    );
    assert!(
        load(
            &BASE
                .replace("127.0.0.1:80", "127.0.0.1:0\", \"127.0.0.1:0")
                .replace(
                    "bind: \"127.0.0.1:0\", \"127.0.0.1:0\"",
                    "bind: [\"127.0.0.1:0\", \"127.0.0.1:0\"]"
                )
        )
        .is_ok()
    );
    check_extra(
        "admin: { bind: \":9900\" }\n",
        &["1:16: `admin.bind`: `:9900` lacks an address"],
    );
}

#[test]
fn listeners_have_certificates_when_they_need_them() {
    let with = |listener: &str| BASE.replace("{ bind: \"127.0.0.1:80\" }", listener);
    check(
        &with("{ bind: \"127.0.0.1:80\", protocol: https }"),
        &["7:53: the listener `web` lacks a certificate"],
    );
    check(
        &with("{ bind: \"127.0.0.1:80\", certificates: [] }"),
        &["7:57: a listener of `http` has no certificates"],
    );
    check(
        &with(
            "{ bind: \"127.0.0.1:80\", protocol: https, certificates: [{ chain: a.pem, key: a.key }] }",
        ),
        &[
            "7:84: /nonexistent/a.pem cannot be read: No such file or directory (os error 2)",
            "7:96: /nonexistent/a.key cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn a_listener_for_tcp_has_a_pool_and_one_for_http_has_none() {
    let with = |keys: &str| {
        let listeners = format!("db: {{ bind: \"127.0.0.1:5432\", {keys} }}, web:");
        BASE.replace("listeners: { web:", &format!("listeners: {{ {listeners}"))
    };
    let loaded = load(&with("protocol: tcp, pool: api")).unwrap();
    let ListenerProtocol::Tcp { how, .. } = &loaded.rules.proxy.listeners[0].protocol else {
        panic!("{loaded:?}");
    };
    assert_eq!(how.timeouts.connect.as_secs(), 1);
    assert_eq!(how.timeouts.idle.as_secs(), 3_600);
    assert_eq!(how.timeouts.lifetime, None);
    assert_eq!(how.on_down, OnDown::Keep);

    check(
        &with("protocol: tcp"),
        &["7:54: the listener `db` lacks a pool"],
    );
    check(
        &with("protocol: tcp, pool: apo"),
        &["7:65: there is no pool `apo`"],
    );
    check(
        &with("protocol: tcp, pool: api, certificates: []"),
        &["7:84: a listener of `tcp` has no certificates"],
    );
    check(
        &with("pool: api, timeouts: { idle: 5s }, on_down: close"),
        &[
            "7:50: a listener of `http` has no pool of its own",
            "7:65: a listener of `http` has no `timeouts`",
            "7:88: a listener of `http` has no `on_down`",
        ],
    );
    let over_tls = with("protocol: tcp, pool: api").replace(
        "{ address: \"10.0.0.1:80\" }",
        "{ address: \"10.0.0.1:80\", tls: {} }",
    );
    check(&over_tls, &["7:65: the pool `api` is spoken to over TLS"]);
}

#[test]
fn server_names_lead_to_pools_and_each_stands_once() {
    let with = |keys: &str| {
        let listeners =
            format!("db: {{ bind: \"127.0.0.1:5432\", protocol: tls_passthrough, {keys} }}, web:");
        BASE.replace("listeners: { web:", &format!("listeners: {{ {listeners}"))
    };
    let loaded = load(&with("sni: [{ match: \"*.Example.com\", pool: api }]")).unwrap();
    let ListenerProtocol::TlsPassthrough {
        names, otherwise, ..
    } = &loaded.rules.proxy.listeners[0].protocol
    else {
        panic!("{loaded:?}");
    };
    assert_eq!(names[0].0, HostPattern::Suffix(".example.com".into()));
    assert!(otherwise.is_none());
    load(&with("pool: api")).unwrap();

    check(&with("sni: []"), &["7:54: the listener `db` leads nowhere"]);
    check(
        &with("sni: [{ match: a.test, pool: api }, { match: A.test, pool: api }]"),
        &["7:116: the server name `A.test` stands here twice"],
    );
    check(
        &with("sni: [{ match: \"*\", pool: api }, { match: 10.0.0.1, pool: api }]"),
        &[
            "7:86: no client asks for the server name `*`",
            "7:113: no client asks for the server name `10.0.0.1`",
        ],
    );
    let of_http = BASE.replace("\"127.0.0.1:80\"", "\"127.0.0.1:80\", sni: []");
    check(&of_http, &["7:48: a listener of `http` has no `sni`"]);
}

#[test]
fn proxy_headers_are_read_from_somebody_and_told_to_sessions_alone() {
    let with = |keys: &str| BASE.replace("\"127.0.0.1:80\"", &format!("\"127.0.0.1:80\", {keys}"));
    let loaded = load(&with("proxy_protocol: { from: [10.0.0.0/8] }")).unwrap();
    assert_eq!(loaded.rules.proxy.listeners[0].senders.len(), 1);
    check(
        &with("proxy_protocol: { from: [] }"),
        &["7:67: a PROXY header is read from nobody"],
    );
    check(
        &with("proxy_protocol: {}"),
        &["7:59: the key `from` is missing in `listeners.web.proxy_protocol`"],
    );
    let loaded = load(&with("proxy_protocol: { from: [0.0.0.0/0] }")).unwrap();
    assert!(loaded.warnings[0].contains("0.0.0.0/0 is everybody"));

    check(
        &BASE.replace("  api:\n", "  api:\n    proxy_protocol: v2\n"),
        &["9:18: the pool `api` wants PROXY headers, which requests do not have"],
    );
    let other = BASE.replace(
        "listeners: { web:",
        "listeners: { db: { bind: \"127.0.0.1:5432\", protocol: tcp, pool: db }, web:",
    );
    let other = other.replace(
        "pools:\n",
        "pools:\n  db: { proxy_protocol: v1, regions: { us-east-1: { endpoints: [{ address: \"10.0.0.9:1\" }, \
         { address: \"10.0.0.8:1\", proxy_protocol: none }] } } }\n",
    );
    let loaded = load(&other).unwrap();
    let endpoints = loaded.rules.control.topology.endpoints();
    let told: Vec<_> = endpoints.map(|endpoint| endpoint.proxy_protocol).collect();
    assert_eq!(told[..2], [Some(ProxyVersion::V1), None]);
}

/// `node` and a listener whose certificate is ordered, with `acme` as given.
fn ordering(state: &str, acme: &str, certificate: &str) -> String {
    let listener =
        format!("{{ bind: \"127.0.0.1:443\", protocol: https, certificates: [{certificate}] }}");
    BASE.replace("{ bind: \"127.0.0.1:80\" }", &listener) + state + acme
}

const STATE: &str = "node: { state_dir: state }\n";
const ACME: &str = "acme: { terms_agreed: true }\n";

#[test]
fn certificates_are_ordered_where_the_file_says_all_that_it_takes() {
    let names = "{ acme: [b.example.com, A.example.com., b.example.com] }";
    let loaded = load(&ordering(STATE, ACME, names)).unwrap();
    assert_eq!(loaded.warnings, [] as [&str; 0]);

    let config = loaded.rules.acme.unwrap();
    assert_eq!(
        &*config.directory,
        "https://acme-v02.api.letsencrypt.org/directory"
    );
    assert_eq!(config.folder, Path::new("/nonexistent/state/acme"));
    assert_eq!(config.challenges, [ChallengeKind::TlsAlpn01]);
    let wanted: Vec<String> = config.wanted.iter().map(ToString::to_string).collect();
    assert_eq!(wanted, ["a.example.com, b.example.com"]);

    let with_http = ordering(STATE, ACME, names).replace(
        "listeners: { ",
        "listeners: { plain: { bind: \"127.0.0.1:80\" }, ",
    );
    let config = load(&with_http).unwrap().rules.acme.unwrap();
    assert_eq!(
        config.challenges,
        [ChallengeKind::Http01, ChallengeKind::TlsAlpn01]
    );
    assert_eq!(load(BASE).unwrap().rules.acme, None);
}

#[test]
fn what_an_order_lacks_is_a_mistake() {
    let name = "{ acme: a.example.com }";
    let at = "7:84";
    check(
        &ordering(STATE, "", name),
        &[&format!(
            "{at}: nothing says where certificates are ordered"
        )],
    );
    check(
        &ordering("", ACME, name),
        &[&format!("{at}: what is issued has no place to be kept")],
    );
    check(
        &ordering(STATE, "acme: {}\n", name),
        &["10:7: the authority's terms of service are not agreed to"],
    );
    let acme = |keys: &str| format!("acme: {{ terms_agreed: true, {keys} }}\n");
    check(
        &ordering(STATE, &acme("directory: \"http://ca.test/\""), name),
        &["10:40: `http://ca.test/` is no directory"],
    );
    check(
        &ordering(STATE, &acme("contact: ops@example.com"), name),
        &["10:38: `ops@example.com` is no contact"],
    );
    check(
        &ordering(STATE, &acme("ca: roots.pem"), name),
        &["10:33: /nonexistent/roots.pem cannot be read: No such file or directory (os error 2)"],
    );
    check(
        &ordering(STATE, &acme("challenges: []"), name),
        &["10:41: no way is left to prove a name"],
    );
}

#[test]
fn certificates_are_ordered_for_host_names_alone() {
    for wrong in [
        "\"*.example.com\"",
        "192.0.2.1",
        "localhost",
        "under_score.example.com",
    ] {
        let text = ordering(STATE, ACME, &format!("{{ acme: [{wrong}] }}"));
        let wrong = wrong.trim_matches('"');
        check(
            &text,
            &[&format!("7:85: no certificate is issued for `{wrong}`")],
        );
    }
    check(
        &ordering(STATE, ACME, "{ acme: [] }"),
        &["7:84: a certificate is for 0 names"],
    );
    check(
        &ordering(STATE, ACME, "{ acme: a.example.com, key: a.key }"),
        &["7:76: a certificate is either two files or ordered by `acme`"],
    );
}

#[test]
fn a_udp_listener_has_a_pool_and_nothing_of_http_s() {
    let with = |listener: &str| BASE.replace("{ bind: \"127.0.0.1:80\" }", listener);
    check(
        &with("{ bind: \"127.0.0.1:80\", protocol: udp }"),
        &["7:53: the listener `web` lacks a pool"],
    );
    check(
        &with("{ bind: \"127.0.0.1:80\", protocol: udp, pool: ap, certificates: [] }"),
        &[
            "7:64: there is no pool `ap`",
            "7:82: a listener of `udp` has no certificates",
        ],
    );
    check(
        &with("{ bind: \"127.0.0.1:80\", pool: api, timeouts: { idle: 1s }, on_down: keep }"),
        &[
            "7:49: a listener of `http` has no pool of its own",
            "7:64: a listener of `http` has no `timeouts`",
            "7:87: a listener of `http` has no `on_down`",
        ],
    );
    check(
        &with("{ bind: \"127.0.0.1:80\", protocol: udp, pool: api, flows: { answers: 0 } }"),
        &["7:87: `listeners.web.flows.answers`: `0` is out of range"],
    );
}

#[test]
fn tcp_and_udp_have_ports_of_their_own() {
    let udp = "bind: \"127.0.0.1:80\", protocol: udp, pool: api";
    let with = |more: &str| {
        let listeners = format!("{{ bind: \"127.0.0.1:80\" }}, udp: {{ {udp} }}{more}");
        BASE.replace("{ bind: \"127.0.0.1:80\" }", &listeners)
    };
    assert!(load(&with("")).is_ok());
    check(
        &with(", too: { bind: \"0.0.0.0:80\", protocol: udp, pool: api }"),
        &["7:115: 0.0.0.0:80 of the listener `too` is taken by the listener `udp`"],
    );
}

/// A folder with a certificate, its key, and the key of another one.
fn folder_with_certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("it works in every run");
    let names = || vec!["localhost".to_owned()];
    let ours = rcgen::generate_simple_self_signed(names()).expect("it works in every run");
    let other = rcgen::generate_simple_self_signed(names()).expect("it works in every run");
    let write = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).expect("it works in every run")
    };
    write("a.pem", ours.cert.pem());
    write("a.key", ours.signing_key.serialize_pem());
    write("b.key", other.signing_key.serialize_pem());
    write("junk", "junk".to_owned());
    folder
}

#[test]
fn keys_belong_to_their_certificates() {
    let folder = folder_with_certificates();
    let with = |chain: &str, key: &str| {
        let listener = format!(
            "{{ bind: \"127.0.0.1:80\", protocol: https, certificates: [{{ chain: {chain}, key: {key} }}] }}"
        );
        let text = BASE.replace("{ bind: \"127.0.0.1:80\" }", &listener);
        load_in(folder.path(), &text)
    };
    let first = |result: Result<Loaded, Report>| result.unwrap_err().lines().next().unwrap();

    let loaded = with("a.pem", "a.key").unwrap();
    let files: Vec<_> = loaded
        .files
        .iter()
        .filter_map(|f| f.path.file_name())
        .collect();
    assert_eq!(files, ["a.pem", "a.key"]);
    assert_eq!(
        first(with("a.pem", "b.key")),
        "test.yaml:7:96: the key `b.key` does not belong to the certificate `a.pem`"
    );
    assert!(first(with("junk", "a.key")).starts_with("test.yaml:7:84: `junk` "));
    assert!(first(with("a.pem", "junk")).starts_with("test.yaml:7:96: `junk` "));
}

#[test]
fn authorities_of_endpoints_are_read() {
    let folder = folder_with_certificates();
    let with = |tls: &str| {
        let endpoint = format!("{{ address: \"10.0.0.1:80\", tls: {tls} }}");
        let text = BASE.replace("{ address: \"10.0.0.1:80\" }", &endpoint);
        load_in(folder.path(), &text)
    };
    let first = |result: Result<Loaded, Report>| result.unwrap_err().lines().next().unwrap();
    assert!(with("{ ca: a.pem }").is_ok());
    assert!(with("{}").is_ok());
    assert!(first(with("{ ca: junk }")).contains(":5:69: "));
    assert!(first(with("{ ca: missing.pem }")).contains("missing.pem cannot be read"));
    assert!(first(with("{ server_name: \"a b\" }")).contains("`a b` can be no server's name"));
}

#[test]
fn what_clients_are_asked_for_is_asked_once_and_can_be_shown() {
    let folder = folder_with_certificates();
    let with = |tls: &str| {
        let listener = format!(
            "{{ bind: \"127.0.0.1:443\", protocol: https, certificates: [{{ chain: a.pem, key: a.key }}], tls: {tls} }}"
        );
        let text = BASE.replace("{ bind: \"127.0.0.1:80\" }", &listener);
        load_in(folder.path(), &text)
    };
    let said = |tls: &str| -> Vec<String> {
        let report = with(tls).unwrap_err();
        let lines = report.lines();
        lines
            .map(|line| line.splitn(4, ':').last().unwrap().trim().to_owned())
            .collect()
    };
    for lawful in [
        "{}",
        "{ minimum: \"1.3\" }",
        "{ minimum: 1.2 }",
        "{ client_auth: [{ ca: a.pem }] }",
        "{ client_auth: [{ ca: a.pem, mode: optional, for: [a.test, \"*.a.test\"], allow: { san: x.test } }, { ca: a.pem }] }",
    ] {
        assert!(
            with(lawful).is_ok(),
            "{lawful}: {}",
            with(lawful).unwrap_err()
        );
    }
    assert!(said("{ minimum: \"1.1\" }")[0].contains("is forbidden (RFC 8996)"));
    assert_eq!(
        said("{ client_auth: [{ ca: a.pem }, { ca: a.pem }] }"),
        ["two entries are for all other names"]
    );
    assert_eq!(
        said("{ client_auth: [{ ca: a.pem, for: a.test }, { ca: a.pem, for: A.test }] }"),
        ["`a.test` stands here twice"]
    );
    assert_eq!(
        said("{ client_auth: [{ ca: a.pem, for: [] }] }"),
        ["no name is asked about"]
    );
    assert_eq!(
        said(
            "{ client_auth: [{ ca: a.pem, for: \"a b\", allow: { san: \"a b\", spiffe: \"spiffe://X\" } }] }"
        ),
        [
            "no client asks for the server name `a b`",
            "no certificate has the host name `a b`",
            "`spiffe://X` is no SPIFFE identity",
        ]
    );
    assert_eq!(
        said("{ client_auth: [{ ca: a.pem, allow: {} }] }"),
        ["nobody is let in"]
    );
    assert!(said("{ client_auth: [{ ca: junk }] }")[0].contains("`junk`: no usable authorities"));
    assert!(said("{ client_auth: [{ ca: missing }] }")[0].contains("missing cannot be read"));
    assert_eq!(
        said("{ client_auth: [{ ca: a.pem, crl: a.pem }] }"),
        ["`a.pem`: no usable revocation list: the file has no revocation list"]
    );
    let plain = BASE.replace("\"127.0.0.1:80\"", "\"127.0.0.1:80\", tls: {}");
    check(&plain, &["7:48: a listener of `http` has no `tls`"]);
}

#[test]
fn names_that_need_a_certificate_and_can_be_had_without_are_warned_of() {
    let folder = folder_with_certificates();
    let warnings = |client_auth: &str, route: &str| {
        let listeners = format!(
            "{{ bind: \"127.0.0.1:443\", protocol: https, certificates: [{{ chain: a.pem, key: a.key }}], tls: {{ client_auth: [{client_auth}] }} }}, open: {{ bind: \"127.0.0.1:80\" }}"
        );
        let text = BASE
            .replace("{ bind: \"127.0.0.1:80\" }", &listeners)
            .replace("{ pool: api }", route);
        load_in(folder.path(), &text).unwrap().warnings.join("\n")
    };
    let hosted = "{ pool: api, match: { host: in.test } }";

    let both = warnings("{ ca: a.pem, for: in.test }", "{ pool: api }");
    assert!(
        both.contains("the listener `open` serves `in.test` without asking"),
        "{both}"
    );
    assert!(both.contains("the route `api` serves every host"), "{both}");
    let one = warnings("{ ca: a.pem, for: in.test }", hosted);
    assert!(!one.contains("serves every host"), "{one}");
    let none = warnings("{ ca: a.pem, for: in.test, mode: optional }", hosted);
    assert_eq!(none, "");
}

#[test]
fn the_tls_of_a_pool_holds_for_its_endpoints_and_theirs_wins_key_by_key() {
    let folder = folder_with_certificates();
    let text = BASE
        .replace("  api:\n", "  api:\n    tls: { ca: a.pem, certificate: { chain: a.pem, key: a.key }, minimum: \"1.3\" }\n")
        .replace("{ address: \"10.0.0.2:80\" }", "{ address: \"10.0.0.2:80\", tls: { server_name: two.test, minimum: \"1.2\" } }");

    let loaded = load_in(folder.path(), &text).unwrap();

    let topology = &loaded.rules.control.topology;
    let tls: Vec<_> = topology
        .endpoints()
        .map(|one| one.tls.clone().unwrap())
        .collect();
    assert_eq!(&*tls[0].server_name, "10.0.0.1");
    assert_eq!(&*tls[1].server_name, "two.test");
    assert_eq!(tls[0].roots, tls[1].roots);
    assert!(tls[0].certificate.is_some() && tls[0].certificate == tls[1].certificate);
    assert!(tls[0].minimum > tls[1].minimum);

    let wrong = text.replace("key: a.key", "key: b.key");
    let report = load_in(folder.path(), &wrong).unwrap_err();
    assert_eq!(
        report.mistakes(),
        1,
        "said once, not for each endpoint: {report}"
    );
    assert!(
        report
            .to_string()
            .contains("does not belong to the certificate")
    );
}

#[test]
fn routes_match_what_requests_can_have() {
    let with = |keys: &str| {
        BASE.replace(
            "{ pool: api }",
            &format!("{{ pool: api, match: {{ {keys} }} }}"),
        )
    };
    check(
        &with(
            "host: \"a.example:80\", path_prefix: v1, methods: [get], headers: { \"a b\": x, host: y }",
        ),
        &[
            "8:38: no request has the host `a.example:80`",
            "8:67: `v1` is no path",
            "8:81: `get` is no HTTP method",
            "8:98: `a b` is no header field's name",
            "8:108: the host is not matched as a header",
        ],
    );
    let report = load(&with("path_prefix: /v1/*")).unwrap_err();
    assert!(
        report.to_string().contains("`/v1` matches all below it"),
        "{report}"
    );
}

#[test]
fn time_limits_of_a_request_fit_into_one_another() {
    let with = |keys: &str| {
        BASE.replace(
            "{ pool: api }",
            &format!("{{ pool: api, timeouts: {{ {keys} }} }}"),
        )
    };
    check(
        &with("connect: 5s, attempt: 2s"),
        &["8:44: `connect` of 5s is longer than `attempt` of 2s"],
    );
    check(
        &with("attempt: 5s, request: 2s"),
        &["8:44: `attempt` of 5s is longer than `request` of 2s"],
    );
    let timeouts = |keys: &str| {
        load(&with(keys)).unwrap().rules.proxy.routes[0]
            .timeouts
            .clone()
    };
    assert_eq!(timeouts("request: 500ms").attempt.as_millis(), 500);
    assert_eq!(timeouts("connect: 5s").attempt.as_secs(), 5);
}

#[test]
fn listeners_and_routes_need_each_other() {
    check(
        &BASE.replace("routes: [{ pool: api }]\n", ""),
        &["1:1: there are listeners but no routes"],
    );
    check("version: 1\n", &["1:1: the file gives nothing to do"]);
    let report = load(&BASE.replace(
        "[{ pool: api }]",
        "[{ pool: api, name: a }, { pool: api, name: a }]",
    ));
    assert!(
        report
            .unwrap_err()
            .to_string()
            .contains(": two routes are called `a`")
    );
}

#[test]
fn what_is_lawful_but_looks_wrong_is_a_warning() {
    let loaded = load(&BASE.replace("[{ pool: api }]", "[{ pool: api }, { pool: api }]")).unwrap();
    assert_eq!(
        loaded.warnings,
        [
            "test.yaml:8:25: the route `api-2` serves nothing: `api` matches the same and comes first"
        ]
    );
    let text = format!("{BASE}admin: {{ bind: \"0.0.0.0:9900\" }}\n");
    assert!(
        load(&text).unwrap().warnings[0]
            .starts_with("test.yaml:9:16: the admin API can be reached")
    );
}

#[test]
fn what_a_steered_name_says_for_itself_is_checked() {
    check_zone(
        "steered: { a: { pool: api, hosts: { mars: x.example.net } } }",
        &["4:43: there is no region `mars`"],
    );
    check_zone(
        "steered: { a: { pool: api, hosts: { eu-central-1: \"x..y\" } } }",
        &[
            "4:57: this is no host name: \"x..y\" has an empty label (two dots together, or one at the beginning)",
        ],
    );
    check_zone(
        "steered: { a: { pool: api, https: \"colour=red\" } }",
        &[
            "4:41: no parameters of HTTPS: \"colour=red\" is not a parameter such as alpn=h2 or port=8443",
        ],
    );
    check_zone(
        "steered: { a: { pool: api, hosts: { eu-central-1: x.example.net }, https: \"alpn=h2\" } }",
        &["4:81: a name with `hosts` is a CNAME and has no HTTPS record of its own"],
    );
    check_zone(
        "steered: { a: { pool: api, hosts: { eu-central-1: x.example.net }, canary: { pool: api, share: 5% } } }",
        &["4:82: a name with `hosts` has no canary: its hosts are those of one pool's regions"],
    );
    check_zone(
        "steered: { a: { pool: api, canary: { pool: apj, share: 5% } } }",
        &["4:50: there is no pool `apj`"],
    );
    check_zone(
        "steered: { a: { pool: api, steering: { policy: pinned } } }",
        &["4:54: the policy `pinned` lacks its `region`"],
    );
    check_zone(
        "steered: { a: { pool: api, steering: { policy: weighted, weights: { mars: 1 } } } }",
        &["4:75: the pool `api` has no region `mars`"],
    );
    check_zone(
        "steered: { \"@\": { pool: api, hosts: { eu-central-1: x.example.net } } }",
        &[
            "3:5: example.com is steered by `hosts`, which makes it a CNAME, and has other records; a CNAME stands alone",
        ],
    );
}

#[test]
fn what_is_asked_encrypted_has_a_certificate_an_address_of_its_own_and_a_path() {
    let zone = "zones: { example.com: { ns: ns.other.test } }";
    let tls = |keys: &str| format!("dns: {{ {zone}, tls: {{ {keys} }} }}\n");
    let https = |keys: &str| format!("dns: {{ {zone}, https: {{ {keys} }} }}\n");
    check_extra(
        &tls("bind: \"127.0.0.1:853\""),
        &["1:62: the key `certificates` is missing in `dns.tls`"],
    );
    check_extra(
        &https("bind: \"127.0.0.1:444\", certificates: [{ chain: a.pem }]"),
        &["1:102: a certificate is either two files or ordered by `acme`"],
    );
    check_extra(
        &https("bind: \"127.0.0.1:80\", path: dns, certificates: [{ chain: a.pem, key: a.key }]"),
        &[
            "1:70: 127.0.0.1:80 of DNS over HTTPS is taken by the listener `web`",
            "1:92: `dns` is no path",
            "1:121: /nonexistent/a.pem cannot be read: No such file or directory (os error 2)",
            "1:133: /nonexistent/a.key cannot be read: No such file or directory (os error 2)",
        ],
    );
    // UDP's ports are others than TCP's.
    check_extra(
        &format!("dns: {{ bind: \"127.0.0.1:53\", {zone}, quic: {{ bind: \"127.0.0.1:53\" }} }}\n"),
        &[
            "1:14: 127.0.0.1:53 of the name server is taken by DNS over QUIC",
            "1:85: the key `certificates` is missing in `dns.quic`",
        ],
    );
    check_extra(
        &tls("bind: [], certificates: [{ acme: ns.example.com }]"),
        &[
            "1:68: DNS over TLS has no address",
            "1:95: nothing says where certificates are ordered",
        ],
    );
}

#[test]
fn names_of_a_zone_lie_in_it() {
    check_zone(
        "steered: { www.example.com: { pool: api }, www.example.org.: { pool: api } }",
        &[
            "4:18: this means www.example.com.example.com: a name without a dot at its end is \
             continued by the zone's",
            "4:50: www.example.org lies outside of the zone example.com",
        ],
    );
    check_zone(
        "records: [{ name: a, type: A, value: 300.1.1.1 }, { name: b, type: X, value: y }, { name: c, type: A }]",
        &[
            "4:44: this is no data of a record of type A: \"300.1.1.1\" is not an IPv4 address",
            "4:74: \"X\" is no record type that can be served here; there are SOA, NS, A, AAAA, \
             CNAME, DNAME, MX, TXT, CAA, SRV, PTR, DS, SVCB, HTTPS, LOC, TLSA, SMIMEA, SSHFP, NAPTR, URI, \
             HINFO, RP, AFSDB, KX, CERT, OPENPGPKEY and TYPE followed by a number",
            "4:89: a record has either `value` or `values`",
        ],
    );
    check_zone(
        "steered: { \"@\": { pool: api, ttl: 2s, ttl_suspect: 5s } }",
        &["4:58: `ttl_suspect` is longer than `ttl`"],
    );
    check_zone(
        "soa: { minimum: 1500ms, serial: 4294967296 }",
        &[
            "4:23: `dns.zones.example.com.soa.minimum`: `1500ms` is not whole seconds",
            "4:39: `dns.zones.example.com.soa.serial`: `4294967296` is out of range",
        ],
    );
    check_extra(
        "dns: { zones: { example.com: {}, EXAMPLE.com.: {} } }\n",
        &["1:34: the zone example.com stands here twice"],
    );
}

#[test]
fn mistakes_in_a_zone_file_are_shown_at_their_place_there() {
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("z.zone");
    std::fs::write(
        &zone,
        "@ 60 IN SOA ns1 host 1 1h 1h 1h 5\n@ IN NS ns1\nns1 IN A 1.2.3\n",
    )
    .unwrap();
    let text =
        format!("{BASE}dns: {{ zones: {{ example.com: {{ file: z.zone, soa: {{}} }} }} }}\n");

    let report = load_in(folder.path(), &text).unwrap_err();

    let place = format!("{}:3:10: ", zone.display());
    let lines: Vec<String> = report.lines().collect();
    assert!(lines[0].starts_with(&place), "{lines:?}");
    assert!(
        report.to_string().contains("3 | ns1 IN A 1.2.3"),
        "{report}"
    );

    std::fs::write(
        &zone,
        "@ 60 IN SOA ns1 host 1 1h 1h 1h 5\n@ IN NS ns1\nns1 IN A 1.2.3.4\n",
    )
    .unwrap();
    let lines: Vec<String> = load_in(folder.path(), &text).unwrap_err().lines().collect();
    assert_eq!(
        lines,
        ["test.yaml:9:51: this zone has an SOA here and one in its zone file"]
    );
}

#[test]
fn geography_that_cannot_be_read_is_a_mistake() {
    check_extra(
        "dns: { geo: { database: missing.mmdb } }\n",
        &["1:25: /nonexistent/missing.mmdb cannot be read: No such file or directory (os error 2)"],
    );
    let folder = folder_with_certificates();
    let text = format!("{BASE}dns: {{ geo: {{ database: junk }} }}\n");
    let lines: Vec<String> = load_in(folder.path(), &text).unwrap_err().lines().collect();
    assert!(lines[0].starts_with("test.yaml:9:25: "), "{lines:?}");
    check_extra(
        "dns: { geo: { overrides: [{ net: 10.0.0.1/8, region: us-east-1 }, { net: 10.0.0.1, region: us-east-1 }] } }\n",
        &[
            "1:34: `dns.geo.overrides[0].net`: `10.0.0.1/8` has bits set behind its prefix",
            "1:74: `dns.geo.overrides[1].net`: `10.0.0.1` lacks a prefix length",
        ],
    );
}

#[test]
fn tokens_never_stand_in_the_file_and_never_in_messages() {
    let text = format!(
        "{BASE}admin: {{ tokens: [{{ name: a, role: operator, token: hunter2hunter2hunter2, x: 1 }}] }}\n"
    );
    let report = load(&text).unwrap_err();
    let lines: Vec<String> = report.lines().collect();
    assert_eq!(
        lines,
        [
            "test.yaml:9:53: a token must not stand in this file",
            "test.yaml:9:76: unknown key `x` in `admin.tokens[0]`",
        ]
    );
    assert!(!report.to_string().contains("hunter2"), "{report}");

    check_extra(
        "admin: { tokens: [{ name: a, role: root, hash: \"sha256:abc\" }, { name: a, role: viewer }] }\n",
        &[
            "1:36: `admin.tokens[0].role`: `root` isn't known",
            "1:48: this is no hash of a token",
            "1:64: a token has either `hash` or `token`",
            "1:72: two tokens are called `a`",
        ],
    );
    check_extra(
        "admin: { tokens: [{ name: a, role: viewer, token: \"${PORT}\" }, { name: b, role: viewer, token: \"file:t\" }] }\n",
        &[
            "1:51: the token is shorter than 16 characters",
            "1:96: /nonexistent/t cannot be read: No such file or directory (os error 2)",
        ],
    );
}

#[test]
fn what_the_environment_holds_is_used_and_never_shown() {
    use sha2::Digest as _;
    let text = format!(
        "{BASE}admin: {{ bind: \"127.0.0.1:${{PORT}}\", tokens: [{{ name: a, role: viewer, token: \"${{SECRET}}\" }}] }}\n\
         limits: {{ streams: \"${{STREAMS:-7}}\" }}\n"
    );
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.rules.control.admin.bind[0].port(), 8080);
    let hash: [u8; 32] = sha2::Sha256::digest("correct-horse-battery-staple").into();
    assert_eq!(loaded.rules.control.admin.tokens[0].sha256, hash);
    assert_eq!(loaded.rules.proxy.limits.streams, 7);
    assert!(
        !loaded.effective.contains("battery"),
        "{}",
        loaded.effective
    );
    assert!(
        loaded.effective.contains("${SECRET}"),
        "{}",
        loaded.effective
    );

    let report = load(&format!(
        "{BASE}limits: {{ streams: \"${{SECRET}}\", head_timeout: ${{EMPTY}} }}\n"
    ))
    .unwrap_err();
    assert!(!report.to_string().contains("battery"), "{report}");

    check_extra(
        "node: { name: \"${MISSING}\", region: \"${X:?say where}\", state_dir: \"${\" }\n",
        &[
            "1:15: the variable `MISSING`: it is not set and has no default",
            "1:37: the variable `X`: say where",
            "1:67: `${` is never closed",
        ],
    );
}

#[test]
fn tokens_and_hashes_may_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t"), "correct-horse-battery-staple\n").unwrap();
    let text =
        format!("{BASE}admin: {{ tokens: [{{ name: a, role: operator, token: \"file:t\" }}] }}\n");
    let loaded = load_in(folder.path(), &text).unwrap();
    assert_eq!(loaded.rules.control.admin.tokens.len(), 1);
    assert!(loaded.files.iter().any(|file| file.path.ends_with("t")));
    assert!(loaded.effective.contains("file:t"));
}

#[test]
fn aliases_and_merges_are_followed() {
    let text = "\
version: 1
pools:
  api: &api
    regions: &regions
      us-east-1: { endpoints: [{ address: \"10.0.0.1:80\" }] }
    probe: { interval: 9s }
  copy: { <<: *api, probe: { interval: 8s } }
  again: { regions: *regions }
listeners: { web: { bind: \"127.0.0.1:80\" } }
routes: [{ pool: api }, { pool: copy, match: { host: a } }, { pool: again, match: { host: b } }]
";
    let loaded = load(text).unwrap();
    let seconds: Vec<u64> = loaded
        .rules
        .control
        .probes
        .iter()
        .map(|(_, p)| p.interval.as_secs())
        .collect();
    assert_eq!(seconds, [9, 8, 5]);
    check_extra("limits: { <<: 5 }\n", &["1:11: `<<` merges maps only"]);
    check_extra(
        "node: &a { name: *a }\n",
        &["1:18: this alias is inside what it stands for"],
    );
}

#[test]
fn a_few_lines_of_aliases_do_not_fill_the_memory() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        let row = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    let report = load(&text).unwrap_err();
    assert!(
        report.to_string().contains("values, with aliases followed"),
        "{report}"
    );

    let deep = format!("a: {}{}\n", "[".repeat(40), "]".repeat(40));
    let report = load(&deep).unwrap_err();
    assert!(
        report.to_string().contains("more than 32 maps and lists"),
        "{report}"
    );

    let report = load(&"#".repeat((4 << 20) + 1)).unwrap_err();
    assert!(report.to_string().contains("larger than 4 MiB"), "{report}");
}

#[test]
fn all_mistakes_are_counted_and_so_many_are_printed() {
    let mut text = String::from(BASE);
    for number in 0..1000 {
        text.push_str(&format!("zzzzzz{number}: 1\n"));
    }
    let report = load(&text).unwrap_err();
    assert_eq!(report.mistakes(), 1000);
    assert!(
        report
            .to_string()
            .ends_with("… and 800 more\n1000 mistakes in test.yaml")
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_report_too() {
    let load = |path: &str| sealane::config::load(Path::new(path), &env, &mut IdBook::default());
    let report = load("/nonexistent/x.yaml").unwrap_err();
    assert!(
        report
            .to_string()
            .ends_with("1 mistake in /nonexistent/x.yaml"),
        "{report}"
    );
    assert!(
        load("/")
            .unwrap_err()
            .to_string()
            .contains("is a directory")
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latin.yaml");
    std::fs::write(&file, b"version: 1\nnode: { name: \xe9 }\n").unwrap();
    let report = load(&file.display().to_string()).unwrap_err();
    assert!(
        report.to_string().contains("is not UTF-8 text: see line 2"),
        "{report}"
    );
}

#[test]
fn ids_are_handed_out_only_by_files_without_mistakes() {
    let mut ids = IdBook::default();
    let base = Path::new("/nonexistent");
    let broken = BASE.replace("  api:", "  first:");
    assert!(load_text("a", &broken, base, &env, &mut ids).is_err());
    let loaded = load_text("a", BASE, base, &env, &mut ids).unwrap();
    let pool = loaded.rules.control.topology.pool_named("api").unwrap();
    assert_eq!(pool.id.index(), 0);
    let again = load_text("a", BASE, base, &env, &mut ids).unwrap();
    assert_eq!(
        again.rules.control.topology.pool_named("api").unwrap().id,
        pool.id
    );
}

#[test]
fn the_short_form_is_checked_at_its_own_places() {
    let short = include_str!("../../configs/global-load-balancer.yaml");
    let with = |from: &str, to: &str| {
        assert!(short.contains(from), "{from}");
        short.replacen(from, to, 1)
    };
    check(
        &with("detection_time: 10", "detection_time: 9"),
        &[
            "18:21: a `detection_time` of 9s cannot be met: at worst a dead endpoint is found after \
             10s = 5.5s (interval 5s and a tenth) + 2s (timeout) + 500ms (recheck) + 2s (timeout)",
        ],
    );
    check(
        &with("us_west_2: 33", "us_wets_2: 33"),
        &["14:7: the pool `api.certmanager.com` has no region `us_wets_2`"],
    );
    check(
        &with(
            "\"us-east-1.api.certmanager.com\"",
            "\"us-east-1.elsewhere.test\"",
        ),
        &["2:3: the endpoints' host names share no domain"],
    );
    check(
        &with("timeout: 2", "timeout: 5"),
        &[
            "6:14: the probe's timeout of 5s is not below its interval of 5s",
            "18:21: a `detection_time` of 10s cannot be met: at worst a dead endpoint is found after \
             16s = 5.5s (interval 5s and a tenth) + 5s (timeout) + 500ms (recheck) + 5s (timeout)",
        ],
    );
    check(
        &with("50%_unhealthy", "50%_healthy"),
        &["19:25: `global_load_balancer.failover.failover_threshold` cannot be `50%_healthy`"],
    );
    check(
        &with("type: \"geo_dns\"", "type: \"geo_dsn\""),
        &["2:9: `global_load_balancer.type`: `geo_dsn` isn't known"],
    );
}

/// Pseudo-random numbers (xorshift), the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).expect("it works in every run")
    }
}

#[test]
fn no_text_makes_it_panic() {
    let seeds = [
        include_str!("../../configs/full.yaml"),
        include_str!("../../configs/global-load-balancer.yaml"),
        include_str!("../../configs/geodns.yaml"),
        BASE,
    ];
    const PIECES: [&str; 24] = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\t",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: *a",
        "|",
        ">",
        "#",
        "!x ",
        "${",
        "${SECRET}",
        "?",
        "\u{2028}é",
        "999999999999999999999",
    ];
    let seed = std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok());
    let mut dice = Dice(seed.unwrap_or(0x5ea1_a9e0_0000_0001));
    for round in 0..3_000 {
        let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..=dice.below(4) {
            let at = dice.below(text.len());
            match dice.below(5) {
                0 => drop(text.drain(at..(at + dice.below(30)).min(text.len()))),
                1 => text.truncate(at),
                2 => {
                    let to = (at + dice.below(60)).min(text.len());
                    let copied: Vec<char> = text[at..to].to_vec();
                    let there = dice.below(text.len());
                    text.splice(there..there, copied);
                }
                _ => {
                    let piece = PIECES[dice.below(PIECES.len())].chars();
                    text.splice(at..at, piece);
                }
            }
        }
        let text: String = text.into_iter().collect();
        match load(&text) {
            Ok(loaded) => assert!(!loaded.effective.contains("battery")),
            Err(report) => {
                assert!(report.mistakes() > 0);
                assert!(!report.to_string().contains("battery"), "{report}");
            }
        }
    }
}

/// One route with these keys, on line 9.
#[track_caller]
fn check_route(keys: &str, wanted: &[&str]) {
    let text = BASE.replace(
        "routes: [{ pool: api }]",
        &format!("routes:\n- {{ {keys} }}"),
    );
    check(&text, wanted);
}

#[test]
fn a_route_does_one_of_three_things() {
    check_route("name: a", &["9:3: the route leads nowhere"]);
    check_route(
        "pool: api, respond: {}",
        &["9:25: a route has either `pool` or `respond`, not both"],
    );
    check_route(
        "respond: {}, rewrite: { prefix: /x }",
        &["9:27: `rewrite` changes what endpoints see, and this route has none"],
    );
}

#[test]
fn headers_that_frame_messages_are_not_changed_by_rules() {
    check_route(
        "pool: api, request_headers: { set: { Content-Length: \"1\" }, remove: [host, a b] }",
        &[
            "9:42: `content-length` frames messages or speaks of one connection alone",
            "9:74: the host is not changed as a header",
            "9:80: `a b` is no header field's name",
        ],
    );
}

#[test]
fn a_template_has_known_placeholders_and_paired_braces() {
    check_route(
        "pool: api, response_headers: { set: { a: \"{client_id}\", b: \"{host\", c: \"}\" } }",
        &[
            "9:46: there is no placeholder `{client_id}`",
            "9:64: a brace stands alone",
            "9:76: a brace stands alone",
        ],
    );
    let lawful = "pool: api, response_headers: { set: { a: \"{{{host}}} {path}\" } }";
    let text = BASE.replace(
        "routes: [{ pool: api }]",
        &format!("routes: [{{ {lawful} }}]"),
    );
    load(&text).unwrap();
}

#[test]
fn a_redirect_leads_somewhere_else() {
    check_route(
        "redirect: {}",
        &["9:15: the redirect leads to where the client is"],
    );
    check_route(
        "redirect: { host: \"a.test:81\", path: /a, prefix: /b }",
        &[
            "9:23: `a.test:81` is no host",
            "9:42: a redirect has either `prefix` or `path`, not both",
        ],
    );
    check_route(
        "redirect: { host: a.test, status: 304 }",
        &["9:39: `routes[0].redirect.status`: `304` is no status of a redirect"],
    );
}

#[test]
fn answers_of_our_own_have_one_body_and_a_type() {
    check_route(
        "respond: { body: a, file: b }",
        &["9:31: an answer has either `body` or `file`, not both"],
    );
    check_route(
        "respond: { status: 204, body: a }",
        &["9:24: an answer with the status 204 has no body"],
    );
    check_route(
        "respond: { content_type: html }",
        &["9:30: `html` is no media type"],
    );
    check_route(
        "respond: { file: absent }",
        &["9:22: /nonexistent/absent cannot be read: No such file or directory (os error 2)"],
    );
}

#[test]
fn cors_with_credentials_names_its_origins() {
    check_route(
        "pool: api, cors: { origins: \"*\", credentials: true }",
        &["9:33: with credentials the origins must be named"],
    );
    check_route(
        "pool: api, cors: { origins: [a.test, \"https://a.test/\", \"HTTPS://a.test\"] }",
        &[
            "9:34: `a.test` is no origin",
            "9:42: `https://a.test/` is no origin",
            "9:61: `HTTPS://a.test` is no origin",
        ],
    );
}

#[test]
fn compression_knows_its_codings_and_types() {
    check_route(
        "pool: api, compression: { encodings: [gzip, zst], types: [\"*/*\", html], level: 10 }",
        &[
            "9:49: `routes[0].compression.encodings[1]`: `zst` isn't known",
            "9:63: `*/*` is no media type",
            "9:70: `html` is no media type",
            "9:84: `routes[0].compression.level`: `10` is out of range",
        ],
    );
}

#[test]
fn what_is_coalesced_has_no_effect_and_no_meaning_of_its_own() {
    check_route(
        "pool: api, coalesce: { methods: [GET, POST], headers: [accept, Cookie, a b], wait: 2m }",
        &[
            "9:43: `routes[0].coalesce.methods[1]`: `POST` isn't known",
            "9:68: requests with `cookie` are never shared by its value",
            "9:76: `a b` is no header field's name",
            "9:88: `routes[0].coalesce.wait`: `2m` is out of range",
        ],
    );
}

#[test]
fn a_mirror_is_another_pool_and_shows_what_endpoints_see() {
    check_route(
        "pool: api, mirror: { pool: api, share: 200% }",
        &[
            "9:32: the route's own pool would see the request twice",
            "9:44: `routes[0].mirror.share`: `200%` is out of range",
        ],
    );
    check_route(
        "pool: api, mirror: { pool: apl, methods: [get] }",
        &[
            "9:32: there is no pool `apl`",
            "9:47: `get` is no HTTP method",
        ],
    );
    check_route(
        "respond: {}, mirror: { pool: api }",
        &["9:26: `mirror` shows what endpoints see, and this route has none"],
    );
}

#[test]
fn maintenance_comes_and_goes_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = BASE.replace(
        "routes: [{ pool: api }]",
        "routes: [{ pool: api, maintenance: { when_file: down } }]",
    );
    let in_force = || {
        let loaded = load_in(dir.path(), &text).unwrap();
        let flag = dir.path().join("down");
        assert!(loaded.files.iter().any(|file| file.path == flag));
        loaded.rules.proxy.routes[0].options.maintenance.is_some()
    };

    assert!(!in_force());
    std::fs::write(dir.path().join("down"), "").unwrap();
    assert!(in_force());
}

#[test]
fn places_and_rates_say_how_many_in_what_time() {
    check_route(
        "pool: api, tier: 5, rate_limit: [{ rate: 100 }, { rate: 10/w }, { rate: 5/s, key: user }]",
        &[
            "9:22: `routes[0].tier`: `5` is out of range",
            "9:46: `routes[0].rate_limit[0].rate`: `100` lacks a unit",
            "9:61: `routes[0].rate_limit[1].rate` cannot be `10/w`",
            "9:87: `routes[0].rate_limit[2].key` cannot be `user`",
        ],
    );
    check_route(
        "pool: api, rate_limit: [{ name: \"a b\", rate: 1/s }, { rate: 1/s, adaptive: { latency: 1s, floor: 0% } }]",
        &[
            "9:37: `a b` cannot be the name of a rate",
            "9:102: nothing would be left of the rate",
        ],
    );
    check_route(
        "pool: api, rate_limit: [{ name: one, key: tenant, rate: 1/s }, { name: one, rate: 1/s }, { key: { header: \"a b\" }, rate: 1/s }]",
        &[
            "9:47: `key: tenant` is for each tenant, and the route has no `tenant`",
            "9:68: two rates of the route are called `one`",
            "9:111: `a b` is no header field's name",
        ],
    );
    check(
        &BASE.replace(
            "  api:\n",
            "  api:\n    concurrency: adaptve\n    bulkhead: { queue: 5 }\n",
        ),
        &[
            "4:18: `pools.api.concurrency` cannot be `adaptve`",
            "5:17: the key `requests` is missing in `pools.api.bulkhead`",
        ],
    );
}

#[test]
fn what_is_for_each_tenant_says_who_that_is() {
    check_route(
        "pool: api, bulkhead: { per_tenant: 5 }",
        &["9:40: `per_tenant` is for each tenant, and the route has no `tenant`"],
    );
    check_route(
        "pool: api, rate_limit: [{ key: tenant, rate: 1/s }]",
        &["9:36: `key: tenant` is for each tenant, and the route has no `tenant`"],
    );
    check_route(
        "pool: api, tenant: { header: \"x tenant\" }, bulkhead: {}, rate_limit: [{ key: tenant, rate: 1/s, name: \"a b\" }]",
        &[
            "9:34: `x tenant` is no header field's name",
            "9:58: the bulkhead bounds nothing",
            "9:107: `a b` cannot be the name of a rate",
        ],
    );
    let text = BASE.replace(
        "[{ pool: api }]",
        "[{ pool: api, tenant: host, bulkhead: { per_tenant: 5 }, rate_limit: [{ key: tenant, rate: 90/m }] }]",
    );
    let rules = load(&text)
        .unwrap_or_else(|report| panic!("{report}"))
        .rules;
    let limits = &rules.proxy.routes[0].options.limits;
    assert_eq!((limits.per_tenant, limits.bulkhead), (Some(5), None));
    assert_eq!(
        (limits.rates[0].burst, &*limits.rates[0].name),
        (1, "limit-1")
    );
}

#[test]
fn endpoints_are_chosen_by_a_key_only_where_that_means_something() {
    for (balance, wanted) in [
        (
            "balance: { policy: round_robin, key: client_ip }",
            "4:42: endpoints are not chosen by a key under `round_robin`",
        ),
        (
            "balance: { policy: ring_hash, key: { header: \"x y\" } }",
            "4:50: `x y` is no header's name",
        ),
        (
            "balance: { policy: ring_hash, key: { header: a, cookie: b } }",
            "4:61: a key is either a `header` or a `cookie`, not both",
        ),
        (
            "balance: { policy: ring_hash, key: {} }",
            "4:40: the key is empty",
        ),
        (
            "balance: { policy: ring_hash, key: client }",
            "4:40: `pools.api.balance.key` cannot be `client`",
        ),
        (
            "balance: fastest",
            "4:14: `pools.api.balance`: `fastest` isn't known",
        ),
    ] {
        check_pool(balance, &[wanted]);
    }
}

#[test]
fn an_ejection_is_no_longer_than_its_longest_and_off_is_a_word() {
    check_pool(
        "ejection: { time: 10m }",
        &["4:23: `time` is longer than `time_max`, which is 5m"],
    );
    check_pool(
        "ejection: never",
        &["4:15: `pools.api.ejection` cannot be `never`"],
    );
    let off = BASE.replace(
        "  api:\n",
        "  api:\n    ejection: off\n    balance: round_robin\n",
    );
    let loaded = load(&off).unwrap();
    let Action::Forward(to) = &loaded.rules.proxy.routes[0].action else {
        panic!("it forwards");
    };
    assert_eq!(to.balance.ejection, None);
    assert_eq!(to.balance.policy, BalancePolicy::RoundRobin);
}

#[test]
fn a_zone_lies_in_a_region() {
    check_extra(
        "node: { az: a }\n",
        &["1:13: the node has an `az` and no `region`"],
    );
}

#[test]
fn what_defaults_say_of_balance_holds_where_a_pool_says_nothing() {
    let text = format!(
        "{BASE}defaults: {{ pool: {{ balance: {{ slow_start: 5s }}, ejection: {{ consecutive_errors: 9 }} }} }}\n\
         node: {{ region: us-east-1, az: b }}\n"
    );
    let text = text.replace("  api:\n", "  api:\n    balance: round_robin\n");
    let loaded = load(&text).unwrap();
    let Action::Forward(to) = &loaded.rules.proxy.routes[0].action else {
        panic!("it forwards");
    };
    assert_eq!(to.balance.policy, BalancePolicy::RoundRobin);
    assert_eq!(to.balance.slow_start.as_secs(), 5);
    assert_eq!(to.balance.ejection.unwrap().consecutive_errors, 9);
    assert_eq!(&*to.balance.local.as_ref().unwrap().az, "b");
}

#[test]
fn a_split_is_checked_as_a_whole() {
    let with = |split: &str| {
        let route = format!("routes: [{{ pool: api, split: {split} }}]\n");
        let canaries = "  canary: { regions: { us-east-1: { endpoints: [{ address: \"10.0.0.8:80\" }] } } }\n  \
             other: { regions: { us-east-1: { endpoints: [{ address: \"10.0.0.9:80\" }] } } }\nlisteners:";
        let text = BASE.replace("routes: [{ pool: api }]\n", &route);
        load(&text.replace("listeners:", canaries))
    };
    let said = |split: &str| -> Vec<String> {
        let report = with(split).unwrap_err();
        let lines = report.lines();
        let text = |line: String| line.splitn(4, ':').last().unwrap().trim().to_owned();
        lines.map(text).collect()
    };
    for lawful in [
        "[]",
        "[{ pool: canary, share: 5% }, { pool: other, share: 95% }]",
        "[{ pool: canary, share: 0, key: client_ip, abort: { errors: none, latency: none } }]",
        "[{ pool: canary, share: 1, key: { header: x-user }, abort: { errors: 0.01, latency: 2 } }]",
        "[{ pool: canary, share: 1%, key: { cookie: id }, abort: { errors: +3%, latency: 1.2x } }]",
    ] {
        assert!(
            with(lawful).is_ok(),
            "{lawful}: {}",
            with(lawful).unwrap_err()
        );
    }
    assert_eq!(
        said("[{ pool: canary, share: 60% }, { pool: other, share: 41% }]"),
        ["the shares come to 101%"]
    );
    assert_eq!(
        said("[{ pool: api, share: 60% }]"),
        ["the pool `api` serves this route already"]
    );
    assert_eq!(
        said("[{ pool: canary, share: 5%, key: {} }]"),
        ["a key is one thing"]
    );
    assert_eq!(
        said("[{ pool: canary, share: 5%, key: { cookie: \"a b\" } }]"),
        ["`a b` is no cookie's name"]
    );
    assert!(said("[{ pool: nobody, share: 5% }]")[0].contains("there is no pool `nobody`"));
    assert!(
        said("[{ pool: canary, share: 5%, abort: { latency: 0.5x } }]")[0]
            .contains("is out of range")
    );

    let text = BASE.replace(
        "{ pool: api }",
        "{ respond: { status: 200 }, split: [{ pool: api, share: 5% }] }",
    );
    let report = load(&text).unwrap_err();
    let first = report.lines().next().unwrap();
    assert!(
        first.contains("`split` shares out what a pool serves"),
        "{first}"
    );
}

#[test]
fn sticky_cookies_need_a_key_that_does_not_stand_in_the_file() {
    let with = |keys: &str, sticky: &str| {
        let route = format!("routes: [{{ pool: api, sticky: {sticky} }}]\n{keys}\n");
        load(&BASE.replace("routes: [{ pool: api }]\n", &route))
    };
    let said = |keys: &str, sticky: &str| -> String {
        let report = with(keys, sticky).unwrap_err();
        let line = report.lines().next().unwrap();
        line.splitn(4, ':').last().unwrap().trim().to_owned()
    };
    // No key of its own, but no secret either: 28 characters.
    let short = "sticky_keys: \"${SECRET}\"";
    let long = "sticky_keys: [\"${SECRET}-${SECRET}\"]";

    assert!(with("", "{ header: x-session }").is_ok());
    for lawful in [
        "{ cookie: {} }",
        "{ cookie: { name: sid, max_age: 1h, secure: true, http_only: false, same_site: none } }",
    ] {
        assert!(
            with(long, lawful).is_ok(),
            "{}",
            with(long, lawful).unwrap_err()
        );
    }
    assert_eq!(said("", "{ cookie: {} }"), "sticky cookies need a key");
    assert_eq!(
        said(short, "{ cookie: {} }"),
        "the key is shorter than 32 characters"
    );
    let plain = "sticky_keys: 0123456789abcdef0123456789abcdef-";
    assert_eq!(
        said(plain, "{ cookie: {} }"),
        "a key must not stand in this file"
    );
    assert_eq!(said(long, "{}"), "a session is known by one thing");
    assert_eq!(
        said(long, "{ cookie: { same_site: none } }"),
        "browsers drop such a cookie"
    );
    assert_eq!(
        said(long, "{ cookie: { name: \"a=b\" } }"),
        "`a=b` is no cookie's name"
    );
}
