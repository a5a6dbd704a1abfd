//! Sets a pool up step by step.

use std::time::Duration;

use super::Pool;
use super::manager::PostgresManager;
use crate::config::{ConfigError, Settings};
use crate::telemetry::Collector;

/// Sets a [`Pool`] up step by step. What is not set has its default, see [`Settings`]; what is set twice has its
/// later value.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    settings: Settings,
    /// What was wrong with a URL, kept until `build`, so that a chain of calls has one place where it can fail.
    wrong: Option<ConfigError>,
    collector: Option<Collector>,
}

/// One method a setting, each named as it is.
macro_rules! setters {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)+) => {
        $(
            $(#[$meta])*
            pub fn $name(mut self, $name: $type) -> Self {
                self.settings.$name = $name;
                self
            }
        )+
    };
}

impl PoolBuilder {
    /// Starts from these settings instead of the defaults; what was set before is forgotten.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where to connect to: a `postgres://` URL. Settings in its query count as if set by this call.
    pub fn url(mut self, url: &str) -> Self {
        if let Err(error) = self.settings.set("database_url", url) {
            self.wrong.get_or_insert(error);
        }
        self
    }

    /// The pool's name, in metrics and messages. Default: `host:port/database`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// What the server shows as `application_name`. Default: the URL's, else `poolscope`.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.settings.application_name = Some(name.into());
        self
    }

    setters! {
        /// How many connections may lie idle, and how many there are without overflow. Default 10.
        pool_size: usize,
        /// How many more there may be while they are needed. Default 20; 0 for none.
        max_overflow: usize,
        /// Bounds a whole checkout, from its first poll. Default 30 s.
        checkout_timeout: Duration,
        /// The age at which a connection is replaced, at its next checkout; up to a tenth earlier, at random, so that
        /// connections made together do not all go together. Default 1 h; `None` for never.
        recycle_after: Option<Duration>,
        /// Whether a connection is asked for a sign of life before it is handed out. Default on.
        pre_ping: bool,
        /// For how long after its last sign of life a connection is not pinged. Default 500 ms; zero to ping at
        /// every checkout.
        pre_ping_idle: Duration,
        /// How long the answer to a ping may take. Default 5 s.
        ping_timeout: Duration,
        /// How long connecting may take, with TLS and authentication. Default 5 s.
        connect_timeout: Duration,
        /// After how much silence TCP probes whether the server is there. `None` for never.
        tcp_keepalive: Option<Duration>,
        /// For how long sent data may stay unacknowledged before TCP gives up. `None` for the system's own idea.
        tcp_user_timeout: Option<Duration>,
        /// How long it may take to clean a connection that came back dirty, before it is closed. Default 1 s.
        clean_timeout: Duration,
        /// Whether what a session was left with (settings, advisory locks, LISTEN, temporary tables) is undone when a
        /// connection comes back. Takes a round trip for each use. Default off.
        reset_session: bool,
        /// How long a connection is held and silent on the wire before its holder is a suspected leak. Default 60 s;
        /// `None` for never.
        leak_threshold: Option<Duration>,
        /// Whether the headers of what passes on the wire are read. Default on.
        read_wire: bool,
        /// Whether the spans of queries have their text, with `?` for each literal. Default off.
        trace_query_text: bool,
        /// Whether a checkout that needs a new connection fails at once while connecting is known to fail, or waits.
        /// Default on.
        fail_fast: bool,
        /// How many retries a second the pool's operations may always make together. Default 10.
        retry_floor: usize,
        /// How many more retries they may make for each hundred operations with a retry policy. Default 20.
        retry_percent: usize,
        /// The mean wait that `poolscope_recommended_size` aims at. Default 10 ms.
        wait_target: Duration,
    }

    /// Has the pool counted by this collector instead of [`Collector::global`].
    pub fn collector(mut self, collector: Collector) -> Self {
        self.collector = Some(collector);
        self
    }

    /// Builds the pool. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, the URL is missing or cannot be, or a certificate cannot be read.
    pub fn build(self) -> Result<Pool, ConfigError> {
        let settings = self.settings;
        if let Some(error) = self.wrong {
            return Err(error);
        }
        settings.validate()?;
        let url = settings.require_database_url()?;
        let name = settings.name.clone().unwrap_or_else(|| url.default_pool_name());
        let manager = PostgresManager::new(&settings, url, &name)?;
        Pool::new(manager, &name, &settings, &self.collector.unwrap_or_else(Collector::global))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_values_counts_whether_it_is_the_urls_or_not() {
        let settings = |builder: PoolBuilder| builder.settings.pool_size;
        assert_eq!(settings(PoolBuilder::default().url("postgres://h/d?pool_size=3").pool_size(5)), 5);
        assert_eq!(settings(PoolBuilder::default().pool_size(5).url("postgres://h/d?pool_size=3")), 3);
    }

    #[test]
    fn a_wrong_url_is_an_error_when_the_pool_is_built() {
        let error = PoolBuilder::default().url("mysql://h/d").pool_size(3).build().unwrap_err();
        assert!(error.to_string().contains("postgres://"), "{error}");
        let error = PoolBuilder::default().build().unwrap_err();
        assert!(error.to_string().contains("database_url is not set"), "{error}");
    }

    #[test]
    fn a_builder_never_shows_a_password() {
        let shown = format!("{:?}", PoolBuilder::default().url("postgres://u:hunter2@h/d"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
