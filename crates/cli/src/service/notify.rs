//! Tells a service manager how it goes, by the protocol of `sd_notify(3)`: ready, stopping, and that it is alive.
//!
//! It is a line in a datagram to a socket that the environment names. Where none is named, nobody is told anything.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::error::ServiceError;

/// How long the manager may leave a message lying before it is given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// A service manager, if there is one that wants to know.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    /// How often it wants a sign of life, at the least.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names.
    pub(crate) fn from_env() -> Result<Self, ServiceError> {
        Self::named(|name| std::env::var_os(name)).map_err(ServiceError::Manager)
    }

    fn named(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self { socket: None, watchdog: None });
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name.as_bytes())?)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let number = |name| variable(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        // Whoever inherits the variables is not whom they were meant for.
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| meant && *micros > 0).map(Duration::from_micros);
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// It does its work from now on. Until what is returned is dropped, the manager has signs of life, as often as it wants:
    /// from a task, so that they cease when tasks do not get their turn any more.
    pub(crate) fn ready(&self) -> Alive {
        self.tell("READY=1");
        let alive = || {
            let (socket, within) = (self.socket.as_ref()?.try_clone().ok()?, self.watchdog?);
            Some(tokio::spawn(async move {
                // Half of the time, as sd_watchdog_enabled(3) advises.
                let mut ticks = interval(within / 2);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    tell(&socket, "WATCHDOG=1");
                }
            }))
        };
        Alive(alive())
    }

    /// It ends.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket {
            tell(socket, what);
        }
    }
}

/// Signs of life, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Alive(Option<JoinHandle<()>>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Who cannot be told does not hear it: the manager draws its own conclusions, and this has other work.
fn tell(socket: &UnixDatagram, what: &str) {
    if let Err(error) = socket.send(what.as_bytes()) {
        tracing::warn!(%error, what, "the service manager could not be told");
    }
}

/// A path; or with an `@` before it, a name among Linux's abstract ones.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is neither a path nor begins with `@`")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What a manager hears, one message after the other.
    fn hear(socket: &UnixDatagram) -> String {
        let mut message = [0; 64];
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn manager(variables: &[(&str, &str)]) -> io::Result<Manager> {
        Manager::named(|name| variables.iter().find(|(given, _)| *given == name).map(|(_, value)| value.into()))
    }

    #[tokio::test]
    async fn a_manager_hears_that_it_is_ready_alive_and_stopping() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let pid = process::id().to_string();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", &pid)];
        let manager = manager(&variables).unwrap();
        let alive = manager.ready();
        let (heard, socket) = tokio::task::spawn_blocking(move || {
            let heard: Vec<_> = (0..4).map(|_| hear(&socket)).collect();
            (heard, socket)
        })
        .await
        .unwrap();
        assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
        drop(alive);
        tokio::task::yield_now().await;
        manager.stopping();
        let last = std::iter::repeat_with(|| hear(&socket)).find(|message| message != "WATCHDOG=1");
        assert_eq!(last.as_deref(), Some("STOPPING=1"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_abstract_socket_is_found() {
        use std::os::linux::net::SocketAddrExt as _;

        let name = format!("poolscope-notify-{}", process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap();
        let _alive = manager.ready();
        assert_eq!(hear(&socket), "READY=1");
    }

    #[tokio::test]
    async fn the_watchdog_of_another_process_is_none_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        for (pid, micros, within) in [("1", "20000", None), ("", "0", None), ("", "x", None), ("", "5", Some(5))] {
            let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_PID", pid), ("WATCHDOG_USEC", micros)];
            assert_eq!(manager(&variables).unwrap().watchdog, within.map(Duration::from_micros), "{pid} {micros}");
        }
    }

    #[tokio::test]
    async fn without_a_manager_nobody_is_told() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", "")], &[("WATCHDOG_USEC", "20000")]] {
            let manager = manager(variables).unwrap();
            assert!(manager.socket.is_none() && manager.ready().0.is_none());
            manager.stopping();
        }
        assert!(manager(&[("NOTIFY_SOCKET", "vsock:2:1234")]).is_err());
        assert!(manager(&[("NOTIFY_SOCKET", "/nowhere/notify")]).is_err());
    }
}
