//! WebSockets by an independent library (tungstenite) on both sides of the proxy: in the clear and
//! over TLS, and over HTTP/2 with its frames inside a stream.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
mod edge;
#[allow(dead_code, reason = "other tests use more of it")]
mod stream_io;

use std::net::SocketAddr;

use bytes::Bytes;
use edge::{Edge, Http2, PATIENCE, any_port, certificate, connect_tls, listener, server_tls};
use futures_util::{SinkExt as _, StreamExt as _};
use sealane_model::Verdict::Up;
use sealane_proxy::config::ListenerProtocol;
use sealane_proxy::tls::CertificatePem;
use sealane_testkit::World;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

/// The largest message here.
const LARGE: usize = 8 * 1024 * 1024;

fn limits() -> WebSocketConfig {
    let config = WebSocketConfig::default();
    config
        .max_message_size(Some(2 * LARGE))
        .max_frame_size(Some(2 * LARGE))
}

/// Takes the protocol `chat` if it is offered; `/no` gets a 403.
#[expect(clippy::result_large_err, reason = "the library's signature")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == "/no" {
        let refused = http::Response::builder().status(403);
        return Err(refused.body(Some("no sockets here".to_owned())).unwrap());
    }
    let offered = request.headers().get_all("sec-websocket-protocol");
    let words = offered.iter().flat_map(|value| {
        let text = value.to_str().unwrap();
        text.split(',').map(str::trim)
    });
    if words.into_iter().any(|word| word == "chat") {
        let chat = "chat".parse().unwrap();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", chat);
    }
    Ok(response)
}

/// Echoes messages, answers pings and the closing by the library's own means. The word `bye` makes
/// it close by itself, `ping` makes it ask whether the client is there.
async fn echo(io: TcpStream) -> Result<(), Error> {
    let mut socket = accept_hdr_async_with_config(io, agree, Some(limits())).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) if text.as_str() == "bye" => {
                let why = CloseFrame {
                    code: CloseCode::Library(4321),
                    reason: "as you wish".into(),
                };
                socket.close(Some(why)).await?;
            }
            Message::Text(text) if text.as_str() == "ping" => {
                socket
                    .send(Message::Ping(Bytes::from_static(b"there?")))
                    .await?;
            }
            Message::Pong(payload) => socket.send(Message::Binary(payload)).await?,
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            Message::Ping(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }
    Ok(())
}

struct Rig {
    edge: Edge,
    certificate: CertificatePem,
    _endpoint: JoinSet<()>,
}

async fn rig() -> Rig {
    let socket = TcpListener::bind(any_port()).await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut endpoint = JoinSet::new();
    endpoint.spawn(async move {
        let mut sockets = JoinSet::new();
        loop {
            let (io, _) = socket.accept().await.unwrap();
            // How it ends is the client's to see.
            sockets.spawn(async { echo(io).await.ok() });
        }
    });
    let certificate = certificate();
    let world = World::new().region("eu", Up).endpoint(&address, Up);
    let edge = Edge::start_with(world.build(), |config| {
        let tls = ListenerProtocol::Https(server_tls(&certificate));
        config.listeners.push(listener("secure", tls));
        config.routes[0].timeouts.attempt = PATIENCE;
    });
    Rig {
        edge,
        certificate,
        _endpoint: endpoint,
    }
}

/// `ws:` or `wss:` over `io`, offering two protocols.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    url: &str,
    io: S,
) -> (WebSocketStream<S>, http::Response<Option<Vec<u8>>>) {
    let mut request = url.into_client_request().unwrap();
    let offered = "superchat, chat".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered);
    client_async_with_config(request, io, Some(limits()))
        .await
        .unwrap()
}

impl Rig {
    async fn tcp(&self, listener: &str) -> TcpStream {
        let address: SocketAddr = self.edge.address_of(listener);
        TcpStream::connect(address).await.unwrap()
    }
}

async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Message {
    let next = tokio::time::timeout(PATIENCE, socket.next()).await;
    next.expect("in time").expect("a message").unwrap()
}

/// Everything that two libraries say to each other over an open socket.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    socket.send("héllo".into()).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::from("héllo"));

    // Fragments, with a ping between them.
    let frame = |bytes: &'static [u8], opcode, last| {
        Message::Frame(Frame::message(bytes, OpCode::Data(opcode), last))
    };
    socket
        .send(frame(b"one ", Data::Text, false))
        .await
        .unwrap();
    socket
        .send(Message::Ping(Bytes::from_static(b"now?")))
        .await
        .unwrap();
    socket
        .send(frame(b"two ", Data::Continue, false))
        .await
        .unwrap();
    socket
        .send(frame(b"three", Data::Continue, true))
        .await
        .unwrap();
    let pong = Message::Pong(Bytes::from_static(b"now?"));
    assert_eq!(next(&mut socket).await, pong);
    assert_eq!(next(&mut socket).await, Message::from("one two three"));

    // The endpoint's ping is answered by the library as it reads on.
    socket.send("ping".into()).await.unwrap();
    let ping = Message::Ping(Bytes::from_static(b"there?"));
    assert_eq!(next(&mut socket).await, ping);
    let heard = Message::Binary(Bytes::from_static(b"there?"));
    assert_eq!(next(&mut socket).await, heard);

    for length in [0, 125, 126, 65_535, 65_536, LARGE] {
        let payload: Bytes = (0..length)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        socket.send(Message::Binary(payload.clone())).await.unwrap();
        let echoed = next(&mut socket).await;
        assert!(echoed == Message::Binary(payload), "{length}");
    }

    socket.send("bye".into()).await.unwrap();
    let Message::Close(Some(why)) = next(&mut socket).await else {
        panic!("no closing");
    };
    assert_eq!((u16::from(why.code), &*why.reason), (4321, "as you wish"));
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}

/// The client closes first.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    let why = CloseFrame {
        code: CloseCode::Away,
        reason: "going".into(),
    };
    socket.close(Some(why.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(why)));
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn two_libraries_converse_in_the_clear() {
    let rig = rig().await;

    let (socket, answer) = open("ws://x.test/", rig.tcp("web").await).await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    converse(socket).await;

    let (socket, _) = open("ws://x.test/", rig.tcp("web").await).await;
    close(socket).await;
}

#[tokio::test]
async fn two_libraries_converse_over_tls() {
    let rig = rig().await;
    let address = rig.edge.address_of("secure");
    let secure = async || connect_tls(address, &rig.certificate, b"http/1.1").await;

    let (socket, answer) = open("wss://x.test/", secure().await).await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    converse(socket).await;

    let (socket, _) = open("wss://x.test/", secure().await).await;
    close(socket).await;
}

/// The library knows no HTTP/2: the stream is opened by the h2 crate, and its frames are inside.
#[tokio::test]
async fn two_libraries_converse_inside_a_stream_of_http_2() {
    let rig = rig().await;
    let address = rig.edge.address_of("secure");
    let tls = connect_tls(address, &rig.certificate, b"h2").await;
    let client = Http2::over(tls).await;

    for talk in [true, false] {
        let offered = [("sec-websocket-protocol", "superchat, chat")];
        let (head, io) = stream_io::connect(&client, "/", "websocket", &offered).await;
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["sec-websocket-protocol"], "chat");
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(limits())).await;
        if talk {
            converse(socket).await;
        } else {
            close(socket).await;
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_wants_no_socket_says_so_in_its_own_words() {
    let rig = rig().await;
    let request = "ws://x.test/no".into_client_request().unwrap();

    let refused = client_async_with_config(request, rig.tcp("web").await, None).await;

    let Err(Error::Http(answer)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(answer.status(), 403);
    // The library does not undo chunks.
    let body = String::from_utf8_lossy(answer.body().as_deref().unwrap());
    assert!(body.contains("no sockets here"), "{body}");
}
