//! The builder of a pool of connections to Redis.

use std::time::Duration;

use super::super::builder::{build, pool_name, setters};
use super::super::pool::Pool;
use super::connect::Connector;
use super::manager::RedisManager;
use crate::config::{ConfigError, RedisUrl, Settings};
use crate::telemetry::Collector;

/// Builds a [`Pool`](super::Pool). Settings that are not set have their default, see [`Settings`]; of two values, the later
/// one counts.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    settings: Settings,
    url: Option<RedisUrl>,
    /// The error of a URL, which `build` returns.
    url_error: Option<ConfigError>,
    collector: Option<Collector>,
    replaced: Option<Pool<RedisManager>>,
}

impl PoolBuilder {
    /// Returns a builder with default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all settings, including those set before. Those of PostgreSQL alone have no effect; `application_name` is
    /// the name in the server's list of clients.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the server to connect to, as a [`RedisUrl`]. Settings in the URL's query count as set by this call.
    pub fn url(mut self, url: &str) -> Self {
        match url.parse::<RedisUrl>() {
            Ok(url) => {
                url.apply_to(&mut self.settings);
                self.url = Some(url);
            }
            Err(error) => {
                self.url_error.get_or_insert(error);
            }
        }
        self
    }

    /// Sets the pool's name in metrics and messages. Default: `host:port/database`.
    ///
    /// A name belongs to one pool at a time. A second pool of the same name gets the name with `-2`, `-3` and so on for as
    /// long as it exists, which is logged, unless it [`replaces`](Self::replaces) the first.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    setters! {
        /// Sets the number of connections without overflow, all of which may stay idle. Default 10.
        pool_size: usize,
        /// Sets the number of further connections while they are needed. Default 20; 0 for none.
        max_overflow: usize,
        /// Sets the number of connections that [`Pool::warm_up`] opens, at most `pool_size`. Default 0.
        min_idle: usize,
        /// Sets the time after which an idle connection is closed, as long as more than
        /// [`min_idle`](crate::Settings::min_idle) are idle. Default `None`: idle connections stay open.
        idle_timeout: Option<Duration>,
        /// Sets the timeout of a whole checkout, from its first poll. Default 30 s.
        checkout_timeout: Duration,
        /// Sets the age at which a connection is replaced at its next checkout. Default 1 h; `None` for never.
        recycle_after: Option<Duration>,
        /// Sets whether a connection is pinged before it is handed out. Default on.
        pre_ping: bool,
        /// Sets for how long after the server's last message a connection is not pinged. Default 500 ms; zero to ping at
        /// every checkout.
        pre_ping_idle: Duration,
        /// Sets the timeout of a ping. Default 5 s.
        ping_timeout: Duration,
        /// Sets the timeout of connecting, including TLS and authentication. Default 5 s.
        connect_timeout: Duration,
        /// Sets the idle time after which TCP probes whether the server is alive. `None` for never.
        tcp_keepalive: Option<Duration>,
        /// Sets for how long sent data may stay unacknowledged before TCP closes the connection. `None` for the operating
        /// system's default.
        tcp_user_timeout: Option<Duration>,
        /// Sets the time limit of resetting a connection that was returned dirty, after which it is closed. Default 1 s.
        clean_timeout: Duration,
        /// Sets how long a connection keeps its place after it was closed while the server executed its command. Default
        /// 30 s.
        close_timeout: Duration,
        /// Sets for how long a connection is held without traffic before its holder is a suspected leak. Default 60 s;
        /// `None` for never.
        leak_threshold: Option<Duration>,
        /// Sets the duration from which on a successful checkout is logged. Default 2 s; `None` for never.
        slow_checkout_threshold: Option<Duration>,
        /// Sets the duration from which on a command is logged, by its name. Default `None`: never.
        slow_query_threshold: Option<Duration>,
        /// Sets whether the wire protocol is observed. Default on. Off, a transaction or a database that a holder has left
        /// is not noticed.
        read_wire: bool,
        /// Sets the limit, in KiB, of one reply, beyond which the connection is closed. Default 0: no limit. Needs
        /// `read_wire`.
        max_answer_kib: usize,
        /// Sets whether a checkout that needs a new connection fails at once, rather than waits, while connecting is known
        /// to fail. Default on.
        fail_fast: bool,
        /// Sets the number of retries per second that the pool's operations may always make in total. Default 10.
        retry_floor: usize,
        /// Sets the number of further retries for each hundred operations with a retry policy. Default 20.
        retry_percent: usize,
        /// Sets the wait that 99 % of checkouts are to stay below with `poolscope_recommended_size` connections. Default
        /// 10 ms.
        wait_target: Duration,
    }

    /// Sets the collector that counts the pool, instead of [`Collector::global`].
    pub fn collector(mut self, collector: Collector) -> Self {
        self.collector = Some(collector);
        self
    }

    /// Lets the pool replace `old` without a gap, as for [PostgreSQL](crate::PoolBuilder::replaces).
    pub fn replaces(mut self, old: &Pool<RedisManager>) -> Self {
        self.replaced = Some(old.clone());
        self
    }

    /// Builds the pool. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range, the URL is missing or invalid, a password file is given, or the file of
    /// a certificate cannot be read.
    pub fn build(self) -> Result<Pool<RedisManager>, ConfigError> {
        let settings = self.settings;
        if let Some(error) = self.url_error {
            return Err(error);
        }
        settings.validate()?;
        if settings.password_file.is_some() || settings.passfile.is_some() {
            let (location, problem) = ("settings".to_owned(), "a password file is not supported for Redis".to_owned());
            return Err(ConfigError::Conflict { location, problem: problem + ": give the password in the URL" });
        }
        let url = self.url.ok_or_else(|| ConfigError::Missing {
            setting: "the URL",
            remedy: "give redis://user:password@host:6379/0 to the builder".to_owned(),
        })?;
        let name = pool_name(self.replaced.as_ref(), &settings, || url.default_pool_name());
        let manager = RedisManager::new(Connector::new(&settings, &url, &name)?);
        let pool = build(manager, &name, self.replaced.as_ref(), &settings, self.collector)?;
        pool.backend().connector().give_pool_name(pool.name());
        Ok(pool)
    }

    /// Builds a pool from a URL, whose query may contain settings. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL or a setting in it is invalid.
    pub fn from_url(url: &str) -> Result<Pool<RedisManager>, ConfigError> {
        Self::new().url(url).build()
    }
}
