//! The shell that keeps a server, and cleans up after it however this process ends.
//!
//! A destructor does not run when a process is killed, and a static is never dropped. So the directory and
//! the server belong to a small shell script, which holds one end of a pipe; this process holds the
//! other. The kernel closes it when this process is gone, and that is the order to clean up.

use std::env;
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

/// How long a drop waits. PostgreSQL kills what does not end by itself after 5 s.
const PATIENCE: Duration = Duration::from_secs(6);

/// The longest parent under which the path of a socket fits into `sockaddr_un`, 104 bytes on some systems.
const LONGEST_PARENT: usize = 64;

/// What the script has reported so far.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The server's directory.
    pub(super) directory: Option<PathBuf>,
    /// Whether `initdb` went well, once it is done.
    pub(super) initialised: Option<bool>,
    /// How many times the server was started.
    pub(super) runs: u64,
    /// The server's process, while it runs.
    pub(super) pid: Option<u32>,
}

impl State {
    fn report(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("directory", path)) => self.directory = Some(path.into()),
            Some(("initdb", how)) => self.initialised = Some(how == "ok"),
            Some(("running", pid)) => {
                self.runs += 1;
                self.pid = pid.parse().ok();
            }
            Some(("stopped", _)) => self.pid = None,
            _ => {}
        }
    }
}

/// The user that the server runs as, when this process is root's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

impl Account {
    fn unprivileged() -> Result<Option<Self>, ServerError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid, gid: user.gid }))
            .ok_or(ServerError::NoAccount)
    }
}

/// A running script. Dropping it stops the server and removes its directory.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
    account: Option<Account>,
    orders: Option<ChildStdin>,
    state: watch::Receiver<State>,
    /// Disconnected when the script has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Watchdog {
    /// Starts the script, which makes the directory and runs `initdb`.
    pub(super) fn spawn(bin: &Path) -> Result<Self, ServerError> {
        let account = Account::unprivileged()?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", include_str!("watchdog.sh"), "poolscope-server"])
            .arg(bin)
            .args(parents())
            // The variables of PostgreSQL's clients mean something to its server too.
            .env_clear()
            .envs(env::vars_os().filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"PG")))
            .env("LC_ALL", "C")
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(account) = account {
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        let mut shell = command.spawn().map_err(|source| ServerError::Spawn { source })?;
        let orders = shell.stdin.take();
        let reports = shell.stdout.take();
        let (sender, state) = watch::channel(State::default());
        let (alive, ended) = mpsc::channel();
        // From here on a drop cleans up.
        let watchdog = Self { shell, account, orders, state, ended: Mutex::new(ended) };
        // A thread rather than a task: a server may outlive the runtime that started it.
        thread::Builder::new()
            .name("poolscope-server".to_owned())
            .spawn(move || {
                let _alive: mpsc::Sender<()> = alive;
                for line in reports.map(BufReader::new).into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
                    sender.send_modify(|state| state.report(&line));
                }
            })
            .map_err(|source| ServerError::Spawn { source })?;
        Ok(watchdog)
    }

    /// The user that the server runs as, if not this process's own.
    pub(super) const fn account(&self) -> Option<Account> {
        self.account
    }

    /// What was reported last.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Sends a line.
    pub(super) fn order(&self, word: &str) -> Result<(), ServerError> {
        let mut orders = self.orders.as_ref().ok_or(ServerError::Gone)?;
        orders.write_all(format!("{word}\n").as_bytes()).map_err(|_| ServerError::Gone)
    }

    /// Waits for a report after which `done` holds.
    pub(super) async fn until(&self, done: impl FnMut(&State) -> bool) -> Result<State, ServerError> {
        match self.state.clone().wait_for(done).await {
            Ok(state) => Ok(state.clone()),
            Err(_) => Err(ServerError::Gone),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Disconnected) {
            let _ = self.shell.wait();
        }
    }
}

/// Where the directory may be made, best first.
pub(super) fn parents() -> Vec<String> {
    let wished = env::temp_dir().to_str().map(|path| path.trim_end_matches('/').to_owned());
    let mut parents: Vec<String> = wished.into_iter().filter(|path| path.len() <= LONGEST_PARENT).collect();
    // The system's own may be too long, or closed to the user that the server runs as.
    if parents.iter().all(|path| path != "/tmp") {
        parents.push("/tmp".to_owned());
    }
    parents
}
