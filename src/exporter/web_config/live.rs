//! The configuration as the file has it now: it is read anew, while the exporter serves, when it changes.

use std::fmt;
use std::mem;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::files::Files;
use super::{Loaded, WebConfig, read};
use crate::exporter::turns::Turns;
use crate::telemetry::log::Chain;

/// How often files are looked at, at the most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a request waits for the disk. It goes on with what was read before.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// How many passwords are verified at once, and how long one waits for its turn. Each open connection asks once at a
/// time, so that at a cost of 10 the last of as many as there may be has its turn within this time.
const VERIFIED_AT_ONCE: usize = 2;
const VERIFY_WAIT: Duration = Duration::from_secs(10);

/// Where there are two processors or fewer, passwords take no more than one of them.
fn verified_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    if processors > 2 { VERIFIED_AT_ONCE } else { 1 }
}

/// What the file says, kept up to date by whoever asks.
pub(in crate::exporter) struct Live {
    path: Box<Path>,
    state: Mutex<State>,
    pub(super) look_every: Duration,
    /// Shared by all readings, so that a new one brings no new threads.
    turns: Turns,
}

struct State {
    loaded: Arc<Loaded>,
    /// What the last reading read, good or not.
    files: Files,
    looked: Instant,
    /// Somebody looks right now.
    looking: bool,
    /// Why the last reading was no good, as it was logged.
    complaint: Option<String>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Live {
    pub(in crate::exporter) fn new(config: WebConfig) -> Self {
        let WebConfig { path, loaded, files } = config;
        let state = State { loaded: Arc::new(loaded), files, looked: Instant::now(), looking: false, complaint: None };
        Self {
            path: path.into(),
            state: Mutex::new(state),
            look_every: LOOK_EVERY,
            turns: Turns::new(verified_at_once(), VERIFY_WAIT),
        }
    }

    /// Whether connections are to be encrypted, which nothing changes any more.
    pub(in crate::exporter) fn is_tls(&self) -> bool {
        self.state().loaded.tls.is_some()
    }

    /// The turns at verifying passwords.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// What holds now. Looks at the files if nobody did for a second; whoever comes meanwhile gets what was there before.
    pub(in crate::exporter) async fn now(self: &Arc<Self>) -> Arc<Loaded> {
        let Some(look) = self.begin_to_look() else { return self.loaded() };
        // A disk that hangs keeps this one thread, and nobody else looks.
        let looked = spawn_blocking(move || look.look());
        let _ = timeout(DISK_PATIENCE, looked).await;
        self.loaded()
    }

    pub(super) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.state().loaded)
    }

    #[cfg(test)]
    pub(super) fn complained(&self) {
        self.state().complaint = Some("too many open files".to_owned());
    }

    fn begin_to_look(self: &Arc<Self>) -> Option<Look> {
        let mut state = self.state();
        if state.looking || state.looked.elapsed() < self.look_every {
            return None;
        }
        state.looking = true;
        state.looked = Instant::now();
        let files = mem::replace(&mut state.files, Files::of(&self.path));
        // What could not be used may be fit for it by now, though no file tells: for want of a descriptor, say.
        let again = state.complaint.is_some();
        Some(Look { live: Arc::clone(self), files: Some(files), again })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at the files, which ends however it ends.
struct Look {
    live: Arc<Live>,
    files: Option<Files>,
    /// Whether to read them whether they have changed or not.
    again: bool,
}

impl Look {
    fn look(mut self) {
        if self.again || self.files.as_ref().is_some_and(Files::changed) {
            let mut files = Files::of(&self.live.path);
            let read = read::read(&mut files);
            self.files = Some(files);
            self.take(read.map_err(|problem| problem.of(&self.live.path)));
        }
    }

    /// Goes by what was read, or stays with what there was and says so once.
    fn take(&self, read: Result<Loaded, super::WebConfigError>) {
        let file = self.live.path.display();
        // The log may block, and is not to hold up whoever asks.
        match self.keep(read) {
            None => tracing::info!(%file, "the web configuration has changed and was read"),
            Some((complaint, true)) => {
                tracing::error!(
                    error = complaint,
                    "the web configuration has changed and cannot be used; the one before holds"
                );
            }
            Some((_, false)) => {}
        }
    }

    /// Keeps what was read. If it cannot be used: why not, and whether that is news.
    fn keep(&self, read: Result<Loaded, super::WebConfigError>) -> Option<(String, bool)> {
        let mut state = self.live.state();
        let complaint = match read {
            Err(error) => Chain(&error).to_string(),
            Ok(mut loaded) => match state.loaded.opened_by(&loaded) {
                Some(opened) => format!("{}: {opened}, which takes a restart", self.live.path.display()),
                None => {
                    loaded.inherit(&state.loaded);
                    state.loaded = Arc::new(loaded);
                    state.complaint = None;
                    return None;
                }
            },
        };
        let news = state.complaint.as_ref() != Some(&complaint);
        state.complaint = Some(complaint.clone());
        Some((complaint, news))
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let mut state = self.live.state();
        state.looking = false;
        if let Some(files) = self.files.take() {
            state.files = files;
        }
    }
}
