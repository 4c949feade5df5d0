//! What a service manager and this process say to each other: systemd's notifications, its
//! watchdog, and the sockets that it opened for us.
//!
//! Without a service manager nothing here does anything. A notification that cannot be sent is
//! only logged: serving does not depend on being heard.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::MissedTickBehavior;

use crate::handover::Inheritance;

/// Where notifications go (`sd_notify(3)`): nowhere, if nobody waits for them.
#[derive(Clone, Debug, Default)]
pub struct Notify(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notify {
    #[must_use]
    pub fn from_env() -> Self {
        let Some(place) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self::default();
        };
        match Place::open(&place) {
            Ok(place) => Self(Some(Arc::new(place))),
            Err(error) => {
                tracing::warn!(
                    ?place,
                    %error,
                    "NOTIFY_SOCKET cannot be used: the service manager hears nothing"
                );
                Self::default()
            }
        }
    }

    /// Listeners are open.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is read anew; [`Notify::ready`] follows, whatever came of it.
    pub fn reloading(&self) {
        // The manager orders this against its own request by the clock.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// Another process has taken over.
    pub fn main_process(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}\nREADY=1"));
    }

    fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        let Some(place) = &self.0 else {
            return;
        };
        if let Err(error) = place.socket.send_to_addr(text.as_bytes(), &place.address) {
            tracing::debug!(%error, "the service manager was not reached");
        }
    }
}

impl Place {
    /// A path, or a name in the abstract namespace after `@`.
    fn open(place: &OsStr) -> io::Result<Self> {
        let bytes = place.as_bytes();
        let address = match bytes.first() {
            Some(b'@') => SocketAddr::from_abstract_name(&bytes[1..])?,
            Some(b'/') => SocketAddr::from_pathname(place)?,
            _ => return Err(io::Error::other("neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop this process.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

/// How often the service manager wants to hear that this process is alive.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    every: Duration,
}

impl Watchdog {
    /// `None`: it does not watch this process.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = |pid| pid == u64::from(std::process::id());
        if std::env::var_os("WATCHDOG_PID").is_some() && !number("WATCHDOG_PID").is_some_and(ours) {
            return None;
        }
        // Half of what it waits for, as sd_watchdog_enabled(3) recommends.
        let every = Duration::from_micros(number("WATCHDOG_USEC")? / 2);
        (!every.is_zero()).then_some(Self { every })
    }

    /// Says it for as long as `beats` resolves: control, every worker and the name server's
    /// threads answer. A part that hangs keeps it silent, and the manager starts the process anew.
    pub async fn keep<B>(self, notify: Notify, beats: impl Fn() -> B)
    where
        B: Future<Output = Result<(), &'static str>>,
    {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match tokio::time::timeout(self.every / 2, beats()).await {
                Ok(Ok(())) => notify.alive(),
                Ok(Err(part)) => tracing::error!("the watchdog is not told: {part} has ended"),
                Err(_) => tracing::error!("the watchdog is not told: a part does not answer"),
            }
        }
    }
}

/// The sockets that a service manager opened for this process (`sd_listen_fds(3)`). To be called
/// once and first of all, while there are no other threads and no other descriptors.
#[must_use]
pub fn activated() -> Inheritance {
    let mut inheritance = Inheritance::default();
    let pid = std::env::var("LISTEN_PID").ok();
    if pid.and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return inheritance;
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut given = ListenFd::from_env();
    for index in 0..given.len() {
        let name = names.next().unwrap_or_default();
        let added = match take(&mut given, index) {
            Some(socket) => inheritance
                .add(None, name, socket)
                .map_err(|error| error.to_string()),
            None => Err("it is no socket".to_owned()),
        };
        if let Err(error) = added {
            tracing::warn!(
                name,
                index,
                "a socket of the service manager is not used: {error}"
            );
        }
    }
    inheritance
}

fn take(given: &mut ListenFd, index: usize) -> Option<OwnedFd> {
    let tcp = |given: &mut ListenFd| given.take_tcp_listener(index).ok()?.map(OwnedFd::from);
    let udp = |given: &mut ListenFd| given.take_udp_socket(index).ok()?.map(OwnedFd::from);
    let unix = |given: &mut ListenFd| given.take_unix_listener(index).ok()?.map(OwnedFd::from);
    let post = |given: &mut ListenFd| given.take_unix_datagram(index).ok()?.map(OwnedFd::from);
    tcp(given)
        .or_else(|| udp(given))
        .or_else(|| unix(given))
        .or_else(|| post(given))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_notification_reaches_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = folder.path().display().to_string();
        let places = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (manager, place) in places {
            let notify = Notify(Some(Arc::new(Place::open(&place).unwrap())));

            notify.ready("two\nlines");

            let mut heard = [0; 100];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\nSTATUS=two lines");
        }
    }

    fn manager(folder: &Path) -> (UnixDatagram, Notify) {
        let path = folder.join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let place = Place::open(path.as_os_str()).unwrap();
        (manager, Notify(Some(Arc::new(place))))
    }

    fn heard(manager: &UnixDatagram) -> usize {
        let mut bytes = [0; 64];
        (0..)
            .take_while(|_| manager.recv(&mut bytes).is_ok())
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_hears_of_a_process_only_while_every_part_answers() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, notify) = manager(folder.path());
        let hangs = Arc::new(AtomicBool::new(false));
        let watchdog = Watchdog {
            every: Duration::from_secs(5),
        };
        let beats = || async {
            if hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(())
        };
        let mut kept = std::pin::pin!(watchdog.keep(notify, beats));
        let mut pass = async |seconds| {
            let time = Duration::from_secs(seconds);
            let _ = tokio::time::timeout(time, kept.as_mut()).await;
        };

        pass(21).await;
        assert_eq!(heard(&manager), 5, "at once, and every five seconds");

        hangs.store(true, Ordering::Relaxed);
        pass(30).await;
        assert_eq!(heard(&manager), 0);

        hangs.store(false, Ordering::Relaxed);
        pass(30).await;
        assert!(heard(&manager) >= 3);
    }

    #[test]
    fn other_places_are_refused() {
        assert!(Place::open(OsStr::new("vsock:2:1234")).is_err());
        assert!(Place::open(OsStr::new("")).is_err());
    }
}
