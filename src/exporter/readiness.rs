use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A latch that says whether the process can do its work, for `/-/ready`.
///
/// Clones share one state, so that one is given to the [`Exporter`](super::Exporter) and another
/// stays with what knows.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Why not, or `None` when ready.
    obstacle: Arc<Mutex<Option<Cow<'static, str>>>>,
}

impl Readiness {
    /// Not ready, because the process is starting.
    pub fn new() -> Self {
        Self { obstacle: Arc::new(Mutex::new(Some(Cow::Borrowed("starting")))) }
    }

    /// From now on the process is ready.
    pub fn ready(&self) {
        *self.lock() = None;
    }

    /// From now on the process is not ready. The reason is shown to whoever asks: a few plain
    /// words, without secrets, such as "the database cannot be reached".
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        *self.lock() = Some(reason.into());
    }

    /// Whether the process is ready.
    pub fn is_ready(&self) -> bool {
        self.lock().is_none()
    }

    /// Why the process is not ready.
    pub(super) fn obstacle(&self) -> Option<Cow<'static, str>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cow<'static, str>>> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}
