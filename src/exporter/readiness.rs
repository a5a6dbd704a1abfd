use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::text::printable;

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
