//! A client in another language, which uses the shop's database through a proxy in this process.

mod interpreter;

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use poolscope::proxy::{ListenAddress, Proxy, Settings as ProxySettings};
use poolscope::text::Printable;
use poolscope::{Collector, Settings};
use poolscope_testing::server::Server;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

pub(super) use self::interpreter::Interpreter;
use super::error::DemoError;

const SCRIPT: &str = include_str!("shop.py");

/// The connections of the client's pool: `pool_size` and `max_overflow` of SQLAlchemy.
const POOL_SIZE: usize = 5 + 5;

const APPLICATION: &str = "shop-python";

/// The scenarios that a client has: those whose fault is one of its code, and those without a fault.
pub(super) const CLIENT_SCENARIOS: [&str; 7] =
    ["shop", "healthy", "undersized", "slow_queries", "held_idle", "idle_in_transaction", "leak"];

/// What the client is told while no fault is present.
const NO_FAULT: &str = "healthy";

/// The port in the name of the proxy's socket.
pub(super) const PORT: u16 = 6432;

/// How long the shutdown waits for the client's end, and how long the proxy for open transactions.
const END_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The name of the proxied pool.
pub(super) const POOL_NAME: &str = "shop-python postgres@postgres";

/// The client and its proxy, until [`stop`](Self::stop).
pub(super) struct Client {
    child: Child,
    control: ClientControl,
    directory: PathBuf,
    proxy: JoinHandle<()>,
    drain: oneshot::Sender<()>,
    lines: Option<UnboundedReceiver<String>>,
}

/// Selects the client's fault.
#[derive(Clone)]
pub(super) struct ClientControl(Arc<Mutex<Option<ChildStdin>>>);

impl Client {
    /// Starts a proxy in front of the server, and the client.
    pub(super) async fn start(
        interpreter: &Interpreter,
        server: &Server,
        settings: &Settings,
        collector: &Collector,
    ) -> Result<Self, DemoError> {
        let mut proxy = ProxySettings::new(&server.address_url()).map_err(DemoError::Proxy)?;
        // The server asks for no password, so only those who may read its directory can connect.
        let directory = server.dir().to_owned();
        proxy.listen = vec![ListenAddress::Unix(directory.join(format!(".s.PGSQL.{PORT}")))];
        proxy.pool_size = POOL_SIZE;
        proxy.leak_threshold = settings.leak_threshold;
        proxy.drain_timeout = DRAIN_TIMEOUT;
        let proxy = Proxy::bind(proxy, collector).await.map_err(DemoError::Proxy)?;
        let (drain, begin_drain) = oneshot::channel();

        let script = directory.join("shop.py");
        fs::write(&script, SCRIPT).map_err(DemoError::system)?;
        let (print, lines) = unbounded_channel();
        let mut command = interpreter.command();
        // In a process group of its own, since Ctrl-C in a terminal is for the demo, which ends it.
        command
            .arg(script)
            .arg(&directory)
            .arg(PORT.to_string())
            .arg(APPLICATION)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().map_err(DemoError::system)?;
        let control = ClientControl(Arc::new(Mutex::new(child.stdin.take())));
        if let Some(output) = child.stdout.take() {
            // Ends with the process.
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = print.send(Printable(line).to_string());
                }
                let _ = print.send("has ended".to_owned());
            });
        }
        let proxy = tokio::spawn(proxy.run(async { drop(begin_drain.await) }));
        Ok(Self { child, control, directory, proxy, drain, lines: Some(lines) })
    }

    /// Returns the directory of the proxy's socket.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns what the client prints. The first call receives it.
    pub(super) fn lines(&mut self) -> Option<UnboundedReceiver<String>> {
        self.lines.take()
    }

    pub(super) fn control(&self) -> ClientControl {
        self.control.clone()
    }

    /// Ends the client and then the proxy.
    pub(super) async fn stop(self) {
        let Self { mut child, control, proxy, drain, .. } = self;
        control.end();
        let ended = spawn_blocking(move || {
            // It ends with its input.
            let began = std::time::Instant::now();
            while began.elapsed() < END_TIMEOUT {
                if child.try_wait().is_ok_and(|status| status.is_some()) {
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        });
        let _ = ended.await;
        let _ = drain.send(());
        let _ = timeout(2 * END_TIMEOUT, proxy).await;
    }
}

impl ClientControl {
    /// Injects the fault of this scenario; `None` removes it.
    pub(super) fn set_fault(&self, scenario: Option<&str>) {
        let mut input = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(input) = &mut *input {
            // Fails if the client has ended.
            let _ = writeln!(input, "{}", scenario.unwrap_or(NO_FAULT));
        }
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientControl").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Scenario;

    #[test]
    fn scenarios_of_a_client_exist() {
        assert!(CLIENT_SCENARIOS.iter().all(|name| Scenario::named(name).is_some()));
        assert!(POOL_NAME.starts_with(APPLICATION));
    }
}
