//! Notifications to the service manager, by the protocol of `sd_notify(3)`: ready, stopping, and the watchdog.
//!
//! Each notification is a datagram to the socket that `NOTIFY_SOCKET` names. Without it, nothing is sent. The crate
//! `sd-notify` supports neither abstract sockets nor a send timeout.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::error::ServiceError;

/// How long sending a notification may block while the manager's receive queue is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// The watchdog's timeout; `None` if it is not enabled for this process.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Connects to the manager that the environment names.
    ///
    /// # Errors
    ///
    /// Returns an error if `NOTIFY_SOCKET` is invalid or unreachable.
    pub(crate) fn from_env() -> Result<Self, ServiceError> {
        Self::from_variables(|name| std::env::var_os(name)).map_err(ServiceError::ServiceManager)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self { socket: None, watchdog: None });
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name.as_bytes())?)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let number = |name| variable(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        // A child process inherits the variables of its parent.
        let is_own = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_own && *micros > 0).map(Duration::from_micros);
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// Reports that the service is ready, and starts to notify the watchdog.
    ///
    /// The watchdog is notified from a task, so that notifications cease when the runtime does not run tasks any more.
    pub(crate) fn ready(&self) -> WatchdogTask {
        self.notify("READY=1");
        let task = || {
            let (socket, timeout) = (self.socket.as_ref()?.try_clone().ok()?, self.watchdog?);
            Some(tokio::spawn(async move {
                // sd_watchdog_enabled(3) recommends half of the timeout.
                let mut ticks = interval(timeout / 2);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    send(&socket, "WATCHDOG=1");
                }
            }))
        };
        WatchdogTask(task())
    }

    /// Reports that the service is stopping.
    pub(crate) fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    fn notify(&self, state: &str) {
        if let Some(socket) = &self.socket {
            send(socket, state);
        }
    }
}

/// The task that notifies the watchdog, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct WatchdogTask(Option<JoinHandle<()>>);

impl Drop for WatchdogTask {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Sends a notification. A failure is not an error of the service. It is logged unless the previous one failed as well,
/// since the watchdog is notified again and again.
fn send(socket: &UnixDatagram, state: &str) {
    static IS_FAILING: AtomicBool = AtomicBool::new(false);
    let sent = socket.send(state.as_bytes());
    let was_failing = IS_FAILING.swap(sent.is_err(), Relaxed);
    if let Err(error) = sent
        && !was_failing
    {
        tracing::warn!(%error, state, "cannot notify the service manager");
    }
}

/// Parses the address of a socket: a path, or after an `@` a name in Linux's abstract namespace.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is neither a path nor begins with `@`")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut message = [0; 64];
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn manager(variables: &[(&str, &str)]) -> io::Result<ServiceManager> {
        ServiceManager::from_variables(|name| {
            variables.iter().find(|(given, _)| *given == name).map(|(_, value)| value.into())
        })
    }

    #[tokio::test]
    async fn ready_watchdog_and_stopping_are_sent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let pid = process::id().to_string();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", &pid)];
        let manager = manager(&variables).unwrap();
        let watchdog = manager.ready();
        let (received, socket) = tokio::task::spawn_blocking(move || {
            let received: Vec<_> = (0..4).map(|_| receive(&socket)).collect();
            (received, socket)
        })
        .await
        .unwrap();
        assert_eq!(received, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
        drop(watchdog);
        tokio::task::yield_now().await;
        manager.stopping();
        let last = std::iter::repeat_with(|| receive(&socket)).find(|message| message != "WATCHDOG=1");
        assert_eq!(last.as_deref(), Some("STOPPING=1"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn abstract_socket_is_supported() {
        use std::os::linux::net::SocketAddrExt as _;

        let name = format!("poolscope-notify-{}", process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = manager(&[("NOTIFY_SOCKET", &format!("@{name}"))]).unwrap();
        let _watchdog = manager.ready();
        assert_eq!(receive(&socket), "READY=1");
    }

    #[tokio::test]
    async fn watchdog_of_another_process_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        for (pid, micros, timeout) in [("1", "20000", None), ("", "0", None), ("", "x", None), ("", "5", Some(5))] {
            let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_PID", pid), ("WATCHDOG_USEC", micros)];
            assert_eq!(manager(&variables).unwrap().watchdog, timeout.map(Duration::from_micros), "{pid} {micros}");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_without_a_manager() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", "")], &[("WATCHDOG_USEC", "20000")]] {
            let manager = manager(variables).unwrap();
            assert!(manager.socket.is_none() && manager.ready().0.is_none());
            manager.stopping();
        }
        assert!(manager(&[("NOTIFY_SOCKET", "vsock:2:1234")]).is_err());
        assert!(manager(&[("NOTIFY_SOCKET", "/nowhere/notify")]).is_err());
    }
}
