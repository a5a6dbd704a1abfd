//! The options of a TCP socket.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_postgres::Config;

/// The options of a TCP socket, as far as the operating system supports them.
#[derive(Clone)]
pub(super) struct TcpOptions {
    user_timeout: Option<Duration>,
    keepalive: Option<TcpKeepalive>,
}

impl TcpOptions {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            user_timeout: config.get_tcp_user_timeout().copied(),
            keepalive: config.get_keepalives().then(|| keepalive(config)),
        }
    }

    pub(super) fn apply(&self, stream: &TcpStream) -> io::Result<()> {
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

fn keepalive(config: &Config) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
    #[cfg(not(any(target_os = "aix", target_os = "redox", target_os = "solaris", target_os = "openbsd")))]
    let keepalive = match config.get_keepalives_interval() {
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
    let keepalive = match config.get_keepalives_retries() {
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
        let connect = async |config: &Config| {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            TcpOptions::new(config).apply(&stream).unwrap();
            stream
        };
        let mut config = Config::new();
        config
            .keepalives_idle(Duration::from_secs(31))
            .keepalives_interval(Duration::from_secs(7))
            .keepalives_retries(4)
            .tcp_user_timeout(Duration::from_secs(21));
        let stream = connect(&config).await;
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(31));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(21)));

        let stream = connect(Config::new().keepalives(false)).await;
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
