//! The options of a TCP socket.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The options of a TCP socket, as far as the operating system supports them.
#[derive(Clone)]
pub(crate) struct TcpOptions {
    user_timeout: Option<Duration>,
    keepalive: Option<TcpKeepalive>,
}

impl TcpOptions {
    /// Creates the options from the limit of unacknowledged data and the keepalive; `None` for those of the operating
    /// system, or no keepalive.
    pub(crate) fn new(user_timeout: Option<Duration>, keepalive: Option<Keepalive>) -> Self {
        Self { user_timeout, keepalive: keepalive.map(TcpKeepalive::from) }
    }

    pub(crate) fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        set_user_timeout(&socket, self.user_timeout)?;
        if let Some(keepalive) = &self.keepalive {
            socket.set_tcp_keepalive(keepalive)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn set_user_timeout(socket: &SockRef<'_>, timeout: Option<Duration>) -> io::Result<()> {
    timeout.map_or(Ok(()), |timeout| socket.set_tcp_user_timeout(Some(timeout)))
}

#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_: &SockRef<'_>, _: Option<Duration>) -> io::Result<()> {
    Ok(())
}

/// When TCP probes a connection without traffic.
#[derive(Clone, Copy)]
pub(crate) struct Keepalive {
    /// The time without traffic before the first probe.
    pub(crate) idle: Duration,
    /// The time between probes; `None` for the operating system's.
    pub(crate) interval: Option<Duration>,
    /// The number of probes; `None` for the operating system's.
    pub(crate) retries: Option<u32>,
}

impl Keepalive {
    /// With an `idle` of 30 s, a silent peer is detected after one minute. The kernel's defaults are 75 s and 9 probes.
    pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
    pub(crate) const DEFAULT_RETRIES: u32 = 3;
}

impl From<Keepalive> for TcpKeepalive {
    fn from(Keepalive { idle, interval, retries }: Keepalive) -> Self {
        keepalive(idle, interval, retries)
    }
}

#[cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "not every system has each option"))]
fn keepalive(idle: Duration, interval: Option<Duration>, retries: Option<u32>) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(idle);
    #[cfg(not(any(target_os = "aix", target_os = "redox", target_os = "solaris", target_os = "openbsd")))]
    let keepalive = match interval {
        Some(interval) => keepalive.with_interval(interval),
        None => keepalive,
    };
    #[cfg(not(any(
        target_os = "aix",
        target_os = "redox",
        target_os = "solaris",
        target_os = "windows",
        target_os = "openbsd"
    )))]
    let keepalive = match retries {
        Some(retries) => keepalive.with_retries(retries),
        None => keepalive,
    };
    keepalive
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_has_the_configured_options() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = async |user_timeout: Option<Duration>, keepalive: Option<Keepalive>| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            TcpOptions::new(user_timeout, keepalive).apply(&stream).unwrap();
            stream
        };
        let [idle, interval, user_timeout] = [31, 7, 21].map(Duration::from_secs);
        let keepalive = Keepalive { idle, interval: Some(interval), retries: Some(4) };
        let stream = connect(Some(user_timeout), Some(keepalive)).await;
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(31));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(21)));

        let stream = connect(None, None).await;
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
