//! Each route of the admin API, one function each.
//!
//! Asks control and shows what it says; judges no order and no health itself.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{MatchedPath, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::again::{Again, KEY_MAX, Keeper, Kept, Turn};
use super::auth::{self, Access, Caller, Denied, Reach};
use super::serve::Admin;
use super::view::{
    CanariesView, ErrorView, ExplainView, OrderView, ReadyView, ResetView, SnapshotView,
    StatusView, ZonesView, parse_canary, parse_order, to_json,
};
use super::{ExplainError, ExplainErrorKind, Readiness};
use crate::clock::wall;
use crate::core::OrderError;
use crate::metrics;
use crate::overrides::{Order, OrderKind};

/// A reason that an operator gives is kept, logged and shown; a longer one is refused.
const REASON_MAX: usize = 500;
/// A longer name than any region's or endpoint's.
const TARGET_MAX: usize = 300;

/// What is shown to whoever asks for a path that is not there.
const PATHS: [&str; 12] = [
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /v1/status",
    "GET /v1/snapshot",
    "GET /v1/explain?dns=NAME&client=IP or ?url=URL&client=IP",
    "POST /api/failover",
    "POST /api/failback",
    "POST /v1/drain",
    "GET /v1/canaries",
    "POST /v1/canaries/reset",
    "GET /v1/zones",
];

/// The routes that must answer even when everything else is too much.
pub(super) fn vital() -> Router<Arc<Admin>> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
}

/// Everything else. Who may call what is checked for the method that is really there, so that a
/// wrong method is told as such.
pub(super) fn guarded(admin: &Arc<Admin>, reach: Reach) -> Router<Arc<Admin>> {
    let read = |route: MethodRouter<Arc<Admin>>| {
        let guard = Guard {
            admin: admin.clone(),
            reach,
            access: Access::Read,
        };
        route.route_layer(middleware::from_fn_with_state(guard, admit))
    };
    let change = |route: MethodRouter<Arc<Admin>>| {
        let guard = Guard {
            admin: admin.clone(),
            reach,
            access: Access::Change,
        };
        route.route_layer(middleware::from_fn_with_state(guard, admit))
    };
    Router::new()
        .route("/metrics", read(get(show_metrics)))
        .route("/v1/status", read(get(status)))
        .route("/v1/snapshot", read(get(snapshot)))
        .route("/v1/explain", read(get(explain)))
        .route("/api/failover", change(post(fail_over)))
        .route("/api/failback", change(post(fail_back)))
        .route("/v1/drain", change(post(drain)))
        .route("/v1/canaries", read(get(canaries)))
        .route("/v1/zones", read(get(zones)))
        .route("/v1/canaries/reset", change(post(reset_canary)))
}

#[derive(Clone, Debug)]
struct Guard {
    admin: Arc<Admin>,
    reach: Reach,
    access: Access,
}

async fn admit(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let config = guard.admin.config.load();
    let admitted = auth::admit(
        &config,
        request.headers(),
        request.uri(),
        guard.reach,
        guard.access,
    );
    drop(config);
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(denied) => {
            tracing::debug!(path = request.uri().path(), %denied, "an admin request was denied");
            deny(denied)
        }
    }
}

fn deny(denied: Denied) -> Response {
    let status = if denied.is_unauthenticated() {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::FORBIDDEN
    };
    let mut response = error(status, denied.to_string(), Some(denied.hint()));
    if denied.is_unauthenticated() {
        let challenge = HeaderValue::from_static("Bearer realm=\"sealane\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

async fn livez() -> Response {
    (StatusCode::OK, [(CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let mut missing = Vec::new();
    if !admin.deps.handle.overview().first_round_over {
        missing.push("the first round of probes is not over".to_owned());
    }
    if let Readiness::NotReady(waiting_for) = (admin.deps.ready)() {
        missing.push(waiting_for);
    }
    let world = admin.deps.world.load();
    let view = ReadyView {
        ready: missing.is_empty(),
        missing,
        generation: world.generation.0,
        snapshot_age_ms: u64::try_from(wall().since(world.published_at).as_millis())
            .unwrap_or(u64::MAX),
    };
    let status = if view.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, to_json(&view))
}

async fn show_metrics(State(admin): State<Arc<Admin>>) -> Response {
    metrics::snapshot_age(wall().since(admin.deps.world.load().published_at));
    let text = (admin.deps.metrics)();
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    let waiting_for = match (admin.deps.ready)() {
        Readiness::Ready => None,
        Readiness::NotReady(waiting_for) => Some(waiting_for),
    };
    let (world, overview) = (admin.deps.world.load_full(), admin.deps.handle.overview());
    json(
        StatusCode::OK,
        to_json(&StatusView::new(&world, &overview, waiting_for, wall())),
    )
}

async fn snapshot(State(admin): State<Arc<Admin>>) -> Response {
    let (world, overview) = (admin.deps.world.load_full(), admin.deps.handle.overview());
    json(
        StatusCode::OK,
        to_json(&SnapshotView::new(&world, &overview)),
    )
}

async fn explain(
    State(admin): State<Arc<Admin>>,
    asked: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    let asked = match asked
        .map_err(|rejection| rejection.to_string())
        .and_then(|Query(pairs)| Asked::parse(&pairs))
    {
        Ok(asked) => asked,
        Err(mistake) => {
            let hint = "ask ?dns=NAME&client=IP or ?url=URL&client=IP";
            return error(StatusCode::BAD_REQUEST, mistake, Some(hint));
        }
    };
    let decision = match &asked.what {
        What::Dns(name) => admin.deps.explain.dns(name, asked.client),
        What::Url(url) => admin.deps.explain.url(url, asked.client),
    };
    match decision {
        Ok(decision) => json(StatusCode::OK, to_json(&ExplainView::from(&decision))),
        Err(ExplainError { kind, message }) => {
            let status = match kind {
                ExplainErrorKind::NotFound => StatusCode::NOT_FOUND,
                ExplainErrorKind::BadRequest => StatusCode::BAD_REQUEST,
                ExplainErrorKind::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, message, None)
        }
    }
}

async fn canaries(State(admin): State<Arc<Admin>>) -> Response {
    let canaries = admin.deps.explain.canaries();
    json(StatusCode::OK, to_json(&CanariesView::from(&*canaries)))
}

async fn zones(State(admin): State<Arc<Admin>>) -> Response {
    let zones = admin.deps.explain.zones();
    json(StatusCode::OK, to_json(&ZonesView::from(&*zones)))
}

async fn reset_canary(State(admin): State<Arc<Admin>>, asking: Asking) -> Response {
    const HINT: &str = r#"send {"route": "NAME", "pool": "NAME"}"#;
    let body = match asking.body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), rejection.body_text(), None),
    };
    let asked = match parse_canary(&body) {
        Ok(asked) => asked,
        Err((mistake, true)) => return error(StatusCode::BAD_REQUEST, mistake, Some(HINT)),
        Err((mistake, false)) => {
            return error(StatusCode::UNPROCESSABLE_ENTITY, mistake, Some(HINT));
        }
    };
    match admin.deps.explain.reset_canary(&asked.route, &asked.pool) {
        Ok(was_aborted) => {
            tracing::info!(
                route = asked.route,
                pool = asked.pool,
                by = %asking.caller.0,
                was_aborted,
                "a canary is reset"
            );
            json(StatusCode::OK, to_json(&ResetView::new(was_aborted)))
        }
        Err(ExplainError { kind, message }) => {
            let status = match kind {
                ExplainErrorKind::NotFound => StatusCode::NOT_FOUND,
                ExplainErrorKind::BadRequest => StatusCode::BAD_REQUEST,
                ExplainErrorKind::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(
                status,
                message,
                Some("GET /v1/canaries shows all there are"),
            )
        }
    }
}

/// A question for `explain`.
struct Asked {
    what: What,
    client: IpAddr,
}

enum What {
    Dns(String),
    Url(String),
}

impl Asked {
    fn parse(pairs: &[(String, String)]) -> Result<Self, String> {
        let (mut what, mut client) = (None, None);
        for (key, value) in pairs {
            let before = match key.as_str() {
                "dns" => what.replace(What::Dns(value.clone())).is_some(),
                "url" => what.replace(What::Url(value.clone())).is_some(),
                "client" => client.replace(value).is_some(),
                other => return Err(format!("`{other}` is not asked about here")),
            };
            if before {
                return Err(format!(
                    "`{key}` is one too many: ask about one thing at a time"
                ));
            }
        }
        let client = client.ok_or("`client` is missing: the address of the client")?;
        Ok(Self {
            what: what.ok_or("`dns` or `url` is missing: what the client asks for")?,
            client: client
                .parse()
                .map_err(|_| format!("`{client}` is no IP address"))?,
        })
    }
}

async fn fail_over(admin: State<Arc<Admin>>, request: Asking) -> Response {
    order(admin, OrderKind::FailOver, request).await
}

async fn fail_back(admin: State<Arc<Admin>>, request: Asking) -> Response {
    order(admin, OrderKind::FailBack, request).await
}

async fn drain(admin: State<Arc<Admin>>, request: Asking) -> Response {
    order(admin, OrderKind::Drain, request).await
}

/// What every order is made of.
struct Asking {
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
}

impl axum::extract::FromRequest<Arc<Admin>> for Asking {
    type Rejection = Response;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, Response> {
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            // Every order's route has its guard; without one, nobody is somebody.
            return Err(deny(Denied::NoToken));
        };
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        let body = Bytes::from_request(request, admin).await;
        Ok(Self {
            caller,
            uri,
            headers,
            body,
        })
    }
}

async fn order(State(admin): State<Arc<Admin>>, kind: OrderKind, asking: Asking) -> Response {
    let Asking {
        caller,
        uri,
        headers,
        body,
    } = asking;
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), rejection.body_text(), None),
    };
    let keeper = match turn(&admin.again, &caller, &uri, &headers, &body) {
        Ok(keeper) => keeper,
        Err(response) => return *response,
    };
    let order = match parse(kind, &caller, &body) {
        Ok(order) => order,
        Err(response) => return *response,
    };
    let (status, text) = match admin.deps.handle.order(order).await {
        Ok(reply) => (StatusCode::OK, to_json(&OrderView::from(&reply))),
        Err(refusal) => refused(&refusal),
    };
    let kept = Kept {
        status,
        body: text.into(),
    };
    if let Some(keeper) = keeper.filter(|_| !status.is_server_error()) {
        keeper.keep(kept.clone());
    }
    json(kept.status, kept.body)
}

/// Looks at the `Idempotency-Key`: an order that was replied to is not followed again.
fn turn(
    again: &Again,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Keeper>, Box<Response>> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= KEY_MAX);
    let Some(key) = key else {
        let limit = format!("an Idempotency-Key is 1–{KEY_MAX} printable characters");
        return Err(error(StatusCode::BAD_REQUEST, limit, None).into());
    };
    match again.turn(wall(), &caller.0, key, uri.path(), body) {
        Turn::First(keeper) => Ok(Some(keeper)),
        Turn::Again(kept) => {
            let mut response = json(kept.status, kept.body);
            response
                .headers_mut()
                .insert("idempotency-replayed", HeaderValue::from_static("true"));
            Err(response.into())
        }
        Turn::UnderWay => Err(error(
            StatusCode::CONFLICT,
            "this very order is being followed".to_owned(),
            Some("ask again in a moment"),
        )
        .into()),
        Turn::OtherOrder => Err(error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this Idempotency-Key was used for another order".to_owned(),
            Some("use a fresh key for each order"),
        )
        .into()),
    }
}

fn parse(kind: OrderKind, caller: &Caller, body: &[u8]) -> Result<Order, Box<Response>> {
    const HINT: &str =
        r#"send {"target": "REGION or HOST", "dry_run": false, "reason": "…", "force": false}"#;
    let asked = parse_order(body).map_err(|(mistake, malformed)| {
        let status = if malformed {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        error(status, mistake, Some(HINT))
    })?;
    let too_long = asked.target.len() > TARGET_MAX
        || asked
            .reason
            .as_ref()
            .is_some_and(|reason| reason.len() > REASON_MAX);
    if too_long || asked.target.trim().is_empty() {
        let limits =
            format!("`target` is 1–{TARGET_MAX} bytes long, `reason` at most {REASON_MAX}");
        return Err(error(StatusCode::UNPROCESSABLE_ENTITY, limits, Some(HINT)).into());
    }
    Ok(Order {
        kind,
        target: asked.target,
        by: caller.0.clone(),
        reason: asked.reason.map(Into::into),
        dry_run: asked.dry_run,
        force: asked.force,
    })
}

fn refused(refusal: &OrderError) -> (StatusCode, Vec<u8>) {
    let (status, hint) = match refusal {
        OrderError::UnknownTarget { .. } => (
            StatusCode::NOT_FOUND,
            Some("GET /v1/snapshot shows every region and endpoint"),
        ),
        OrderError::LeavesNothing { .. } => (
            StatusCode::CONFLICT,
            Some("send \"force\": true to do it all the same"),
        ),
        OrderError::TooMany(_) => (StatusCode::CONFLICT, None),
        OrderError::Busy | OrderError::HandingOver | OrderError::Gone => {
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
    };
    (status, error_body(refusal.to_string(), hint))
}

pub(super) async fn not_found(uri: Uri) -> Response {
    let view = ErrorView {
        error: format!("nothing is at {}", uri.path()),
        hint: None,
        paths: PATHS.to_vec(),
    };
    json(StatusCode::NOT_FOUND, to_json(&view))
}

pub(super) async fn wrong_method(method: http::Method, uri: Uri) -> Response {
    error(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not possible at {}", uri.path()),
        Some("see the Allow header"),
    )
}

/// Counts every answer; makes the framework's own refusals look like ours.
pub(super) async fn finish(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = path.map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    let status = response.status();
    metrics::admin_answered(route, status.as_u16());
    let is_json = |response: &Response| {
        response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind == "application/json")
    };
    if status == StatusCode::PAYLOAD_TOO_LARGE && !is_json(&response) {
        return error(status, "the body is too large".to_owned(), None);
    }
    response
}

pub(super) fn error(status: StatusCode, message: String, hint: Option<&str>) -> Response {
    json(status, error_body(message, hint))
}

fn error_body(message: String, hint: Option<&str>) -> Vec<u8> {
    to_json(&ErrorView {
        error: message,
        hint: hint.map(str::to_owned),
        paths: Vec::new(),
    })
}

fn json(status: StatusCode, text: impl Into<Body>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, text.into()).into_response()
}
