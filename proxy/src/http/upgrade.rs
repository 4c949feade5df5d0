//! A tunnel of bytes between client and endpoint, after both switched protocols (RFC 9110 §7.8).
//!
//! Knows nothing of what flows in it. Idle tunnels hold no buffer.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;

use crate::alarm::Alarm;
use crate::clock;
use crate::io::Wire;
use crate::pace::Pace;

/// Bytes moved in one step.
const STEP: usize = 16 * 1024;
/// Steps of one direction before the other one has its turn.
const STEPS_IN_A_ROW: usize = 8;

/// Bytes that went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) from_client: u64,
    pub(crate) from_endpoint: u64,
}

/// Runs until both directions have ended, one of them broke, or none moved for `idle`.
pub(crate) async fn run(client: &Wire, endpoint: &Wire, idle: Duration) -> Moved {
    let mut up = Direction::default();
    let mut down = Direction::default();
    let mut moved_at = clock::now();
    let mut alarm = Alarm::default();
    let mut pace = Pace::default();
    poll_fn(|cx| {
        let before = up.moved + down.moved;
        ready!(pace.poll(cx, before));
        let mut buffer = BytesMut::new();
        let upward = up.poll(cx, client, endpoint, &mut buffer);
        let downward = down.poll(cx, endpoint, client, &mut buffer);
        if up.moved + down.moved != before {
            moved_at = clock::now();
        }
        let ended = match (upward, downward) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(()),
            _ => alarm.poll_due(cx, moved_at + idle),
        };
        if ended.is_ready() {
            // Whatever broke one direction, what came before it is the other side's.
            client.push_now(cx);
            endpoint.push_now(cx);
        }
        ended
    })
    .await;
    Moved {
        from_client: up.moved,
        from_endpoint: down.moved,
    }
}

#[derive(Default)]
struct Direction {
    moved: u64,
    ended: bool,
    over: bool,
}

impl Direction {
    /// Ready when this direction is over: its end was passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Wire,
        to: &Wire,
        buffer: &mut BytesMut,
    ) -> Poll<Result<(), ()>> {
        for _ in 0..STEPS_IN_A_ROW {
            if self.over {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(to.poll_shutdown(cx)).map_err(|_| ())?;
                self.over = true;
                continue;
            }
            ready!(to.poll_ready(cx)).map_err(|_| ())?;
            ready!(from.poll_readable(cx)).map_err(|_| ())?;
            buffer.clear();
            let read = ready!(from.poll_fill(cx, buffer, STEP)).map_err(|_| ())?;
            self.ended = read == 0;
            self.moved += read as u64;
            to.write(cx, buffer).map_err(|_| ())?;
            // What the socket did not take is driven by the next `poll_ready`.
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;
    use crate::io::outbox;
    use crate::io::tests::pair;

    #[tokio::test]
    async fn what_was_said_before_a_break_arrives() {
        LocalSet::new()
            .run_until(async {
                let (client, mut reads) = pair().await;
                let (endpoint, mut breaks) = pair().await;
                let sending = spawn_local(outbox::run());
                yield_now().await;
                breaks.write_all(b"goodbye").await.unwrap();
                socket2::SockRef::from(&breaks)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                drop(breaks);
                poll_fn(|cx| endpoint.poll_readable(cx)).await.unwrap();

                let moved = run(&client, &endpoint, Duration::from_secs(10)).await;
                drop((client, endpoint));

                let mut said = Vec::new();
                reads.read_to_end(&mut said).await.unwrap();
                assert_eq!(said, b"goodbye");
                assert_eq!(moved.from_endpoint, 7);
                sending.abort();
            })
            .await;
    }
}
