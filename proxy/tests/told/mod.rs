//! An endpoint that does, request by request, what a test tells it: word for word, and when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealane_testkit::http1::{Body, Framing, Head};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What is done with one request.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Until the test opens the gate.
    Wait,
    Close,
}

pub(crate) fn send(text: impl Into<Vec<u8>>) -> Step {
    Step::Send(text.into())
}

/// Stops when dropped.
pub(crate) struct Told {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _task: JoinSet<()>,
}

type Script = dyn Fn(usize, &Head) -> Vec<Step> + Send + Sync;

struct State {
    script: Box<Script>,
    gate: Semaphore,
    requests: AtomicUsize,
    running: AtomicUsize,
    running_most: AtomicUsize,
    /// Connections that ended while an answer was due.
    cancelled: AtomicUsize,
    heads: Mutex<Vec<Head>>,
    bodies: Mutex<Vec<Vec<u8>>>,
}

impl Told {
    /// `script`: what to do with the request of that number, from 0.
    pub(crate) async fn start(
        script: impl Fn(usize, &Head) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let state = Arc::new(State {
            script: Box::new(script),
            gate: Semaphore::new(0),
            requests: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            running_most: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            heads: Mutex::default(),
            bodies: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        let shared = Arc::clone(&state);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            state,
            _task: task,
        }
    }

    /// Lets so many waiting steps go on.
    pub(crate) fn open(&self, steps: usize) {
        self.state.gate.add_permits(steps);
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// The most requests that it ever had at a time.
    pub(crate) fn running_most(&self) -> usize {
        self.state.running_most.load(Ordering::SeqCst)
    }

    pub(crate) fn cancelled(&self) -> usize {
        self.state.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn heads(&self) -> Vec<Head> {
        self.state.heads.lock().unwrap().clone()
    }

    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.state.bodies.lock().unwrap().clone()
    }

    pub(crate) async fn has_requests(&self, wanted: usize) {
        until(|| self.requests() >= wanted).await;
    }
}

/// Waits for what happens elsewhere and tells nobody.
pub(crate) async fn until(happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.expect("it happens");
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Ok(Some(head)) = Head::read(&mut stream).await {
        let mut body = Body::new(Framing::of_request(&head).unwrap());
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = body.next(&mut stream).await {
            bytes.extend_from_slice(&piece);
        }
        let number = state.requests.fetch_add(1, Ordering::SeqCst);
        let running = state.running.fetch_add(1, Ordering::SeqCst) + 1;
        state.running_most.fetch_max(running, Ordering::SeqCst);
        let steps = (state.script)(number, &head);
        state.heads.lock().unwrap().push(head);
        state.bodies.lock().unwrap().push(bytes);
        let goes_on = follow(&mut stream, steps, &state).await;
        state.running.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return;
        }
    }
}

/// Whether the connection takes another request.
async fn follow(stream: &mut BufReader<TcpStream>, steps: Vec<Step>, state: &State) -> bool {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    state.cancelled.fetch_add(1, Ordering::SeqCst);
                    return false;
                }
            }
            Step::Wait => {
                let mut byte = [0];
                tokio::select! {
                    permit = state.gate.acquire() => permit.unwrap().forget(),
                    // Nobody sends a second request meanwhile.
                    _ = stream.read(&mut byte) => {
                        state.cancelled.fetch_add(1, Ordering::SeqCst);
                        return false;
                    }
                }
            }
            Step::Close => return false,
        }
    }
    true
}
