//! When a request is tried again, or at two endpoints side by side, and how long an attempt may take.

use sealane_model::Ratio;
use sealane_proxy::config::{
    Adaptive, Backoff, HedgeAfter, HedgePolicy, Percentile, RetryOn, RetryPolicy,
};

use super::super::decode::At;
use super::super::error::Mistake;
use super::super::spec::{AdaptiveSpec, BackoffSpec, HedgeSpec, Limit, PercentileWord, RetrySpec};
use super::super::unit::{HedgeAfterText, RetryWord, print_duration};
use super::Parser;

impl Parser<'_> {
    /// `attempt`: the most that it may come to.
    pub(super) fn adaptive(
        &mut self,
        spec: &At<AdaptiveSpec>,
        attempt: &At<Limit>,
    ) -> Option<Adaptive> {
        let AdaptiveSpec {
            span: _,
            broken: _,
            of,
            factor,
            floor,
        } = &spec.value;
        let floor = floor.as_ref()?;
        if floor.value.0 > attempt.value.0 {
            let message = format!(
                "`floor` of {} is longer than `attempt` of {}",
                print_duration(floor.value.0),
                print_duration(attempt.value.0)
            );
            let span = floor.span.or(attempt.span).or(spec.span);
            self.notes
                .mistake(Mistake::new(span, message).expected("floor ≤ attempt"));
        }
        Some(Adaptive {
            of: percentile(of.as_ref()?.value),
            factor: u32::try_from(factor.as_ref()?.value.0).ok()?.into(),
            floor: floor.value.0,
        })
    }

    pub(super) fn retry_policy(&mut self, spec: &At<RetrySpec>) -> Option<RetryPolicy> {
        let RetrySpec {
            span: _,
            broken: _,
            attempts,
            budget,
            on,
            methods,
            backoff,
        } = &spec.value;
        let BackoffSpec {
            span: _,
            broken: _,
            first,
            max,
        } = &backoff.as_ref()?.value;
        let (first, max) = (first.as_ref()?, max.as_ref()?);
        if first.value.0 > max.value.0 {
            let message = format!(
                "`first` of {} is longer than `max` of {}",
                print_duration(first.value.0),
                print_duration(max.value.0)
            );
            let span = first.span.or(max.span).or(spec.span);
            self.notes
                .mistake(Mistake::new(span, message).expected("first ≤ max"));
        }
        let methods = methods.iter().flat_map(|list| list.value.iter());
        let methods = methods.filter_map(|method| self.method(method)).collect();
        Some(RetryPolicy {
            attempts: u32::try_from(attempts.as_ref()?.value.0).ok()?,
            budget: Ratio::new(budget.as_ref()?.value.0)?,
            on: retry_on(&on.as_ref()?.value),
            methods,
            backoff: Backoff {
                first: first.value.0,
                max: max.value.0,
            },
        })
    }
}

/// The outer `None`: something could not be read; the inner one: no hedging.
pub(super) fn hedge_policy(spec: Option<&At<HedgeSpec>>) -> Option<Option<HedgePolicy>> {
    let Some(spec) = spec else {
        return Some(None);
    };
    let HedgeSpec {
        span: _,
        broken: _,
        after,
        budget,
    } = &spec.value;
    let budget = Ratio::new(budget.as_ref()?.value.0)?;
    let after = match after.as_ref()?.value {
        HedgeAfterText::Fixed(delay) => HedgeAfter::Fixed(delay),
        HedgeAfterText::P50 => HedgeAfter::Measured(Percentile::P50),
        HedgeAfterText::P90 => HedgeAfter::Measured(Percentile::P90),
        HedgeAfterText::P95 => HedgeAfter::Measured(Percentile::P95),
        HedgeAfterText::P99 => HedgeAfter::Measured(Percentile::P99),
    };
    Some((budget.get() > 0.0).then_some(HedgePolicy { after, budget }))
}

const fn percentile(word: PercentileWord) -> Percentile {
    match word {
        PercentileWord::P50 => Percentile::P50,
        PercentileWord::P90 => Percentile::P90,
        PercentileWord::P95 => Percentile::P95,
        PercentileWord::P99 => Percentile::P99,
    }
}

fn retry_on(words: &[At<RetryWord>]) -> RetryOn {
    let mut on = RetryOn {
        connect: false,
        reset: false,
        timeout: false,
        ..RetryOn::default()
    };
    for word in words {
        match word.value {
            RetryWord::Connect => on.connect = true,
            RetryWord::Reset => on.reset = true,
            RetryWord::Timeout => on.timeout = true,
            RetryWord::BadGateway => on.bad_gateway = true,
            RetryWord::Unavailable => on.unavailable = true,
            RetryWord::GatewayTimeout => on.gateway_timeout = true,
        }
    }
    on
}
