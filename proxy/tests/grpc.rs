//! gRPC by an independent stack (tonic) on both sides of the proxy: the four kinds of calls, status
//! and metadata in trailers, deadlines, and our own refusals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use edge::{Edge, PATIENCE};
use http::uri::PathAndQuery;
use sealane_model::Verdict::Up;
use sealane_testkit::World;
use tokio::task::JoinSet;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// Messages are bytes as they are.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

async fn echo(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    match &request.get_ref()[..] {
        b"no" => Err(Status::with_details(
            Code::FailedPrecondition,
            "not today",
            Bytes::from_static(b"\x01\x02"),
        )),
        b"slow" => {
            tokio::time::sleep(PATIENCE).await;
            Ok(Response::new(Bytes::new()))
        }
        _ => {
            let mut response = Response::new(request.into_inner());
            response
                .metadata_mut()
                .insert("x-head", "h".parse().unwrap());
            Ok(response)
        }
    }
}

async fn count(request: Request<Bytes>) -> Result<Response<Messages>, Status> {
    let most: u32 = std::str::from_utf8(request.get_ref())
        .unwrap()
        .parse()
        .unwrap();
    let messages = (0..most).map(|number| Ok(Bytes::from(number.to_string())));
    Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
}

async fn sum(request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let mut messages = request.into_inner();
    let mut bytes = 0;
    while let Some(message) = messages.next().await {
        bytes += message?.len();
    }
    Ok(Response::new(Bytes::from(bytes.to_string())))
}

async fn converse(request: Request<Streaming<Bytes>>) -> Result<Response<Messages>, Status> {
    Ok(Response::new(Box::pin(request.into_inner())))
}

#[derive(Clone)]
struct Service;

impl tonic::server::NamedService for Service {
    const NAME: &'static str = "test.Service";
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain);
            let path = request.uri().path().to_owned();
            Ok(match &*path {
                "/test.Service/Echo" => grpc.unary(tower::service_fn(echo), request).await,
                "/test.Service/Count" => {
                    grpc.server_streaming(tower::service_fn(count), request)
                        .await
                }
                "/test.Service/Sum" => grpc.client_streaming(tower::service_fn(sum), request).await,
                _ => grpc.streaming(tower::service_fn(converse), request).await,
            })
        })
    }
}

struct Rig {
    edge: Edge,
    client: Grpc<Channel>,
    _server: JoinSet<()>,
}

async fn rig() -> Rig {
    let incoming = TcpIncoming::bind(edge::any_port()).unwrap();
    let address = incoming.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let serving = Server::builder().add_service(Service);
        serving.serve_with_incoming(incoming).await.unwrap();
    });
    let world = World::new().region("eu", Up);
    let world = world.endpoint(&address.to_string(), Up).http2().build();
    let edge = Edge::start_with(world, |config| {
        config.routes[0].when.path_prefix = Some("/test.Service".into());
        config.routes[0].timeouts.attempt = PATIENCE;
        config.routes[0].timeouts.request = PATIENCE;
    });
    let channel = Endpoint::from_shared(format!("http://{}", edge.address())).unwrap();
    let mut client = Grpc::new(channel.connect().await.unwrap());
    client.ready().await.unwrap();
    Rig {
        edge,
        client,
        _server: server,
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/test.Service/{method}").parse().unwrap()
}

fn message(text: &str) -> Request<Bytes> {
    Request::new(Bytes::from(text.to_owned()))
}

#[tokio::test]
async fn a_unary_call_brings_its_message_metadata_and_status() {
    let mut rig = rig().await;

    let reply = rig
        .client
        .unary(message("hello"), path("Echo"), Plain)
        .await
        .unwrap();
    assert_eq!(reply.metadata().get("x-head").unwrap(), "h");
    assert_eq!(reply.into_inner(), "hello");

    rig.client.ready().await.unwrap();
    let status = rig
        .client
        .unary(message("no"), path("Echo"), Plain)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "not today");
    assert_eq!(status.details(), b"\x01\x02");
}

#[tokio::test]
async fn a_server_streams() {
    let mut rig = rig().await;

    let reply = rig
        .client
        .server_streaming(message("1000"), path("Count"), Plain)
        .await
        .unwrap();
    let messages: Result<Vec<Bytes>, Status> = reply.into_inner().collect().await;

    let messages = messages.unwrap();
    assert_eq!((messages.len(), &messages[999][..]), (1000, &b"999"[..]));
}

#[tokio::test]
async fn a_client_streams() {
    let mut rig = rig().await;
    let pieces = (0..100).map(|_| Bytes::from(vec![b'x'; 30_000]));

    let asked = Request::new(tokio_stream::iter(pieces));
    let reply = rig
        .client
        .client_streaming(asked, path("Sum"), Plain)
        .await
        .unwrap();

    assert_eq!(reply.into_inner(), "3000000");
}

#[tokio::test]
async fn both_stream_in_turns() {
    let mut rig = rig().await;
    let (say, said) = tokio::sync::mpsc::channel(1);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);

    let reply = rig
        .client
        .streaming(Request::new(said), path("Converse"), Plain);
    let mut heard = reply.await.unwrap().into_inner();
    for word in ["one", "two", "three"] {
        say.send(Bytes::from(word)).await.unwrap();
        let next = tokio::time::timeout(PATIENCE, heard.next()).await;
        assert_eq!(next.unwrap().unwrap().unwrap(), word);
    }
    drop(say);
    assert!(heard.next().await.is_none());
    assert!(heard.trailers().await.unwrap().is_some());
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let mut rig = rig().await;
    let mut slow = message("slow");
    // By hand, so that the client itself does not watch the time.
    slow.metadata_mut()
        .insert("grpc-timeout", "300m".parse().unwrap());

    let call = rig.client.unary(slow, path("Echo"), Plain);
    let status = tokio::time::timeout(Duration::from_secs(10), call).await;

    // The server was told how long it has: it may be the first to say so, in its own words.
    let code = status.unwrap().unwrap_err().code();
    assert!(
        matches!(code, Code::DeadlineExceeded | Code::Cancelled),
        "{code:?}"
    );
}

#[tokio::test]
async fn refusals_come_in_grpcs_own_words() {
    let mut rig = rig().await;

    let nowhere = PathAndQuery::from_static("/other.Service/Echo");
    let status = rig
        .client
        .unary(message("x"), nowhere, Plain)
        .await
        .unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "no_route")
    );

    rig._server.shutdown().await;
    rig.client.ready().await.unwrap();
    let status = rig
        .client
        .unary(message("x"), path("Echo"), Plain)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    drop(rig.edge);
}
