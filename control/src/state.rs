//! The map on disk: what a restart should not forget, by names, as JSON.
//!
//! Written whole beside the old one and put in its place at once, so that a crash leaves one or
//! the other. A file that cannot be understood is moved aside, never deleted and never half
//! believed. Decides nothing: what is remembered holds until the first probes say otherwise.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealane_model::{Endpoint, OutReason, Standing, Timestamp, Topology, Verdict};
use serde::{Deserialize, Serialize};

use crate::health::endpoint::Track;
use crate::overrides::{Override, Subject, Wish};

/// The layout that this program writes, and the only one that it reads.
const VERSION: u32 = 1;
/// A larger file is not ours: it is moved aside unread. Ten thousand endpoints take about 2 MiB.
pub const STATE_FILE_MAX: u64 = 64 * 1024 * 1024;

/// What one process leaves for the next.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    pub written_at: Option<Timestamp>,
    pub endpoints: Vec<RememberedEndpoint>,
    pub members: Vec<RememberedMember>,
    pub overrides: Vec<Override>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RememberedEndpoint {
    pub pool: Arc<str>,
    pub region: Arc<str>,
    pub name: Arc<str>,
    pub verdict: Verdict,
    pub since: Timestamp,
    pub cause: Option<Arc<str>>,
    pub rtt: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RememberedMember {
    pub pool: Arc<str>,
    pub region: Arc<str>,
    /// By health alone; overrides are remembered on their own.
    pub standing: Standing,
    pub since: Timestamp,
    pub rtt_floor: Option<Duration>,
    /// It returns step by step, and is at this one (from 0).
    pub ramp_step: Option<u16>,
}

impl Remembered {
    /// What was concluded about this endpoint.
    #[must_use]
    pub fn track(&self, topology: &Topology, endpoint: &Endpoint) -> Option<Track> {
        let pool = &topology.pool(endpoint.pool)?.name;
        let region = &topology.region(endpoint.region)?.name;
        let known = self.endpoints.iter().find(|known| {
            known.name == endpoint.name && known.pool == *pool && known.region == *region
        })?;
        Some(Track::restored(
            known.verdict,
            known.since,
            known.cause.clone(),
            known.rtt,
        ))
    }

    #[must_use]
    pub fn member(&self, pool: &str, region: &str) -> Option<&RememberedMember> {
        self.members
            .iter()
            .find(|known| &*known.pool == pool && &*known.region == region)
    }
}

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    Map(Remembered),
    /// There is none yet.
    Missing,
    /// Not understood; it now lies at `kept`, or still where it was if moving failed as well.
    Broken {
        why: String,
        kept: Result<PathBuf, io::Error>,
    },
}

/// Reads the map. `now` is when: it names a broken file that is moved aside.
#[must_use]
pub fn read(path: &Path, now: Timestamp) -> Found {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Missing,
        Err(error) => {
            return Found::Broken {
                why: error.to_string(),
                kept: set_aside(path, now),
            };
        }
    };
    match parse(&bytes) {
        Ok(remembered) => Found::Map(remembered),
        Err(why) => Found::Broken {
            why,
            kept: set_aside(path, now),
        },
    }
}

/// Puts the map in place of the one before it: all of it, or none.
///
/// # Errors
/// The folder cannot be written, or the disk is full; the old map is still there.
pub fn write(path: &Path, node: &str, remembered: &Remembered) -> io::Result<u64> {
    let text = serde_json::to_vec_pretty(&spell(node, remembered)).map_err(io::Error::other)?;
    let beside = beside(path, "tmp");
    let mut file = File::create(&beside)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written.and_then(|()| fs::rename(&beside, path)) {
        // Only litter would stay; the error that counts is the first one.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        // Makes the new name itself last. Some file systems refuse; the map is in place anyway.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(text.len() as u64)
}

/// The map as one process hands it to another: what [`write()`] would write.
///
/// # Errors
/// It cannot be spelled, by a fault of our own.
pub fn encode(node: &str, remembered: &Remembered) -> io::Result<Vec<u8>> {
    serde_json::to_vec(&spell(node, remembered)).map_err(io::Error::other)
}

/// Reads what [`encode`] made.
///
/// # Errors
/// It is of another layout, or broken.
pub fn decode(bytes: &[u8]) -> Result<Remembered, String> {
    parse(bytes)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(STATE_FILE_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STATE_FILE_MAX {
        return Err(io::Error::other(format!(
            "larger than {STATE_FILE_MAX} bytes"
        )));
    }
    Ok(bytes)
}

fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let kept = beside(path, &format!("broken-{}", now.as_millis()));
    fs::rename(path, &kept)?;
    Ok(kept)
}

/// `path` with `.ending` after its whole name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn parse(bytes: &[u8]) -> Result<Remembered, String> {
    /// Read first and alone, so that a later layout is named as one.
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if head.version != VERSION {
        return Err(format!(
            "version {} is not known, only {VERSION} is",
            head.version
        ));
    }
    let spelt: Spelt = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    spelt.try_into()
}

/// The file word for word.
#[derive(Debug, Deserialize, Serialize)]
struct Spelt {
    version: u32,
    node: String,
    written_at_ms: u64,
    endpoints: Vec<SpeltEndpoint>,
    regions: Vec<SpeltMember>,
    overrides: Vec<SpeltOverride>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SpeltEndpoint {
    pool: String,
    region: String,
    endpoint: String,
    verdict: String,
    since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SpeltMember {
    pool: String,
    region: String,
    standing: String,
    since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold_down_until_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtt_floor_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp_step: Option<u16>,
}

#[derive(Debug, Deserialize, Serialize)]
struct SpeltOverride {
    kind: String,
    name: String,
    wish: String,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    at_ms: u64,
}

fn spell(node: &str, remembered: &Remembered) -> Spelt {
    let endpoints = remembered.endpoints.iter().map(|one| SpeltEndpoint {
        pool: one.pool.to_string(),
        region: one.region.to_string(),
        endpoint: one.name.to_string(),
        verdict: one.verdict.as_str().to_owned(),
        since_ms: one.since.as_millis(),
        cause: one.cause.as_deref().map(str::to_owned),
        rtt_us: one.rtt.map(micros),
    });
    let regions = remembered.members.iter().map(|one| SpeltMember {
        pool: one.pool.to_string(),
        region: one.region.to_string(),
        standing: match one.standing {
            Standing::In => "in",
            Standing::Out(why) => why.as_str(),
        }
        .to_owned(),
        since_ms: one.since.as_millis(),
        hold_down_until_ms: match one.standing {
            Standing::Out(OutReason::HoldDown { until }) => Some(until.as_millis()),
            _ => None,
        },
        rtt_floor_us: one.rtt_floor.map(micros),
        ramp_step: one.ramp_step,
    });
    let overrides = remembered.overrides.iter().map(|one| SpeltOverride {
        kind: one.subject.kind().to_owned(),
        name: one.subject.name().to_string(),
        wish: one.wish.as_str().to_owned(),
        by: one.by.to_string(),
        reason: one.reason.as_deref().map(str::to_owned),
        at_ms: one.at.as_millis(),
    });
    Spelt {
        version: VERSION,
        node: node.to_owned(),
        written_at_ms: remembered.written_at.unwrap_or_default().as_millis(),
        endpoints: endpoints.collect(),
        regions: regions.collect(),
        overrides: overrides.collect(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl TryFrom<Spelt> for Remembered {
    type Error = String;

    fn try_from(spelt: Spelt) -> Result<Self, String> {
        let mut names = Names::default();
        let endpoints = spelt
            .endpoints
            .into_iter()
            .map(|one| endpoint(one, &mut names));
        let endpoints = endpoints.collect::<Result<_, String>>()?;
        let members = spelt.regions.into_iter().map(|one| member(one, &mut names));
        Ok(Self {
            written_at: Some(Timestamp::from_millis(spelt.written_at_ms)),
            endpoints,
            members: members.collect::<Result<_, String>>()?,
            overrides: spelt
                .overrides
                .into_iter()
                .map(word)
                .collect::<Result<_, String>>()?,
        })
    }
}

/// Shares the few names that occur many times.
#[derive(Debug, Default)]
struct Names(HashMap<String, Arc<str>>);

impl Names {
    fn shared(&mut self, name: String) -> Arc<str> {
        self.0
            .entry(name)
            .or_insert_with_key(|name| name.as_str().into())
            .clone()
    }
}

fn endpoint(one: SpeltEndpoint, names: &mut Names) -> Result<RememberedEndpoint, String> {
    Ok(RememberedEndpoint {
        pool: names.shared(one.pool),
        region: names.shared(one.region),
        verdict: verdict(&one.verdict)?,
        name: one.endpoint.into(),
        since: Timestamp::from_millis(one.since_ms),
        cause: one.cause.map(Into::into),
        rtt: one.rtt_us.map(Duration::from_micros),
    })
}

fn verdict(word: &str) -> Result<Verdict, String> {
    const ALL: [Verdict; 6] = [
        Verdict::Unknown,
        Verdict::Up,
        Verdict::Suspect,
        Verdict::Probation,
        Verdict::Draining,
        Verdict::Down,
    ];
    let known = ALL.into_iter().find(|verdict| verdict.as_str() == word);
    known.ok_or_else(|| format!("`{word}` is no verdict"))
}

fn member(one: SpeltMember, names: &mut Names) -> Result<RememberedMember, String> {
    let until = Timestamp::from_millis(one.hold_down_until_ms.unwrap_or(0));
    let reasons = [
        OutReason::Failed,
        OutReason::HoldDown { until },
        OutReason::FailedOver,
        OutReason::Draining,
        OutReason::Empty,
    ];
    let out = reasons
        .into_iter()
        .find(|reason| reason.as_str() == one.standing);
    let standing = match out {
        Some(reason) => Standing::Out(reason),
        None if one.standing == "in" => Standing::In,
        None => return Err(format!("`{}` is no standing", one.standing)),
    };
    Ok(RememberedMember {
        pool: names.shared(one.pool),
        region: names.shared(one.region),
        standing,
        since: Timestamp::from_millis(one.since_ms),
        rtt_floor: one.rtt_floor_us.map(Duration::from_micros),
        ramp_step: one.ramp_step,
    })
}

fn word(one: SpeltOverride) -> Result<Override, String> {
    let subject = match one.kind.as_str() {
        "region" => Subject::Region(one.name.into()),
        "endpoint" => Subject::Endpoint(one.name.into()),
        other => return Err(format!("`{other}` cannot be overridden")),
    };
    let wishes = [Wish::FailedOver, Wish::Draining];
    let wish = wishes.into_iter().find(|wish| wish.as_str() == one.wish);
    Ok(Override {
        subject,
        wish: wish.ok_or_else(|| format!("`{}` is no override", one.wish))?,
        by: one.by.into(),
        reason: one.reason.map(Into::into),
        at: Timestamp::from_millis(one.at_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Remembered {
        let at = Timestamp::from_millis;
        Remembered {
            written_at: Some(at(1_800_000_000_123)),
            endpoints: vec![RememberedEndpoint {
                pool: "api".into(),
                region: "eu".into(),
                name: "10.0.0.1:80".into(),
                verdict: Verdict::Down,
                since: at(5),
                cause: Some("connection refused".into()),
                rtt: Some(Duration::from_micros(1_500)),
            }],
            members: vec![RememberedMember {
                pool: "api".into(),
                region: "eu".into(),
                standing: Standing::Out(OutReason::HoldDown { until: at(9) }),
                since: at(6),
                rtt_floor: Some(Duration::from_micros(900)),
                ramp_step: Some(1),
            }],
            overrides: vec![Override {
                subject: Subject::Region("us".into()),
                wish: Wish::FailedOver,
                by: "oncall".into(),
                reason: Some("maintenance".into()),
                at: at(7),
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write(&path, "edge-1", &example()).unwrap();
        write(&path, "edge-1", &example()).unwrap();

        let Found::Map(read) = read(&path, Timestamp::default()) else {
            panic!("not found")
        };

        assert_eq!(read.written_at, example().written_at);
        assert_eq!(read.endpoints, example().endpoints);
        assert_eq!(read.members, example().members);
        assert_eq!(read.overrides, example().overrides);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_map_is_no_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let found = read(&folder.path().join("none.json"), Timestamp::default());
        assert!(matches!(found, Found::Missing), "{found:?}");
    }

    #[test]
    fn a_broken_map_is_kept_aside_under_a_name_that_says_so() {
        let cases = [
            "{",
            "",
            "[]",
            r#"{"version": 99, "later": true}"#,
            r#"{"version": 1}"#,
            r#"{"version":1,"node":"n","written_at_ms":1,"regions":[],"overrides":[],"endpoints":
               [{"pool":"p","region":"r","endpoint":"e","verdict":"fine","since_ms":1}]}"#,
        ];
        for text in cases {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.json");
            fs::write(&path, text).unwrap();

            let found = read(&path, Timestamp::from_millis(42));

            let Found::Broken {
                why,
                kept: Ok(kept),
            } = found
            else {
                panic!("{found:?}")
            };
            assert!(!why.is_empty());
            assert!(kept.ends_with("state.json.broken-42"), "{kept:?}");
            assert_eq!(fs::read_to_string(kept).unwrap(), text, "kept, not changed");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_map_that_cannot_be_written_is_an_error_and_leaves_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no-such-folder").join("state.json");
        assert!(write(&path, "edge-1", &example()).is_err());

        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("full")).unwrap();
        assert!(write(&taken, "edge-1", &example()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
