//! How `sealane demo region-down` reaches the demo's origins: one small server on loopback.
//!
//! Not a part of Sealane's admin API, and not reachable from a browser: a header is required that
//! no form or link can send.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context as _, bail};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use clap::ValueEnum as _;
use tokio::net::TcpListener;

use super::REGIONS;
use super::origin::{Mode, Switches};
use crate::admin_client::AdminClient;

/// The origins' port in `configs/quickstart.yaml`.
pub const PORT_DEFAULT: u16 = 9000;

const HEADER: &str = "x-sealane-demo";

fn address(port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, 1), port).into()
}

pub(super) async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    let at = address(port);
    TcpListener::bind(at)
        .await
        .with_context(|| format!("the demo's switchboard {at} cannot listen"))
}

/// Serves until dropped.
pub(super) async fn serve(listener: TcpListener, switches: Switches) {
    let router = Router::new()
        .route("/regions/{region}/{mode}", post(switch))
        .with_state(switches);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the demo's switchboard ended");
    }
}

async fn switch(
    State(switches): State<Switches>,
    Path((region, mode)): Path<(String, String)>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if !headers.contains_key(HEADER) {
        return (
            StatusCode::FORBIDDEN,
            json("this is for `sealane demo` alone"),
        );
    }
    let Some(switch) = switches.get(region.as_str()) else {
        return (StatusCode::NOT_FOUND, json(&format!("no region {region}")));
    };
    let Ok(mode) = Mode::from_str(&mode, false) else {
        return (StatusCode::NOT_FOUND, json(&format!("no mode {mode}")));
    };
    switch.send_replace(mode);
    (
        StatusCode::OK,
        json(&format!("{region} is {}", in_words(mode))),
    )
}

fn json(text: &str) -> String {
    serde_json::json!({ "message": text }).to_string()
}

const fn in_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Serving => "up: its origins serve again",
        Mode::Refused => "down: its origins refuse connections",
        Mode::BlackHole => "down: its origins accept connections and never answer",
    }
}

/// Tells a running demo how a region's origins are to behave; returns what it said.
///
/// # Errors
/// No demo runs there, or it has no such region.
pub async fn order(port: u16, region: &str, mode: Mode) -> anyhow::Result<String> {
    let region = region.replace('_', "-");
    if !REGIONS.contains(&region.as_str()) {
        bail!(
            "the demo has no region {region:?}; it has {}",
            REGIONS.join(", ")
        );
    }
    let word = mode
        .to_possible_value()
        .map(|value| value.get_name().to_owned());
    let path = format!("/regions/{region}/{}", word.unwrap_or_default());
    let client = AdminClient::new(&format!("http://{}", address(port)), None)?;
    let client = client.with_header(HEADER, "1");
    let answer = client
        .post(&path, &serde_json::Value::Null)
        .await
        .context("is `sealane demo` running? (with another --origins-port, say so here too)")?;
    let message = answer.body["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if !answer.status.is_success() {
        bail!(message);
    }
    Ok(message)
}
