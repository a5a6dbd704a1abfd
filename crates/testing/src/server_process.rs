//! A server program of one test's own, which ends with it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for a busy machine: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the server, and outlives whoever started it only to clean up: a destructor does not run when a process is
/// killed, but the other end of this script's standard input is closed then.
const KEEPER: &str = r#"
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

/// A program that serves HTTP on a port of its own, and says at `/-/ready` when it does. Dropping it ends it and removes what
/// it has written.
#[derive(Debug)]
pub struct ServerProcess {
    keeper: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts a program in a directory with these files, by the arguments that it needs there to listen at an address.
    pub async fn start(
        program: &str,
        files: &[(&str, &str)],
        arguments: impl Fn(&Path, SocketAddr) -> Vec<String>,
    ) -> Self {
        // Another process may take the port that was free a moment ago.
        for _ in 0..5 {
            let mut kept = Self::spawn(program, files, &arguments);
            if kept.is_ready(program).await {
                return kept;
            }
        }
        panic!("five ports in a row were taken by others");
    }

    fn spawn(program: &str, files: &[(&str, &str)], arguments: impl Fn(&Path, SocketAddr) -> Vec<String>) -> Self {
        let directory = tempfile::Builder::new().prefix(&format!("poolscope-{program}-")).tempdir();
        let directory = directory.expect("a directory").keep();
        for (name, text) in files {
            fs::write(directory.join(name), text).expect("a file");
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port");
        let keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, &format!("poolscope-{program}")])
            .arg(&directory)
            .arg(program)
            .args(arguments(&directory, address))
            // What ends the test in a terminal is not to end the one that cleans up after it.
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        Self { keeper, directory, address }
    }

    /// Whether it came to answer, rather than find its port taken.
    async fn is_ready(&mut self, program: &str) -> bool {
        let begun = Instant::now();
        loop {
            if self.ask("/-/ready").await.is_ok_and(|answer| answer.contains(" 200 ")) {
                return true;
            }
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            if log.contains("address already in use") {
                return false;
            }
            assert!(
                !log.contains("not found") && begun.elapsed() < PATIENCE,
                "{program} does not start (`scripts/setup test` installs it): {log}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The body of its answer, as JSON.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.ask(path).await.expect("an answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        serde_json::from_str(body).unwrap_or_else(|problem| panic!("{path}: {problem}: {body}"))
    }

    async fn ask(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address).await?;
        // By HTTP/1.0 an answer comes in one piece.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
