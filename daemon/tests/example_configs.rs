//! The examples load, mean what they say, conform to the schema, and print so that they load again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sealane::config::{Loaded, load, load_text, schema};
use sealane_control::config::ProbeKind;
use sealane_model::{Addresses, AllDown, IdBook, Roots, Target};
use sealane_proxy::config::{Action, Destination, HostPattern, ListenerProtocol};
use sealane_steering::SteeringPolicy;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn examples() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("configs"))
        .expect("the examples can be listed")
        .map(|entry| entry.expect("the examples can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

#[track_caller]
fn loaded(path: &Path) -> Loaded {
    load(path, &|_| None, &mut IdBook::default()).unwrap_or_else(|report| panic!("{report}"))
}

fn example(name: &str) -> Loaded {
    loaded(&root().join("configs").join(name))
}

#[test]
fn every_example_loads() {
    for path in examples() {
        let loaded = loaded(&path);
        assert_eq!(loaded.files[0].path, path);
    }
}

#[test]
fn only_the_short_form_has_warnings_for_it_names_no_name_servers() {
    for path in examples() {
        let loaded = loaded(&path);
        let short = |line: &String| line.contains("ns1.");
        assert!(loaded.warnings.iter().all(short), "{:?}", loaded.warnings);
    }
}

/// Rules as text, without what differs from load to load.
fn picture(loaded: &Loaded) -> String {
    let rules = &loaded.rules;
    let dns = rules.dns.zones.iter().map(|zone| {
        let mut soa = zone.soa.clone();
        soa.serial = 0;
        format!(
            "{:?} {soa:?} {:?} {:?} {:?}",
            zone.apex, zone.records, zone.steered, zone.aliases
        )
    });
    let topology = &rules.control.topology;
    format!(
        "{:?}\n{:#?}\n{:#?}\n{:?}\n{:?}\n{:?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:?}\n{:?}",
        rules.node,
        rules.proxy.listeners,
        rules.proxy.routes,
        rules.proxy.limits,
        rules.proxy.trusted,
        rules.dns.bind,
        dns.collect::<Vec<_>>(),
        topology.regions().collect::<Vec<_>>(),
        topology.pools().collect::<Vec<_>>(),
        topology.endpoints().collect::<Vec<_>>(),
        rules.control.probes,
        (
            rules.control.first_round_limit,
            &rules.control.state_file,
            &rules.control.admin.bind
        ),
    )
}

#[test]
fn what_is_in_force_prints_as_a_file_that_means_the_same() {
    for path in examples() {
        let first = loaded(&path);
        // A token's hash is not printed; nothing else is missing.
        let hash = format!("sha256:{}", "0".repeat(64));
        let text = first.effective.replace("<redacted>", &hash);
        let base = path.parent().unwrap();
        let second = load_text("effective", &text, base, &|_| None, &mut IdBook::default())
            .unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(picture(&first), picture(&second), "{}", path.display());
        assert_eq!(first.effective, second.effective);
    }
}

#[test]
fn the_users_file_means_what_it_says() {
    let rules = example("global-load-balancer.yaml").rules;
    let topology = &rules.control.topology;
    let pool = topology.pool_named("api.certmanager.com").unwrap();

    let regions: Vec<&str> = pool
        .members
        .iter()
        .map(|m| topology.region_name(m.region))
        .collect();
    assert_eq!(regions, ["us-east-1", "us-west-2", "eu-central-1"]);
    assert!(topology.regions().all(|region| region.location.is_some()));
    for member in &pool.members {
        assert_eq!((member.weight.get(), member.priority), (100, 1));
        assert_eq!(member.addresses, Addresses::OfEndpoints);
        let endpoint = topology.endpoint(member.endpoints[0]).unwrap();
        let name = format!(
            "{}.api.certmanager.com",
            topology.region_name(member.region)
        );
        let target = Target::Host {
            host: name.as_str().into(),
            port: 443,
        };
        assert_eq!(endpoint.target, target);
        let tls = endpoint.tls.as_ref().unwrap();
        assert_eq!(
            (&*tls.server_name, &tls.roots),
            (name.as_str(), &Roots::System)
        );
    }
    assert_eq!(pool.failover.threshold.get(), 0.5);
    assert_eq!(pool.failover.hold_down, Duration::from_secs(60));
    assert_eq!(pool.failover.all_down, AllDown::FailOpen);

    let (of, probe) = &rules.control.probes[0];
    assert_eq!(*of, pool.id);
    assert_eq!(probe.interval, Duration::from_secs(5));
    assert_eq!(probe.timeout, Duration::from_secs(2));
    assert_eq!(probe.recheck, Duration::from_millis(500));
    assert_eq!((probe.fall, probe.rise, probe.port), (2, 3, None));
    let ProbeKind::Http {
        path,
        host,
        expect,
        body_contains,
    } = &probe.kind
    else {
        panic!("{:?}", probe.kind);
    };
    assert_eq!((&**path, host, body_contains), ("/health", &None, &None));
    assert_eq!(*expect, [(200, 299)]);

    let route = &rules.proxy.routes[0];
    assert_eq!(
        route.when.host,
        Some(HostPattern::Exact("api.certmanager.com".into()))
    );
    let Action::Forward(Destination { steering, .. }) = &route.action else {
        panic!("{:?}", route.action);
    };
    let SteeringPolicy::WeightedLatency(_) = &**steering else {
        panic!("{steering:?}");
    };
    let weights: Vec<u32> = pool
        .members
        .iter()
        .map(|m| steering.weight(m.region).get())
        .collect();
    assert_eq!(weights, [33, 33, 34]);
    let listener = &rules.proxy.listeners[0];
    assert!(matches!(listener.protocol, ListenerProtocol::Http));
    assert_eq!(
        listener.bind,
        ["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()]
    );

    let zone = &rules.dns.zones[0];
    assert_eq!(zone.apex.to_string(), "api.certmanager.com");
    assert_eq!(zone.steered[0].owner, zone.apex);
    assert_eq!(zone.steered[0].pool, pool.id);
    assert_eq!(
        (
            zone.steered[0].ttl.as_secs(),
            zone.steered[0].ttl_suspect.as_secs()
        ),
        (10, 5)
    );
    assert_eq!(
        (zone.soa.minimum.as_secs(), zone.soa.ttl.as_secs()),
        (5, 60)
    );
    assert_eq!(rules.dns.bind.len(), 2);
    assert_eq!(
        rules.control.admin.bind,
        ["127.0.0.1:9900".parse().unwrap()]
    );
    assert!(!rules.control.admin.open);
}

#[test]
fn the_short_form_stands_beside_the_rest() {
    let rules = example("full.yaml").rules;
    let pools: Vec<&str> = rules
        .control
        .topology
        .pools()
        .map(|pool| &*pool.name)
        .collect();
    assert_eq!(
        pools,
        [
            "api",
            "api-canary",
            "legacy",
            "shadow",
            "postgres",
            "mail",
            "resolvers",
            "shop.example.com"
        ]
    );
    let listeners: Vec<&str> = rules.proxy.listeners.iter().map(|l| &*l.name).collect();
    assert_eq!(
        listeners,
        ["web", "database", "mail", "plain", "secure", "names"]
    );
    let routes: Vec<&str> = rules
        .proxy
        .routes
        .iter()
        .map(|route| &*route.name)
        .collect();
    assert_eq!(
        routes,
        [
            "legacy",
            "/api",
            "/shop",
            "/old",
            "/robots.txt",
            "api",
            "shop.example.com"
        ]
    );
    assert_eq!(rules.dns.zones.len(), 2);
}

#[test]
fn defaults_are_taken_key_by_key() {
    let text = "
version: 1
defaults:
  pool: { probe: { http: { path: /ping }, interval: 9s, rise: 7 }, failover: { hold_down: 5s } }
  route: { timeouts: { request: 9s }, body_max: 1MiB }
pools:
  a: { regions: { us-east-1: { endpoints: [{ address: \"10.0.0.1:80\" }] } } }
  b:
    regions: { us-east-1: { endpoints: [{ address: \"10.0.0.1:80\" }] } }
    probe: { tcp: {}, interval: 4s }
listeners: { web: { bind: \"127.0.0.1:80\" } }
routes:
  - { pool: a }
  - { pool: b, match: { host: b }, timeouts: { idle: 3s }, body_max: none }
";
    let rules = load_text("t", text, Path::new(""), &|_| None, &mut IdBook::default())
        .unwrap_or_else(|report| panic!("{report}"))
        .rules;
    let [(_, a), (_, b)] = rules.control.probes.as_slice() else {
        panic!()
    };
    assert!(matches!(&a.kind, ProbeKind::Http { path, .. } if &**path == "/ping"));
    assert!(matches!(b.kind, ProbeKind::Tcp));
    assert_eq!((a.interval.as_secs(), b.interval.as_secs()), (9, 4));
    assert_eq!((a.rise, b.rise, b.fall), (7, 7, 2));
    let [first, second] = rules.proxy.routes.as_slice() else {
        panic!()
    };
    assert_eq!((first.body_max, second.body_max), (Some(1 << 20), None));
    assert_eq!(second.timeouts.request.as_secs(), 9);
    assert_eq!(
        (
            first.timeouts.idle.as_secs(),
            second.timeouts.idle.as_secs()
        ),
        (60, 3)
    );
    assert!(
        rules
            .control
            .topology
            .pools()
            .all(|pool| pool.failover.hold_down.as_secs() == 5)
    );
}

// --- the schema --------------------------------------------------------------------------------

/// As much of JSON Schema as the published one uses. `Err`: the path at which it does not hold.
fn conforms(value: &Value, schema: &Value, root: &Value, path: &str) -> Result<(), String> {
    let fail = |what: &str| Err(format!("{path}: {what}"));
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        conforms(value, root.pointer(pointer).expect(reference), root, path)?;
    }
    if let Some(any) = schema["anyOf"].as_array()
        && !any
            .iter()
            .any(|one| conforms(value, one, root, path).is_ok())
    {
        return fail("nothing of anyOf");
    }
    let lawful_type = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some(other) => panic!("the type {other}"),
    };
    if !lawful_type {
        return fail("wrong type");
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|words| !words.contains(value))
    {
        return fail("not in enum");
    }
    if schema.get("const").is_some_and(|wanted| wanted != value) {
        return fail("not the constant");
    }
    if let (Some(number), Some(max)) = (value.as_f64(), schema["maximum"].as_f64())
        && number > max
    {
        return fail("above the maximum");
    }
    // The only pattern that matters here: references to the environment.
    if schema["pattern"]
        .as_str()
        .is_some_and(|pattern| pattern.starts_with(r"\$\{"))
        && !value.as_str().is_some_and(|text| text.contains("${"))
    {
        return fail("no reference");
    }
    for item in value.as_array().into_iter().flatten() {
        if schema.get("items").is_some() {
            conforms(item, &schema["items"], root, &format!("{path}[]"))?;
        }
    }
    let Some(map) = value.as_object() else {
        return Ok(());
    };
    for key in schema["required"].as_array().into_iter().flatten() {
        if !map.contains_key(key.as_str().unwrap_or("")) {
            return fail(&format!("{key} is missing"));
        }
    }
    for (key, value) in map {
        let path = format!("{path}.{key}");
        match (
            schema["properties"].get(key),
            schema.get("additionalProperties"),
        ) {
            (Some(known), _) => conforms(value, known, root, &path)?,
            (None, Some(Value::Bool(false))) => return Err(format!("{path}: unknown")),
            (None, Some(other)) => conforms(value, other, root, &path)?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn as_json(text: &str) -> Value {
    sealane::config::json(text).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn every_example_conforms_to_the_schema_and_so_does_what_is_in_force() {
    let schema = schema();
    for path in examples() {
        let text = std::fs::read_to_string(&path).unwrap();
        for text in [text, loaded(&path).effective] {
            let fault = conforms(&as_json(&text), &schema, &schema, "");
            assert_eq!(fault, Ok(()), "{}", path.display());
        }
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = schema();
    for text in [
        "version: 1\npool: {}\n",
        "version: 2\n",
        "pools: { a: {} }\n",
        "limits: { streams: 99999999 }\n",
        "limits: { streams: many }\n",
        "pools: { a: { regions: {}, steering: { policy: best } } }\n",
    ] {
        assert!(
            conforms(&as_json(text), &schema, &schema, "").is_err(),
            "{text}"
        );
    }
}

#[test]
fn every_key_and_every_default_of_the_schema_is_documented() {
    let doc = std::fs::read_to_string(root().join("docs/CONFIG.md")).unwrap();
    let schema = schema();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        let about = definition["description"].as_str().unwrap();
        assert!(doc.contains(about), "{name}: {about}");
        for (key, property) in definition["properties"].as_object().unwrap() {
            let meaning = property["description"].as_str().unwrap();
            let row = format!("| `{key}` | {meaning} |");
            let found =
                doc.lines()
                    .filter(|line| line.starts_with(&row))
                    .any(|line| match property.get("default") {
                        None => true,
                        Some(Value::String(text)) => line.contains(&format!("| `{text}`")),
                        Some(Value::Array(list)) if !list.is_empty() => {
                            line.contains(&format!("{}", list[0]))
                        }
                        Some(other) => line.contains(&format!("| `{other}`")),
                    });
            assert!(found, "{name}.{key}: {row} {:?}", property.get("default"));
        }
    }
}

#[test]
fn every_key_stands_in_the_full_example() {
    let text = std::fs::read_to_string(root().join("configs/full.yaml")).unwrap();
    for definition in schema()["$defs"].as_object().unwrap().values() {
        for key in definition["properties"].as_object().unwrap().keys() {
            assert!(text.contains(&format!("{key}:")), "{key}");
        }
    }
}

/// Changed texts for each example.
const CHANGED: u64 = 80;
/// There is no such folder: files that a text names are missing, and nothing is read by chance.
const NOWHERE: &str = "/nonexistent/sealane-changed";

#[test]
fn a_changed_example_is_rules_that_read_back_or_mistakes() {
    let texts: Vec<String> = examples()
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("it can be read"))
        .collect();
    let all: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    let (base, none) = (Path::new(NOWHERE), |_: &str| None);
    let (mut rules, mut mistakes) = (0, 0);
    for (nth, text) in (0u64..).zip(&texts) {
        for seed in 0..CHANGED {
            let changed = changed(text, &all, nth * CHANGED + seed);
            let mut ids = IdBook::default();
            let loaded = match load_text("changed.yaml", &changed, base, &none, &mut ids) {
                Ok(loaded) => loaded,
                Err(report) => {
                    assert!(report.mistakes() > 0 && report.lines().count() > 0);
                    mistakes += 1;
                    continue;
                }
            };
            rules += 1;
            // Secrets are left out of what is in force.
            if changed.contains("token") {
                continue;
            }
            let again = load_text("effective", &loaded.effective, base, &none, &mut ids);
            let again = again.unwrap_or_else(|report| {
                panic!("{changed}\nis in force as\n{}\n{report}", loaded.effective)
            });
            assert_eq!(again.effective, loaded.effective, "of\n{changed}");
        }
    }
    assert!(rules > 20 && mistakes > 20, "{rules} and {mistakes}");
}

/// A few changes, as a hand that slips makes them, and worse ones. The same for the same seed.
fn changed(text: &str, all: &[&str], seed: u64) -> String {
    const VALUES: &[&str] = &[
        "",
        "~",
        "-1",
        "0",
        "1e9",
        "18446744073709551616",
        "0.5",
        "150%",
        "1h1h",
        "[]",
        "{}",
        "[[[",
        "&a [*a]",
        "*b",
        "!x y",
        "'",
        "\"\\x00\"",
        "\u{feff}",
        "a\tb",
        "${A",
        "${A:-${B}}",
        "0.0.0.0/33",
        "[::1]:0",
        "*.*.x",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    // Xorshift.
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound.max(1) as u64).expect("a small number")
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=below(3) {
        let at = below(lines.len());
        let Some(line) = lines.get(at).cloned() else {
            break;
        };
        match below(8) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, line),
            2 => lines.insert(at, all[below(all.len())].to_owned()),
            3 => lines[at] = format!("  {line}"),
            4 => lines[at] = line.trim_start().to_owned(),
            5 => lines.truncate(at + 1),
            6 => {
                let with = below(lines.len());
                lines.swap(at, with);
            }
            _ => {
                let key = line.find(':').map_or(line.len(), |colon| colon + 1);
                lines[at] = format!("{} {}", &line[..key], VALUES[below(VALUES.len())]);
            }
        }
    }
    lines.join("\n")
}
