//! Reloads the configuration when its files change.

use std::fmt;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::config::{self, Rules, WebConfig};
use crate::exporter::blocking::BlockingLimiter;
use crate::files::{Files, Live, Source};
use crate::telemetry::log::ReloadLimiter;
use crate::text::{ErrorChain, Printable};

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
    path: Arc<Path>,
    rules: Arc<Live<RulesFile>>,
    /// Shared by all configurations, so that a reload does not add threads.
    password_limiter: BlockingLimiter,
}

impl fmt::Debug for LiveConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LiveConfig {
    pub(in crate::exporter) fn new(config: WebConfig) -> Self {
        let WebConfig { path, rules, files } = config;
        let path: Arc<Path> = path.into();
        let file = RulesFile { path: Arc::clone(&path), limiter: ReloadLimiter::default() };
        Self {
            rules: Arc::new(Live::new(file, rules, files)),
            path,
            password_limiter: BlockingLimiter::new(max_password_verifications(), PASSWORD_QUEUE_TIMEOUT),
        }
    }

    /// Returns whether TLS is enabled, which does not change.
    pub(super) fn is_tls(&self) -> bool {
        self.rules.value().tls.is_some()
    }

    pub(super) fn password_limiter(&self) -> &BlockingLimiter {
        &self.password_limiter
    }

    /// Returns the current configuration; see [`Live::current`].
    pub(super) async fn current(&self) -> Arc<Rules> {
        self.rules.current().await
    }
}

/// The configuration file.
struct RulesFile {
    path: Arc<Path>,
    limiter: ReloadLimiter,
}

impl Source for RulesFile {
    type Value = Rules;

    fn reread(&self, current: &Rules, files: &mut Files) -> Result<Rules, String> {
        let mut rules = config::read(&self.path, files).map_err(|error| ErrorChain(&error).to_string())?;
        if let Some(reason) = current.restart_reason(&rules) {
            return Err(format!("{}: {reason} requires a restart", Printable(self.path.display())));
        }
        rules.inherit(current);
        Ok(rules)
    }

    fn log(&self, result: Result<(), &str>) {
        let Some(suppressed) = self.limiter.pass(result) else { return };
        let file = Printable(self.path.display());
        match result {
            Ok(()) => tracing::info!(%file, suppressed, "reloaded the web configuration"),
            Err(error) => tracing::error!(
                error,
                suppressed,
                "the web configuration has changed and cannot be used; the previous one remains in effect"
            ),
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
    use crate::files::FILE_CHECK_INTERVAL;

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
        site.config.rules.set_error("too many open files");
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
