//! Reloads the configuration when its files change.

use std::fmt;
use std::mem;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::config::{self, Rules, WebConfig};
use super::error::WebConfigError;
use super::files::Files;
use crate::exporter::blocking::BlockingLimiter;
use crate::text::ErrorChain;

/// The minimum time between two checks of the files.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The time that a request waits for a check, before it uses the current configuration.
const FILE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of passwords that are verified at once, and the time that others wait. Each connection has one request at
/// a time, so at a bcrypt cost of 10 the last of the allowed connections is served within this time.
const MAX_PASSWORD_VERIFICATIONS: usize = 2;
const PASSWORD_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// With up to two processors, verifying passwords uses no more than one of them.
fn max_password_verifications() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    if processors > 2 { MAX_PASSWORD_VERIFICATIONS } else { 1 }
}

/// The current configuration. It is checked for changes by those that use it.
pub(in crate::exporter) struct LiveConfig {
    path: Box<Path>,
    state: Mutex<State>,
    /// Shared by all configurations, so that a reload does not add threads.
    password_limiter: BlockingLimiter,
}

struct State {
    rules: Arc<Rules>,
    /// The files of the last reload, successful or not.
    files: Files,
    checked: Instant,
    is_checking: bool,
    /// The logged error of the last reload.
    error: Option<String>,
}

impl fmt::Debug for LiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LiveConfig {
    pub(in crate::exporter) fn new(config: WebConfig) -> Self {
        let WebConfig { path, rules, files } = config;
        let state = State { rules: Arc::new(rules), files, checked: Instant::now(), is_checking: false, error: None };
        Self {
            path: path.into(),
            state: Mutex::new(state),
            password_limiter: BlockingLimiter::new(max_password_verifications(), PASSWORD_QUEUE_TIMEOUT),
        }
    }

    /// Returns whether TLS is enabled, which does not change.
    pub(super) fn is_tls(&self) -> bool {
        self.rules().tls.is_some()
    }

    pub(super) fn password_limiter(&self) -> &BlockingLimiter {
        &self.password_limiter
    }

    /// Returns the current configuration. The files are checked first, unless that was done within the last second or
    /// is in progress.
    pub(super) async fn current(self: &Arc<Self>) -> Arc<Rules> {
        if let Some(check) = self.begin_check() {
            // A disk that hangs occupies this one thread, and no other caller checks.
            let checked = spawn_blocking(move || check.run());
            let _ = timeout(FILE_CHECK_TIMEOUT, checked).await;
        }
        self.rules()
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.lock().rules)
    }

    fn begin_check(self: &Arc<Self>) -> Option<FileCheck> {
        let mut state = self.lock();
        if state.is_checking || state.checked.elapsed() < FILE_CHECK_INTERVAL {
            return None;
        }
        state.is_checking = true;
        state.checked = Instant::now();
        let files = mem::replace(&mut state.files, Files::new(&self.path));
        // An error may be gone although no file has changed: a lack of file descriptors, for example.
        let retry = state.error.is_some();
        Some(FileCheck { config: Arc::clone(self), files: Some(files), retry })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A check of the files, which ends when it is dropped.
struct FileCheck {
    config: Arc<LiveConfig>,
    files: Option<Files>,
    /// Whether to reload even if no file has changed.
    retry: bool,
}

impl FileCheck {
    fn run(mut self) {
        if self.retry || self.files.as_ref().is_some_and(Files::have_changed) {
            let mut files = Files::new(&self.config.path);
            let read = config::read(&self.config.path, &mut files);
            self.files = Some(files);
            self.apply(read);
        }
    }

    /// Applies a configuration that was read, and logs the result.
    fn apply(&self, read: Result<Rules, WebConfigError>) {
        let replaced = self.replace(read);
        // Without the lock: logging may block.
        match replaced {
            Ok(()) => tracing::info!(file = %self.config.path.display(), "reloaded the web configuration"),
            Err(Some(error)) => {
                tracing::error!(
                    error,
                    "the web configuration has changed and cannot be used; the previous one remains in effect"
                );
            }
            Err(None) => {}
        }
    }

    /// Replaces the current configuration, or returns the error if it is new.
    fn replace(&self, read: Result<Rules, WebConfigError>) -> Result<(), Option<String>> {
        let mut state = self.config.lock();
        let error = match read {
            Err(error) => ErrorChain(&error).to_string(),
            Ok(mut rules) => match state.rules.restart_reason(&rules) {
                Some(reason) => format!("{}: {reason} requires a restart", self.config.path.display()),
                None => {
                    rules.inherit(&state.rules);
                    state.rules = Arc::new(rules);
                    state.error = None;
                    return Ok(());
                }
            },
        };
        let is_new = state.error.as_ref() != Some(&error);
        state.error = Some(error.clone());
        Err(is_new.then_some(error))
    }
}

impl Drop for FileCheck {
    fn drop(&mut self) {
        let mut state = self.config.lock();
        state.is_checking = false;
        if let Some(files) = self.files.take() {
            state.files = files;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use tempfile::TempDir;
    use tokio::time::advance;

    use super::super::users::tests::basic;
    use super::*;

    /// A configuration in a directory of its own.
    struct Site {
        directory: TempDir,
        config: Arc<LiveConfig>,
    }

    impl Site {
        fn new(web_yml: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("web.yml"), web_yml).unwrap();
            let config = WebConfig::read(directory.path().join("web.yml")).unwrap();
            Self { directory, config: Arc::new(LiveConfig::new(config)) }
        }

        fn write(&self, web_yml: &str) {
            fs::write(self.directory.path().join("new"), web_yml).unwrap();
            fs::rename(self.directory.path().join("new"), self.directory.path().join("web.yml")).unwrap();
        }

        /// Returns the configuration after a check.
        async fn checked(&self) -> Arc<Rules> {
            advance(FILE_CHECK_INTERVAL).await;
            self.config.current().await
        }

        /// Authorizes alice with her password, and returns how many passwords the current users have verified.
        async fn authorize(&self) -> usize {
            let rules = self.checked().await;
            let users = rules.users.as_ref().unwrap();
            let authorized = users.is_authorized(&basic("alice", "sesame"), self.config.password_limiter()).await;
            assert_eq!(authorized, Ok(true));
            users.bcrypt_runs()
        }
    }

    fn hash() -> String {
        bcrypt::hash("sesame", 4).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn failed_reload_is_retried_without_a_change() {
        let site = Site::new(&format!("basic_auth_users:\n  alice: {}\n", hash()));
        let first = site.checked().await;
        assert!(Arc::ptr_eq(&first, &site.checked().await), "nothing has changed");
        site.config.lock().error = Some("too many open files".to_owned());
        let second = site.checked().await;
        assert!(!Arc::ptr_eq(&first, &second), "it was not reloaded");
        assert!(Arc::ptr_eq(&second, &site.checked().await), "it was reloaded successfully");
    }

    #[tokio::test(start_paused = true)]
    async fn right_passwords_survive_a_reload() {
        let alice = format!("basic_auth_users:\n  alice: {}\n", hash());
        let site = Site::new(&alice);
        assert_eq!(site.authorize().await, 1);
        site.write(&format!("{alice}  bob: {}\n", hash()));
        assert_eq!(site.authorize().await, 0);
        // The same password with another hash must be verified again.
        site.write(&format!("basic_auth_users:\n  alice: {}\n", hash()));
        assert_eq!(site.authorize().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_checked_once_a_second() {
        let site = Site::new(&format!("basic_auth_users:\n  alice: {}\n", hash()));
        let first = site.checked().await;
        site.write(&format!("basic_auth_users:\n  bob: {}\n", hash()));
        advance(FILE_CHECK_INTERVAL - Duration::from_millis(1)).await;
        assert!(Arc::ptr_eq(&first, &site.config.current().await));
        advance(Duration::from_millis(1)).await;
        assert!(!Arc::ptr_eq(&first, &site.config.current().await));
    }
}
