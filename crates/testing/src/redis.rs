//! A private Redis server, for the demo, the tests and the benches.
//!
//! It uses a temporary directory named `poolscope-…`, listens on a Unix socket there (and on the loopback address with
//! [`Builder::tcp`] or [`Builder::tls`]), and persists nothing. When the [`Server`] is dropped, or its process ends in any
//! way, `kill -9` included, the server stops and the directory is removed. It needs `redis-server` on the machine, or the
//! program that the environment variable `POOLSCOPE_REDIS_SERVER` names, such as `valkey-server`.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use poolscope_testing::redis::Server;
//!
//! let server = Server::builder().setting("maxclients", "20").start().await?;
//! let url = server.url();
//! server.kill()?;
//! server.start().await?;
//! # drop(url);
//! # Ok(())
//! # }
//! ```

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::ports::ReservedPort;

/// The environment variable that names the program.
const VARIABLE: &str = "POOLSCOPE_REDIS_SERVER";

/// Long enough for a busy machine; only a server that does not start waits for it.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a reply to a command of the test may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The characters to escape in the path of a URL.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Runs the server, obeys commands, and cleans up when standard input is closed, which also happens when the process that
/// started it is killed. Writes a line when a command has taken effect.
const SUPERVISOR_SCRIPT: &str = r#"
trap '' HUP INT TERM
directory=$1 program=$2
server=
stop() {
    [ -z "$server" ] || { kill -s CONT "$server"; kill -s "$1" "$server"; wait "$server"; server=; } 2>/dev/null
}
while read -r verb signal; do
    case $verb in
        start)
            if [ -z "$server" ] || ! kill -s 0 "$server" 2>/dev/null; then
                "$program" "$directory/redis.conf" >>"$directory/log" 2>&1 </dev/null &
                server=$!
            fi ;;
        stop) stop "$signal" ;;
        signal) kill -s "$signal" "$server" ;;
    esac
    echo "$verb"
done
stop KILL
rm -rf -- "$directory"
"#;

/// Configures a [`Server`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    settings: Vec<(String, String)>,
    tcp: bool,
    tls: Option<[String; 3]>,
}

impl Builder {
    /// Sets a directive of `redis.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on a free port of 127.0.0.1 too.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Listens with TLS on a free port of 127.0.0.1 too, with these PEM texts: the certificate, its key, and that of the
    /// authority.
    pub fn tls(mut self, certificate: &str, key: &str, authority: &str) -> Self {
        self.tls = Some([certificate, key, authority].map(str::to_owned));
        self
    }

    /// Starts the server, and waits until it replies.
    ///
    /// # Errors
    ///
    /// Returns an error with the server's log if it does not start.
    pub async fn start(self) -> io::Result<Server> {
        let mut failure = None;
        // Another program may take a free port meanwhile.
        for _ in 0..5 {
            let server = self.spawn()?;
            match server.start().await {
                Ok(()) => return Ok(server),
                Err(error) if server.log().contains("Address already in use") => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    fn spawn(&self) -> io::Result<Server> {
        let directory = std::env::temp_dir().join(format!("poolscope-redis-{:016x}", fastrand::u64(..)));
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let reserve = |wanted: bool| wanted.then(ReservedPort::new).transpose();
        let (port, tls_port) = (reserve(self.tcp)?, reserve(self.tls.is_some())?);
        let mut config = format!(
            "bind 127.0.0.1\nport {}\nunixsocket {dir}/redis.sock\nunixsocketperm 700\ndir {dir}\nsave \"\"\nappendonly no\n",
            port.as_ref().map_or(0, ReservedPort::number),
            dir = directory.display()
        );
        if let (Some(port), Some(files)) = (&tls_port, &self.tls) {
            config += &format!("tls-port {}\ntls-auth-clients optional\n", port.number());
            let directives =
                [("tls-cert-file", "server.pem"), ("tls-key-file", "server.key"), ("tls-ca-cert-file", "ca.pem")];
            for ((directive, file), text) in directives.into_iter().zip(files) {
                fs::write(directory.join(file), text)?;
                config += &format!("{directive} {}\n", directory.join(file).display());
            }
        }
        for (name, value) in &self.settings {
            config += &format!("{name} {value}\n");
        }
        fs::write(directory.join("redis.conf"), config)?;
        let mut supervisor = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR_SCRIPT, "poolscope-redis"])
            .arg(&directory)
            .arg(program())
            // A signal to the test's process group must not kill the supervisor.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (supervisor.stdin.take(), supervisor.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let commands = Mutex::new((Some(stdin), BufReader::new(stdout)));
        Ok(Server { supervisor, commands, directory, port, tls_port })
    }
}

/// Returns the server's program.
fn program() -> OsString {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).unwrap_or_else(|| "redis-server".into())
}

/// A private Redis server. Dropping it kills the server and removes its directory.
#[derive(Debug)]
pub struct Server {
    supervisor: Child,
    commands: Mutex<(Option<ChildStdin>, BufReader<ChildStdout>)>,
    directory: PathBuf,
    /// While the server is down too.
    port: Option<ReservedPort>,
    tls_port: Option<ReservedPort>,
}

impl Server {
    /// Returns a builder with default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the URL of the Unix socket.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("")
    }

    /// Returns the URL of the Unix socket with a login, such as `app:secret`.
    #[must_use]
    pub fn url_of(&self, login: &str) -> String {
        let socket = self.socket();
        let path = utf8_percent_encode(socket.to_str().unwrap_or_default(), &RESERVED);
        let at = if login.is_empty() { "" } else { "@" };
        format!("redis+unix://{login}{at}{path}")
    }

    /// Returns the URL of the TCP port; `None` without [`Builder::tcp`].
    #[must_use]
    pub fn tcp_url(&self) -> Option<String> {
        Some(format!("redis://127.0.0.1:{}", self.port()?))
    }

    /// Returns the TCP port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port.as_ref().map(ReservedPort::number)
    }

    /// Returns the URL of the port with TLS, by the name `localhost`; `None` without [`Builder::tls`].
    #[must_use]
    pub fn tls_url(&self) -> Option<String> {
        Some(format!("rediss://localhost:{}", self.tls_port.as_ref()?.number()))
    }

    /// Returns the temporary directory, which contains `redis.conf`, `redis.sock` and `log`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("redis.sock")
    }

    /// Kills the server, as a crash does, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Returns an error if its supervisor was killed.
    pub fn kill(&self) -> io::Result<()> {
        self.supervise("stop KILL")
    }

    /// Shuts the server down cleanly, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// Returns an error if its supervisor was killed.
    pub fn stop(&self) -> io::Result<()> {
        self.supervise("stop TERM")
    }

    /// Suspends the server's process: it neither replies nor closes, and the kernel still accepts connections.
    ///
    /// # Errors
    ///
    /// Returns an error if its supervisor was killed.
    pub fn suspend(&self) -> io::Result<()> {
        self.supervise("signal STOP")
    }

    /// Resumes a suspended server.
    ///
    /// # Errors
    ///
    /// Returns an error if its supervisor was killed.
    pub fn resume(&self) -> io::Result<()> {
        self.supervise("signal CONT")
    }

    /// Starts a stopped server in the same directory, and waits until it replies. If it runs already, only waits.
    ///
    /// # Errors
    ///
    /// Returns an error with the server's log if it does not reply within a minute.
    pub async fn start(&self) -> io::Result<()> {
        let started = Instant::now();
        self.supervise("start")?;
        loop {
            let reply = self.command(&["PING"]);
            // An error other than this one is a reply too, as that a password is missing.
            if reply.is_ok_and(|reply| !reply.is_empty() && !reply.starts_with("-LOADING")) {
                return Ok(());
            }
            let log = self.log();
            let is_fatal = [": not found", "Permission denied", "Address already in use", "FATAL", "Bad directive"]
                .iter()
                .any(|bad| log.contains(bad));
            if is_fatal || started.elapsed() > START_TIMEOUT {
                return Err(io::Error::other(format!(
                    "{} does not start (`scripts/setup test` installs redis-server; {VARIABLE} names another program): {log}",
                    program().display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Executes a command on a connection of its own, and returns its reply as the server sends it: with the type's
    /// character in front, or the text of a string. Blocks.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not reply.
    pub fn command(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        let mut packed = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            packed.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        // A server that refuses the client has closed, and its error can still be read.
        let _ = stream.write_all(&packed);
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        match line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok()) {
            Some(length) => {
                let mut text = vec![0; length];
                stream.read_exact(&mut text)?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            None => Ok(line.to_owned()),
        }
    }

    /// Returns a field of the reply to `INFO`.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not reply.
    pub fn info(&self, field: &str) -> io::Result<Option<String>> {
        let info = self.command(&["INFO", "everything"])?;
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        Ok(lines.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned()))
    }

    /// Returns the server's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn supervise(&self, command: &str) -> io::Result<()> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(stdin), stdout) = &mut *commands else { return Err(io::ErrorKind::BrokenPipe.into()) };
        stdin.write_all(format!("{command}\n").as_bytes())?;
        let mut done = String::new();
        if stdout.read_line(&mut done)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        drop(commands.0.take());
        drop(commands);
        let _ = self.supervisor.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn server_is_killed_restarted_and_removed() {
        let server = Server::builder().setting("requirepass", "secret").start().await.unwrap();
        assert!(server.command(&["GET", "a"]).unwrap().starts_with("-NOAUTH"));
        server.kill().unwrap();
        assert!(server.command(&["PING"]).is_err());
        server.start().await.unwrap();
        server.suspend().unwrap();
        server.resume().unwrap();
        let directory = server.dir().to_owned();
        drop(server);
        assert!(!directory.exists());
    }
}
