use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::text::printable;

/// The longest pause before a failed warm-up is repeated.
const MAX_WARM_UP_PAUSE: Duration = Duration::from_secs(1);

/// The readiness of the process, as `/-/ready` reports it.
///
/// Clones share the state: pass one to the [`Exporter`](super::Exporter), and keep another where readiness is decided.
///
/// ```
/// use poolscope::exporter::Readiness;
///
/// let readiness = Readiness::new();
/// assert!(!readiness.is_ready());
/// readiness.ready();
/// assert!(readiness.is_ready());
/// ```
#[derive(Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Why the process is not ready; `None` when it is.
    reason: Option<Cow<'static, str>>,
    checks: Vec<Check>,
}

/// Returns why the process is not ready at the moment.
type Check = Arc<dyn Fn() -> Option<String> + Send + Sync>;

impl Readiness {
    /// Creates a readiness that is not ready, with the reason "starting".
    pub fn new() -> Self {
        let state = State { reason: Some(Cow::Borrowed("starting")), checks: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Marks the process as ready.
    pub fn ready(&self) {
        self.lock().reason = None;
    }

    /// Marks the process as not ready. Clients see the reason: a few plain words without secrets, such as "the database
    /// cannot be reached".
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.lock().reason = Some(reason.into());
    }

    /// Calls `warm_up` until it succeeds, and then marks the process as ready: for [`Pool::warm_up`](crate::Pool::warm_up).
    ///
    /// Until then the process is not ready, with a reason that names neither the server nor its error. After a failure it
    /// pauses for half a second to a second, at random, so that the processes of a deployment do not connect in step.
    ///
    /// ```no_run
    /// use poolscope::exporter::Readiness;
    ///
    /// # fn start(pool: poolscope::Pool, readiness: Readiness) {
    /// tokio::spawn(async move { readiness.ready_after(|| pool.warm_up()).await });
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if polled outside a tokio runtime with its time driver enabled.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the process stays not ready.
    pub async fn ready_after<F, E>(&self, mut warm_up: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), E>>,
    {
        self.not_ready("warming up");
        while warm_up().await.is_err() {
            self.not_ready("warming up has failed, and is tried again");
            tokio::time::sleep(MAX_WARM_UP_PAUSE.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
        self.ready();
    }

    /// Adds a check that can make a ready process not ready, by returning the reason in a few plain words.
    ///
    /// It runs at each request for `/-/ready` and the landing page, and must not block.
    ///
    /// For example, readiness can follow the load shedding of [`middleware`](crate::middleware):
    ///
    /// ```
    /// # #[cfg(feature = "middleware")]
    /// # fn follow(
    /// #     readiness: &poolscope::exporter::Readiness,
    /// #     layer: poolscope::middleware::PoolLayer,
    /// # ) {
    /// readiness.add_check(move || layer.overload().map(|overload| overload.to_string()));
    /// # }
    /// ```
    pub fn add_check(&self, check: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.lock().checks.push(Arc::new(check));
    }

    /// Returns whether the process is ready.
    pub fn is_ready(&self) -> bool {
        self.reason().is_none()
    }

    /// Returns why the process is not ready.
    pub(super) fn reason(&self) -> Option<Cow<'static, str>> {
        self.given_reason().map(|reason| match printable(&reason) {
            Cow::Borrowed(_) => reason,
            Cow::Owned(printable) => printable.into(),
        })
    }

    fn given_reason(&self) -> Option<Cow<'static, str>> {
        let checks = {
            let state = self.lock();
            if state.reason.is_some() {
                return state.reason.clone();
            }
            state.checks.clone()
        };
        // Without the lock: a check may take a while, or call `is_ready` itself.
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
        let State { reason, checks } = &*self.lock();
        f.debug_struct("Readiness").field("reason", reason).field("checks", &checks.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn process_is_ready_after_its_warm_up() {
        let readiness = Readiness::new();
        let reason = || readiness.reason().map(Cow::into_owned);
        let mut calls = 0;
        let mut reasons = Vec::new();
        readiness
            .ready_after(|| {
                calls += 1;
                reasons.extend(reason());
                std::future::ready(if calls < 3 { Err("connection refused") } else { Ok(()) })
            })
            .await;
        let failed = "warming up has failed, and is tried again";
        assert_eq!(reasons, ["warming up", failed, failed]);
        assert!(readiness.is_ready());

        let pending = readiness.ready_after(std::future::pending::<Result<(), ()>>);
        assert!(tokio::time::timeout(Duration::from_secs(60), pending).await.is_err());
        assert_eq!(reason().as_deref(), Some("warming up"));
    }

    #[test]
    fn reasons_are_printable() {
        let readiness = Readiness::new();
        readiness.not_ready("a\nb");
        assert_eq!(readiness.reason().as_deref(), Some(r"a\nb"));
        readiness.ready();
        readiness.add_check(|| Some("\u{1b}[31m".to_owned()));
        assert_eq!(readiness.reason().as_deref(), Some(r"\u{1b}[31m"));
    }
}
