//! Connections on which zones may go out: those of clients that the rules allow transfers at all.
//!
//! A transfer is many messages, each made when the one before it has left: what is kept of a zone for one
//! client is a message. Ordinary questions on such a connection are answered as on any other.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::engine::STREAM_SIZE_MAX;
use crate::metrics::count_transfer_out;
use crate::rules::Rules;
use crate::serve::clock;
use crate::serve::door::{Guest, LAST_WORDS};
use crate::transfer::desk::{Caller, Desk, Reply};
use crate::transfer::sending::Sending;
use crate::wire::Rcode;

/// A client that takes no octet of a transfer for so long is left.
const STALL_MAX: Duration = Duration::from_secs(30);
/// A transfer that takes longer is ended.
const TRANSFER_TIME_MAX: Duration = Duration::from_secs(3_600);

/// May this client ask for any zone, or tell us of one?
pub(crate) fn is_expected(rules: &Rules, client: IpAddr) -> bool {
    let desk = rules.transfers.as_deref();
    desk.is_some_and(|desk| desk.knows(client))
}

/// Serves one connection to its end.
pub(crate) async fn run<S>(guest: Guest, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stop = Arc::clone(&guest.stop);
    let mut message = Vec::new();
    loop {
        let idle = guest.idle();
        let read = tokio::select! {
            // First, or a client that never pauses would be served for ever.
            biased;
            () = stop.asked() => timeout(LAST_WORDS.min(idle), receive(&mut stream, &mut message)).await,
            read = timeout(idle, receive(&mut stream, &mut message)) => read,
        };
        match read {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return debug!(peer = %guest.peer, %error, "DNS connection closed"),
            Err(_) => return,
        }
        let answered = tokio::select! {
            answered = answer(&guest, &mut stream, &message) => answered,
            () = stop.asked_long_ago(LAST_WORDS) => return,
        };
        if let Err(error) = answered {
            return debug!(peer = %guest.peer, %error, "DNS connection closed");
        }
    }
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, message: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    message.clear();
    // Grows with what comes, not with what is announced.
    let read = stream.take(length.into()).read_to_end(message).await?;
    match read == usize::from(length) {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// An error ends the connection, as does a message that gets no answer.
async fn answer<S: AsyncWrite + Unpin>(
    guest: &Guest,
    stream: &mut S,
    message: &[u8],
) -> io::Result<()> {
    let caller = Caller {
        address: guest.peer.ip(),
        is_stream: true,
    };
    let rules = guest.rules();
    let desk = rules.transfers.as_deref();
    let reply = match desk.filter(|_| Desk::concerns(message)) {
        Some(desk) => desk.answer(message, caller, clock::now()),
        None => Reply::NotOurs,
    };
    drop(rules);
    match reply {
        Reply::NotOurs => {
            let reply = guest.turn(|turn, room| {
                let answered = turn.answer(message, &mut room[..STREAM_SIZE_MAX])?;
                room.get(..answered.length).map(<[u8]>::to_vec)
            });
            send(stream, &reply.ok_or(io::ErrorKind::InvalidData)?).await
        }
        Reply::Once(reply, rcode) => {
            guest.turn(|turn, _| turn.count(rcode));
            send(stream, &reply).await
        }
        Reply::Many(sending) => {
            guest.turn(|turn, _| turn.count(Rcode::NoError));
            transfer(guest, stream, *sending).await
        }
    }
}

async fn transfer<S: AsyncWrite + Unpin>(
    guest: &Guest,
    stream: &mut S,
    mut sending: Sending,
) -> io::Result<()> {
    let peer = guest.peer;
    let (zone, serial, kind) = (sending.zone(), sending.serial, sending.kind());
    let all = async {
        let mut octets = 0_u64;
        while let Some(message) = sending.next(clock::now()) {
            let message = message.map_err(io::Error::other)?;
            octets += message.len() as u64;
            send(stream, &message).await?;
        }
        Ok::<u64, io::Error>(octets)
    };
    let ended = match timeout(TRANSFER_TIME_MAX, all).await {
        Ok(ended) => ended,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    count_transfer_out(&zone, kind, ended.is_ok());
    match ended {
        Ok(octets) => {
            info!(%zone, serial, kind, octets, %peer, "zone transferred to another server");
            Ok(())
        }
        Err(error) => {
            warn!(%zone, serial, kind, %peer, %error, "a transfer to another server ended early");
            Err(error)
        }
    }
}

/// A message and its length before it, in one piece.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let whole = [&length.to_be_bytes(), message].concat();
    let sent = async {
        stream.write_all(&whole).await?;
        stream.flush().await
    };
    timeout(STALL_MAX, sent)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
