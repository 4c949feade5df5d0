//! BORDER. DNS over TCP (RFC 7766) and TLS (RFC 7858): hickory carries the messages, the engine answers them.
//!
//! hickory's framing (`TcpStream`) and idle limit (`TimeoutStream`) are used; its accept loop is not,
//! because it takes any number of connections, and its parser and catalog are not, because they
//! answer otherwise than over UDP. Questions and answers pass through here as octets.

use std::io;
use std::sync::Arc;

use futures_util::StreamExt;
use hickory_server::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_server::net::tcp::TcpStream;
use hickory_server::net::{BufDnsStreamHandle, DnsStreamHandle};
use hickory_server::proto::op::SerialMessage;
use hickory_server::server::TimeoutStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::door::{Guest, LAST_WORDS};

/// Answers of one connection that wait to be sent. One would do: the next question is read when the
/// answer before it has left.
const ANSWERS_WAITING_MAX: usize = 4;

/// Serves one connection to its end.
pub(crate) async fn run<S>(guest: Guest, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static,
{
    let (messages, replies) = TcpStream::from_stream_with_buffer_size(
        AsyncIoTokioAsStd(stream),
        guest.peer,
        ANSWERS_WAITING_MAX,
    );
    // The limit runs from message to message, so that octets sent one by one don't prolong it;
    // it also ends a connection whose client takes no answers.
    let mut messages = TimeoutStream::new(messages, guest.idle());
    let stop = Arc::clone(&guest.stop);
    let mut connection = Connection { guest, replies };
    loop {
        let message = tokio::select! {
            // First, or a client that never pauses would be served for ever.
            biased;
            () = stop.asked() => break,
            message = messages.next() => message,
        };
        if connection.take(message).is_none() {
            return;
        }
    }
    let last_words = async {
        while let Some(message) = messages.next().await {
            connection.take(Some(message))?;
        }
        Some(())
    };
    let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
}

struct Connection {
    guest: Guest,
    replies: BufDnsStreamHandle,
}

impl Connection {
    /// Answers one message. `None` when the connection is over, as it is after a message that gets no answer: nothing
    /// good follows one.
    fn take(&mut self, message: Option<io::Result<SerialMessage>>) -> Option<()> {
        let peer = self.guest.peer;
        let message = match message? {
            Ok(message) => message,
            Err(error) => {
                debug!(%peer, %error, "DNS connection closed");
                return None;
            }
        };
        let (reply, _) = self.guest.answer(message.bytes())?;
        self.replies.send(SerialMessage::new(reply, peer)).ok()
    }
}
