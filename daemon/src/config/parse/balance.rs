//! How a pool's endpoints share its work, and when one is left out.

use std::sync::Arc;

use http::HeaderName;
use sealane_model::Ratio;
use sealane_proxy::config::{BalancePolicy, Balancing, EjectionRule, HashKey, LocalZone};

use super::super::decode::At;
use super::super::error::Mistake;
use super::super::spec::{
    BalanceChoice, BalanceSpec, BalanceWord, EjectionChoice, EjectionSpec, HashFieldSpec,
    HashKeySpec, NodeSpec,
};
use super::super::unit::{Share, Text, Whole, print_duration};
use super::Parser;

impl Parser<'_> {
    /// Where this node stands, if it says so to the zone.
    pub(super) fn local_zone(&mut self, node: Option<&At<NodeSpec>>) -> Option<LocalZone> {
        let NodeSpec { region, az, .. } = &node?.value;
        let az = az.as_ref()?;
        let Some(region) = region else {
            let message = "the node has an `az` and no `region`";
            self.notes.mistake(
                Mistake::new(az.span, message).help("say in which region: `region: NAME`"),
            );
            return None;
        };
        let named = self.regions.get(&region.0);
        Some(LocalZone {
            region: *named?, // that there is none is said elsewhere
            az: az.0.as_str().into(),
        })
    }

    pub(super) fn balancing(
        &mut self,
        balance: Option<&At<BalanceChoice>>,
        ejection: Option<&At<EjectionChoice>>,
    ) -> Option<Arc<Balancing>> {
        let balance = &balance?.value.0;
        let policy = self.balance_policy(balance);
        let ejection = match &ejection?.value {
            EjectionChoice::Off => None,
            EjectionChoice::When(spec) => Some(self.ejection(spec)?),
        };
        Some(Arc::new(Balancing {
            policy: policy?,
            slow_start: balance.slow_start.as_ref()?.value.0,
            panic: ratio(balance.panic.as_ref())?,
            local: self.local.clone(),
            ejection,
        }))
    }

    fn balance_policy(&mut self, spec: &BalanceSpec) -> Option<BalancePolicy> {
        let BalanceSpec {
            span: _,
            broken: _,
            policy,
            key,
            slow_start: _,
            panic: _,
        } = spec;
        let policy = policy.as_ref()?.value;
        if policy != BalanceWord::RingHash
            && let Some(key) = key
        {
            let message = format!(
                "endpoints are not chosen by a key under `{}`",
                policy.as_str()
            );
            self.notes
                .mistake(Mistake::new(key.span, message).help("write `policy: ring_hash`"));
            return None;
        }
        Some(match policy {
            BalanceWord::LeastLoaded => BalancePolicy::LeastLoaded,
            BalanceWord::RoundRobin => BalancePolicy::RoundRobin,
            BalanceWord::RingHash => BalancePolicy::RingHash(match key {
                Some(key) => self.hash_key(key)?,
                None => HashKey::ClientIp,
            }),
        })
    }

    fn hash_key(&mut self, spec: &At<HashKeySpec>) -> Option<HashKey> {
        let HashKeySpec::Of(field) = &spec.value else {
            return Some(HashKey::ClientIp);
        };
        let HashFieldSpec {
            span: _,
            broken,
            header,
            cookie,
        } = field;
        match (header, cookie) {
            (Some(header), None) => self.hash_header(header).map(HashKey::Header),
            (None, Some(cookie)) => Some(HashKey::Cookie(cookie.0.as_str().into())),
            (Some(_), Some(cookie)) => {
                let message = "a key is either a `header` or a `cookie`, not both";
                self.notes.wrong(cookie.span, message);
                None
            }
            (None, None) => {
                if !broken {
                    self.notes.mistake(
                        Mistake::new(spec.span, "the key is empty")
                            .expected("`client_ip`, `{header: NAME}` or `{cookie: NAME}`"),
                    );
                }
                None
            }
        }
    }

    fn hash_header(&mut self, name: &At<Text>) -> Option<HeaderName> {
        let parsed = HeaderName::from_bytes(name.0.as_bytes());
        if parsed.is_err() {
            let message = format!("`{}` is no header's name", name.0.escape_debug());
            self.notes.wrong(name.span, message);
        }
        parsed.ok()
    }

    fn ejection(&mut self, spec: &EjectionSpec) -> Option<EjectionRule> {
        let EjectionSpec {
            span: _,
            broken: _,
            consecutive_errors,
            success,
            requests,
            latency,
            time,
            time_max,
            share_max,
        } = spec;
        let (time, time_max) = (time.as_ref()?, time_max.as_ref()?);
        if time.value.0 > time_max.value.0 {
            let message = format!(
                "`time` is longer than `time_max`, which is {}",
                print_duration(time_max.value.0)
            );
            let span = if time.span.is_written() {
                time.span
            } else {
                time_max.span
            };
            self.notes.wrong(span, message);
            return None;
        }
        Some(EjectionRule {
            consecutive_errors: number(consecutive_errors.as_ref())?,
            success: ratio(success.as_ref())?,
            requests: number(requests.as_ref())?,
            latency: Some(number(latency.as_ref())?).filter(|factor| *factor > 0),
            time: time.value.0,
            time_max: time_max.value.0,
            share_max: ratio(share_max.as_ref())?,
        })
    }
}

fn ratio(share: Option<&At<Share>>) -> Option<Ratio> {
    Ratio::new(share?.value.0)
}

fn number<const MIN: u64, const MAX: u64>(number: Option<&At<Whole<MIN, MAX>>>) -> Option<u32> {
    u32::try_from(number?.value.0).ok()
}
