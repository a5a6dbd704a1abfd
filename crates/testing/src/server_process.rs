//! A server program that ends with the test that started it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ports::ReservedPort;

/// Long enough for a busy machine; only failing tests wait for it.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the server, and cleans up when standard input is closed, which also happens when the test's process is killed.
const SUPERVISOR_SCRIPT: &str = r#"
trap '' HUP INT TERM
directory=$1
shift
"$@" >"$directory/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -s KILL "$server"
wait "$server" 2>/dev/null
rm -rf -- "$directory"
"#;

/// A program that listens on a free port. Dropping it kills it and removes its files.
#[derive(Debug)]
pub struct ServerProcess {
    supervisor: Child,
    directory: PathBuf,
    port: ReservedPort,
}

/// How a program shows that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// By its response to an HTTP request for `/-/ready`.
    Http,
    /// By accepting connections.
    Listening,
}

impl ServerProcess {
    /// Starts a program that serves HTTP, in a directory with `files`; `arguments` makes it listen at the given address.
    pub async fn start(
        program: &str,
        files: &[(&str, &str)],
        arguments: impl Fn(&Path, SocketAddr) -> Vec<String>,
    ) -> Self {
        Self::start_until(Readiness::Http, program, files, arguments).await
    }

    /// As [`start`](Self::start), for a program that shows otherwise that it is ready.
    pub async fn start_until(
        readiness: Readiness,
        program: &str,
        files: &[(&str, &str)],
        arguments: impl Fn(&Path, SocketAddr) -> Vec<String>,
    ) -> Self {
        // Another program may take the free port meanwhile.
        for _ in 0..5 {
            let mut process = Self::spawn(program, files, &arguments);
            if process.is_ready(program, readiness).await {
                return process;
            }
        }
        panic!("five ports in a row were taken");
    }

    fn spawn(program: &str, files: &[(&str, &str)], arguments: impl Fn(&Path, SocketAddr) -> Vec<String>) -> Self {
        // The program may be a path.
        let name = Path::new(program).file_name().expect("a program").display();
        let directory = tempfile::Builder::new().prefix(&format!("poolscope-{name}-")).tempdir();
        let directory = directory.expect("a directory").keep();
        for (name, text) in files {
            fs::write(directory.join(name), text).expect("a file");
        }
        let port = ReservedPort::new().expect("a free port");
        let supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR_SCRIPT, &format!("poolscope-{name}")])
            .arg(&directory)
            .arg(program)
            .args(arguments(&directory, port.address()))
            // A signal to the test's process group must not kill the supervisor.
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        Self { supervisor, directory, port }
    }

    /// Waits until it is ready. Returns false if its port was taken.
    async fn is_ready(&mut self, program: &str, readiness: Readiness) -> bool {
        let start = Instant::now();
        loop {
            let is_ready = match readiness {
                Readiness::Http => self.request("/-/ready").await.is_ok_and(|response| response.contains(" 200 ")),
                Readiness::Listening => TcpStream::connect(self.address()).await.is_ok(),
            };
            if is_ready {
                return true;
            }
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            if log.to_lowercase().contains("address already in use") {
                return false;
            }
            assert!(
                !log.contains("not found") && start.elapsed() < START_TIMEOUT,
                "{program} does not start (`scripts/setup test` installs it): {log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Returns the directory of its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the body of a response as JSON.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let response = self.request(path).await.expect("a response");
        let (_, body) = response.split_once("\r\n\r\n").expect("a response");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    async fn request(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address()).await?;
        // HTTP/1.0 responses are not chunked.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok(response)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
