//! The admin API's JSON in the words of a person, for the command line. Decides nothing.
//!
//! What is missing in an answer (an older or newer Sealane's) is shown as `-`, never as an error.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;

/// `GET /v1/status`: a line for each region of each pool.
#[must_use]
pub fn status(body: &Value) -> String {
    let mut text = String::new();
    let ready = match body["waiting_for"].as_str() {
        Some(waiting) => format!("not ready: {waiting}"),
        None => "ready".to_owned(),
    };
    line(
        &mut text,
        format_args!(
            "{} · {ready} · generation {} of {}",
            word(&body["node"]),
            word(&body["generation"]),
            word(&body["published_at"])
        ),
    );
    if let Some(age) = body["restored_state_age_seconds"].as_u64() {
        let said = format_args!("began with a map that was {age} s old");
        line(&mut text, said);
    }
    for pool in list(&body["pools"]) {
        line(&mut text, format_args!("\npool {}", word(&pool["name"])));
        line(
            &mut text,
            format_args!(
                "  {:<18} {:<14} {:>7}  {:>9}  since",
                "region", "standing", "healthy", "rtt"
            ),
        );
        for region in list(&pool["regions"]) {
            let suspect = if region["suspect"] == Value::Bool(true) {
                "?"
            } else {
                ""
            };
            let healthy = format!(
                "{}/{}{suspect}",
                word(&region["healthy"]),
                word(&region["total"])
            );
            let rtt = region["rtt_ms"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms"));
            let until = match region["until"].as_str() {
                Some(until) => format!(" until {until}"),
                None => String::new(),
            };
            line(
                &mut text,
                format_args!(
                    "  {:<18} {:<14} {healthy:>7}  {rtt:>9}  {}{until}",
                    word(&region["name"]),
                    word(&region["standing"]),
                    word(&region["since"])
                ),
            );
        }
    }
    for one in list(&body["overrides"]) {
        line(
            &mut text,
            format_args!(
                "\noverride: {} {} by {} at {}{}",
                word(&one["override"]),
                word(&one["target"]),
                word(&one["by"]),
                word(&one["at"]),
                because(one)
            ),
        );
    }
    text
}

/// `GET /v1/explain`: the winner, then every candidate with its numbers.
#[must_use]
pub fn explain(body: &Value) -> String {
    let mut text = String::new();
    let client = &body["client"];
    line(
        &mut text,
        format_args!(
            "{} -> {} ({}), by {} of pool {}, generation {}",
            word(&client["address"]),
            word(&body["winner"]),
            word(&body["reason"]),
            word(&body["policy"]),
            word(&body["pool"]),
            word(&body["generation"])
        ),
    );
    let place = match (client["region"].as_str(), client["location"].as_array()) {
        (Some(region), _) => format!("assigned to {region}"),
        (None, Some(at)) => format!("at {}", at.iter().map(word).collect::<Vec<_>>().join(", ")),
        (None, None) => "at an unknown place".to_owned(),
    };
    line(
        &mut text,
        format_args!(
            "located by {}, {place}; holds for the client's /{}",
            word(&client["how"]),
            word(&body["scope"])
        ),
    );
    line(
        &mut text,
        format_args!(
            "\n  # {:<18} {:>8} {:>10} {:<9} {:>9} {:>7}  why not",
            "region", "weight", "latency", "from", "healthy", "share"
        ),
    );
    for one in list(&body["candidates"]) {
        let position = one["position"]
            .as_u64()
            .map_or_else(|| "-".to_owned(), |at| (at + 1).to_string());
        let healthy = format!("{}/{}", word(&one["healthy"]), word(&one["total"]));
        line(
            &mut text,
            format_args!(
                "  {position} {:<18} {:>8} {:>7.1} ms {:<9} {healthy:>9} {:>6.1}%  {}",
                word(&one["region"]),
                word(&one["weight"]),
                one["latency_ms"].as_f64().unwrap_or_default(),
                word(&one["latency_from"]),
                one["share"].as_f64().unwrap_or_default() * 100.0,
                one["filter"].as_str().unwrap_or_default()
            ),
        );
    }
    if let Some(notes) = body["notes"].as_object() {
        line(&mut text, format_args!(""));
        for (key, values) in notes {
            let values: Vec<_> = list(values).map(word).collect();
            line(&mut text, format_args!("  {key}: {}", values.join("; ")));
        }
    }
    text
}

/// The answer to `failover`, `failback` and `drain`.
#[must_use]
pub fn order(body: &Value) -> String {
    let mut text = String::new();
    let (order, target) = (word(&body["order"]), word(&body["target"]));
    let said = match body["result"].as_str() {
        Some("would_follow") => format!("dry run: {order} of {target} would change"),
        Some("would_refuse") => format!("dry run: {order} of {target} would be refused"),
        Some("already") => format!("{order} of {target}: already so"),
        _ => format!("{order} of {target}: done"),
    };
    line(&mut text, format_args!("{said}"));
    if let Some(refusal) = body["refusal"].as_str() {
        line(&mut text, format_args!("  {refusal}"));
    }
    for pool in list(&body["pools"]) {
        let names = |key: &str| list(&pool[key]).map(word).collect::<Vec<_>>().join(", ");
        line(
            &mut text,
            format_args!(
                "  pool {}: [{}] -> [{}]",
                word(&pool["pool"]),
                names("regions_before"),
                names("regions_after")
            ),
        );
    }
    text
}

/// A refusal of the API, with its hint.
#[must_use]
pub fn refusal(status: StatusCode, body: &Value) -> String {
    let error = match (body["error"].as_str(), list(&body["missing"]).next()) {
        (Some(error), _) => error.to_owned(),
        (None, Some(_)) => {
            format!(
                "not ready: {}",
                list(&body["missing"])
                    .map(word)
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        (None, None) => format!("the admin API answered {status}"),
    };
    match body["hint"].as_str() {
        Some(hint) => format!("{error}\n  help: {hint}"),
        None => error,
    }
}

fn because(one: &Value) -> String {
    one["reason"]
        .as_str()
        .map_or_else(String::new, |reason| format!(" ({reason})"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{what}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_shown_with_its_hint() {
        let body = json!({ "error": "no token", "hint": "configure admin.tokens" });

        let said = refusal(StatusCode::FORBIDDEN, &body);

        assert_eq!(said, "no token\n  help: configure admin.tokens");
    }

    #[test]
    fn an_order_says_what_each_pool_gains_and_loses() {
        let body = json!({
            "order": "failover", "target": "eu", "result": "would_follow",
            "pools": [{ "pool": "api", "regions_before": ["eu", "us"], "regions_after": ["us"] }],
        });

        assert_eq!(
            order(&body),
            "dry run: failover of eu would change\n  pool api: [eu, us] -> [us]\n"
        );
    }

    #[test]
    fn an_answer_that_lacks_everything_is_still_shown() {
        assert!(status(&json!({})).starts_with("- · ready"));
        assert!(explain(&json!({})).starts_with("- -> -"));
    }
}
