//! The watchdog of a server: a shell that runs it, and cleans up however this process ends.
//!
//! A destructor does not run when a process is killed, and a static is never dropped. A small shell script
//! therefore owns the directory and the server. It reads from a pipe whose other end this process holds;
//! the kernel closes the pipe when this process ends, and the script then cleans up.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use tokio::sync::watch;

use super::ServerError;

/// How long a drop waits. PostgreSQL kills processes that have not ended after 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);

/// The variables of this process that the server's processes have. Others may contain secrets, or be settings of PostgreSQL,
/// whose server reads some of its clients' variables too.
pub const VARIABLES: [&str; 6] = ["PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// The maximum length of the parent directory, in bytes, with which the socket's path fits into `sockaddr_un`
/// (104 bytes on some systems).
const MAX_PARENT_LEN: usize = 64;

/// The state that the script reported.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The server's directory.
    pub(super) directory: Option<PathBuf>,
    /// Whether `initdb` succeeded, once it has ended.
    pub(super) initialized: Option<bool>,
    /// The number of starts.
    pub(super) starts: u64,
    /// The process id of the server, while it runs.
    pub(super) pid: Option<u32>,
}

impl State {
    fn update(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("directory", path)) => self.directory = Some(path.into()),
            Some(("initdb", result)) => self.initialized = Some(result == "ok"),
            Some(("running", pid)) => {
                self.starts += 1;
                self.pid = pid.parse().ok();
            }
            Some(("stopped", _)) => self.pid = None,
            _ => {}
        }
    }
}

/// The user that the server runs as, if this process runs as root.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUser {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl ServerUser {
    fn unprivileged() -> Result<Option<Self>, ServerError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid, gid: user.gid }))
            .ok_or(ServerError::NoUnprivilegedUser)
    }
}

/// A running script. Dropping it stops the server and removes its directory.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    user: Option<ServerUser>,
    commands: Option<ChildStdin>,
    state: watch::Receiver<State>,
    /// Disconnects when the script ends.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Watchdog {
    /// Starts the script, which creates the directory and runs `initdb`.
    pub(super) fn spawn(bin: &Path, variables: &[(String, OsString)]) -> Result<Self, ServerError> {
        let user = ServerUser::unprivileged()?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", include_str!("watchdog.sh"), "poolscope-server"])
            .arg(bin)
            .args(parent_directories())
            .env_clear()
            .envs(VARIABLES.iter().filter_map(|name| Some((name, env::var_os(name)?))))
            .env("LC_ALL", "C")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let mut shell = command.spawn().map_err(|source| ServerError::Spawn { source })?;
        let commands = shell.stdin.take();
        let reports = shell.stdout.take();
        let (sender, state) = watch::channel(State::default());
        let (alive, ended) = mpsc::channel();
        // From here on, a drop cleans up.
        let watchdog = Self { shell, user, commands, state, ended: Mutex::new(ended) };
        // A thread rather than a task, since a server may outlive the runtime that started it.
        thread::Builder::new()
            .name("poolscope-server".to_owned())
            .spawn(move || {
                let _alive: mpsc::Sender<()> = alive;
                for line in reports.map(BufReader::new).into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
                    sender.send_modify(|state| state.update(&line));
                }
            })
            .map_err(|source| ServerError::Spawn { source })?;
        Ok(watchdog)
    }

    /// Returns the user that the server runs as; `None` for the user of this process.
    pub(super) const fn user(&self) -> Option<ServerUser> {
        self.user
    }

    /// Returns the latest state.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Sends a command to the script.
    pub(super) fn send(&self, command: &str) -> Result<(), ServerError> {
        let mut commands = self.commands.as_ref().ok_or(ServerError::WatchdogExited)?;
        commands.write_all(format!("{command}\n").as_bytes()).map_err(|_| ServerError::WatchdogExited)
    }

    /// Waits until `done` returns true for the state.
    pub(super) async fn wait_for(&self, done: impl FnMut(&State) -> bool) -> Result<State, ServerError> {
        match self.state.clone().wait_for(done).await {
            Ok(state) => Ok(state.clone()),
            Err(_) => Err(ServerError::WatchdogExited),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.commands.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(STOP_TIMEOUT) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.shell.wait();
        }
    }
}

/// Returns the parent directories to try, in order of preference.
pub(super) fn parent_directories() -> Vec<String> {
    let preferred = env::temp_dir().to_str().map(|path| path.trim_end_matches('/').to_owned());
    let mut parents: Vec<String> = preferred.into_iter().filter(|path| path.len() <= MAX_PARENT_LEN).collect();
    // The system's directory may be too long, or not writable for the server's user.
    if parents.iter().all(|path| path != "/tmp") {
        parents.push("/tmp".to_owned());
    }
    parents
}
