//! The timeline in words. Computes nothing: see [`crate::timeline`].

use std::fmt::Write;
use std::time::Duration;

use crate::timeline::{BUCKET, Bucket, SLOW, Timeline};

/// Signs in a line of the sparkline: one line is ten seconds.
const SIGNS_IN_A_LINE: usize = 100;

/// The timeline as a user wants to read it: seconds since the outage, then since the healing, then a
/// picture of the errors.
#[must_use]
pub fn report(timeline: &Timeline, region: &str) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(&mut text, timeline, region);
    text
}

fn write_report(text: &mut String, timeline: &Timeline, region: &str) -> std::fmt::Result {
    let outage = &timeline.outage;
    writeln!(text, "Outage of {region}, seconds after it began:")?;
    line(text, "last GET answered by it", outage.last_from_region)?;
    line(text, "first GET answered elsewhere", outage.first_elsewhere)?;
    line(text, "first failed GET", outage.first_failure)?;
    line(text, "last failed GET", outage.last_failure)?;
    line(text, "last GET of over a second", outage.last_slow)?;
    match timeline.gone_address {
        Some(address) => {
            let what = format!("DNS names {address} no more");
            line(text, &what, outage.dns_changed)?;
        }
        None => writeln!(text, "  (DNS gave no answer before the outage)")?,
    }
    line(
        text,
        "last DNS question unanswered",
        outage.last_dns_failure,
    )?;
    line(text, "the whole failover", timeline.whole_failover())?;
    if let Some(recovery) = &timeline.recovery {
        writeln!(text, "Recovery, seconds after it was healed:")?;
        line(text, "first GET answered by it again", recovery.first_back)?;
        line(text, "DNS names it again", recovery.dns_back)?;
        line(text, "last failed GET", recovery.last_failure)?;
    }
    writeln!(
        text,
        "GETs: {} sent, {} failed ({} of them before the outage), {} took longer than {} s, \
         slowest answer {:.3} s, {} asked again on a new connection; {region} answered {} of them before the outage",
        timeline.sent,
        timeline.failed,
        timeline.failed_before,
        timeline.slow,
        SLOW.as_secs(),
        timeline.slowest.as_secs_f64(),
        timeline.asked_again,
        timeline.served_before,
    )?;
    errors(text, timeline)
}

fn line(text: &mut String, what: &str, at: Option<Duration>) -> std::fmt::Result {
    let at = at.map_or_else(|| "–".to_owned(), |at| format!("{:.3}", at.as_secs_f64()));
    writeln!(text, "  {what:<36} {at:>9}")
}

/// A picture, and the numbers of the spans in which something went wrong.
fn errors(text: &mut String, timeline: &Timeline) -> std::fmt::Result {
    writeln!(
        text,
        "Failed GETs per {} ms (▁ none, █ all):",
        BUCKET.as_millis()
    )?;
    let signs: Vec<char> = timeline.sparkline().chars().collect();
    for (index, part) in signs.chunks(SIGNS_IN_A_LINE).enumerate() {
        let from = BUCKET * u32::try_from(index * SIGNS_IN_A_LINE).unwrap_or(u32::MAX);
        let part: String = part.iter().collect();
        writeln!(text, "  {:>5} s {part}", from.as_secs())?;
    }
    let worth_a_line = |bucket: &Bucket| bucket.failed > 0 || bucket.slow > 0;
    for (index, bucket) in timeline.buckets.iter().enumerate() {
        if worth_a_line(bucket) {
            let from = BUCKET.as_secs_f64() * index as f64;
            let Bucket {
                ended,
                failed,
                slow,
            } = bucket;
            writeln!(
                text,
                "  {from:>7.1} s: {failed} of {ended} failed, {slow} slow"
            )?;
        }
    }
    Ok(())
}
