use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A latch that says whether the process can do its work, for `/-/ready`, and what else may stand in its way.
///
/// Clones share one state, so that one is given to the [`Exporter`](super::Exporter) and another
/// stays with what knows.
#[derive(Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Why not, or `None` when ready.
    obstacle: Option<Cow<'static, str>>,
    checks: Vec<Check>,
}

/// Says what stands in the way at the moment.
type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl Readiness {
    /// Not ready, because the process is starting.
    pub fn new() -> Self {
        let state = State { obstacle: Some(Cow::Borrowed("starting")), checks: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From now on the process is ready.
    pub fn ready(&self) {
        self.lock().obstacle = None;
    }

    /// From now on the process is not ready. The reason is shown to whoever asks: a few plain
    /// words, without secrets, such as "the database cannot be reached".
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.lock().obstacle = Some(reason.into());
    }

    /// Has the process be not ready also whenever `check` says why not, in a few plain words. It is asked at each
    /// request for `/-/ready` and the landing page, and is not to block.
    ///
    /// So a probe can follow the load shedding of [`middleware`](crate::middleware):
    ///
    /// ```
    /// # #[cfg(feature = "middleware")]
    /// # fn follow(
    /// #     readiness: &poolscope::exporter::Readiness,
    /// #     layer: poolscope::middleware::PoolLayer<poolscope::pool::PostgresManager>,
    /// # ) {
    /// readiness.unless(move || layer.overload().map(|overload| overload.to_string()));
    /// # }
    /// ```
    pub fn unless(&self, check: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.lock().checks.push(Arc::new(check));
    }

    /// Whether the process is ready.
    pub fn is_ready(&self) -> bool {
        self.obstacle().is_none()
    }

    /// Why the process is not ready.
    pub(super) fn obstacle(&self) -> Option<Cow<'static, str>> {
        let checks = {
            let state = self.lock();
            if state.obstacle.is_some() {
                return state.obstacle.clone();
            }
            state.checks.clone()
        };
        // Without the lock: a check may take a while, or ask for this very thing.
        checks.iter().find_map(|check| check()).map(Cow::Owned)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { obstacle, checks } = &*self.lock();
        f.debug_struct("Readiness").field("obstacle", obstacle).field("checks", &checks.len()).finish()
    }
}
