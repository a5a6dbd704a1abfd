//! The builder of a PostgreSQL pool.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use super::super::builder::{build, pool_name, setters};
use super::super::pool::Pool;
use super::client::Client;
use super::hook::{ConnectionHook, Hooks};
use super::manager::PostgresManager;
use super::password::{PasswordProvider, Secret};
use crate::config::{ConfigError, Settings};
use crate::telemetry::Collector;

/// Builds a [`Pool`]. Settings that are not set have their default, see [`Settings`]; of two values, the later one
/// counts.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder {
    settings: Settings,
    /// The error of a URL, which `build` returns.
    url_error: Option<ConfigError>,
    collector: Option<Collector>,
    password_provider: Option<PasswordProvider>,
    replaced: Option<Pool>,
    hooks: Hooks,
}

impl PoolBuilder {
    /// Replaces all settings, including those set before.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets the server to connect to, as a `postgres://` URL. Settings in the URL's query count as set by this call.
    pub fn url(mut self, url: &str) -> Self {
        if let Err(error) = self.settings.set("database_url", url) {
            self.url_error.get_or_insert(error);
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

    /// Sets the `application_name` that the server shows. Default: the URL's, or else the
    /// program's name.
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.settings.application_name = Some(name.into());
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
        /// [`min_idle`](crate::Settings::min_idle) are idle. An [`exporter`](crate::exporter), [`Pool::watch`] or a
        /// scrape applies it. Default `None`: idle connections stay open.
        idle_timeout: Option<Duration>,
        /// Sets the timeout of a whole checkout, from its first poll. Default 30 s.
        checkout_timeout: Duration,
        /// Sets the age at which a connection is replaced at its next checkout. The age is reduced at random by up to a
        /// tenth, so that connections created together are not replaced together. Default 1 h; `None` for never.
        recycle_after: Option<Duration>,
        /// Sets whether a connection is pinged before it is handed out. Default on.
        pre_ping: bool,
        /// Sets for how long after the server's last message a connection is not pinged. Default 500 ms; zero to ping
        /// at every checkout.
        pre_ping_idle: Duration,
        /// Sets the timeout of a ping. Default 5 s.
        ping_timeout: Duration,
        /// Sets the timeout of connecting, including TLS and authentication. Default 5 s.
        connect_timeout: Duration,
        /// Sets the idle time after which TCP probes whether the server is alive. `None` for never.
        tcp_keepalive: Option<Duration>,
        /// Sets for how long sent data may stay unacknowledged before TCP closes the connection. `None` for the
        /// operating system's default.
        tcp_user_timeout: Option<Duration>,
        /// Sets the time limit of resetting a connection that was returned dirty, after which it is closed. Default 1 s.
        clean_timeout: Duration,
        /// Sets how long a connection keeps its place after it was closed while the server executed its query. Default
        /// 30 s.
        close_timeout: Duration,
        /// Sets whether the session state (settings, advisory locks, LISTEN, temporary tables) is reset when a
        /// connection is returned. Costs a round trip for each use. Default off.
        reset_session: bool,
        /// Sets for how long a connection is held without traffic before its holder is a suspected leak. Default 60 s;
        /// `None` for never.
        leak_threshold: Option<Duration>,
        /// Sets the duration from which on a successful checkout is logged. Default 2 s; `None` for never.
        slow_checkout_threshold: Option<Duration>,
        /// Sets the duration from which on a query is logged, by its summary. Default `None`: never.
        slow_query_threshold: Option<Duration>,
        /// Sets whether the wire protocol is observed. Default on.
        read_wire: bool,
        /// Sets the limit, in KiB, of what the server sends from the end of one answer to the end of the next, beyond which
        /// the connection is closed. Default 0: no limit.
        max_answer_kib: usize,
        /// Sets whether `prepare_cached` keeps statements. Default on. Off for a pooler in transaction mode.
        cache_statements: bool,
        /// Sets whether the spans of queries have the query text, with `?` for each literal. Default off.
        trace_query_text: bool,
        /// Sets whether a checkout that needs a new connection fails at once, rather than waits, while connecting is
        /// known to fail. Default on.
        fail_fast: bool,
        /// Sets the number of retries per second that the pool's operations may always make in total. Default 10.
        retry_floor: usize,
        /// Sets the number of further retries for each hundred operations with a retry policy. Default 20.
        retry_percent: usize,
        /// Sets the wait that 99 % of checkouts are to stay below with `poolscope_recommended_size` connections. Default
        /// 10 ms.
        wait_target: Duration,
    }

    /// Sets the file that contains the password, in place of the URL's. It is read again after it has changed.
    pub fn password_file(mut self, path: impl Into<String>) -> Self {
        self.settings.password_file = Some(path.into());
        self
    }

    /// Sets a password file in libpq's format, in place of the URL's password. It is read again after it has changed.
    pub fn passfile(mut self, path: impl Into<String>) -> Self {
        self.settings.passfile = Some(path.into());
        self
    }

    /// Sets a callback that returns the password of each new connection, in place of the URL's: for tokens that expire.
    ///
    /// It is called whenever the pool connects, within `connect_timeout`, and also for connections outside the pool. Its
    /// answer is not cached. If it fails, so does connecting, like that to a server that is down: checkouts fail or wait,
    /// by `fail_fast`, and it is called again after a pause.
    ///
    /// ```no_run
    /// # async fn token() -> Result<String, std::io::Error> { unimplemented!() }
    /// # fn example() -> Result<(), poolscope::ConfigError> {
    /// let pool = poolscope::Pool::builder()
    ///     .url("postgres://app@db.example/shop?sslmode=verify-full")
    ///     .password_provider(|| async { token().await.map(poolscope::Secret::from) })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn password_provider<F, Fut, E>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.password_provider = Some(PasswordProvider::new(provider));
        self
    }

    /// Sets a function that is called with each new connection before its first use, as for `SET` or to load types. It
    /// replaces one that was set before.
    ///
    /// `connect_timeout` covers connecting and the hook together. If it fails, so does connecting: the connection is
    /// closed, the error is [`ConnectError::AfterConnect`](crate::ConnectError::AfterConnect), and it is counted in
    /// `poolscope_connection_errors_total` with the code `hook`. It has also failed if it leaves a transaction open, or has
    /// dropped a query before its end, as far as `read_wire` shows this. A [`CancelToken`](crate::CancelToken) that it
    /// creates has no effect after it. It is called for connections outside the pool, too. The
    /// session state that it sets is not restored after `reset_session`; put such settings into the URL's `options`.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), poolscope::ConfigError> {
    /// let pool = poolscope::Pool::builder()
    ///     .url("postgres://app@localhost/shop")
    ///     .after_connect(|client| Box::pin(async move { client.batch_execute("SET jit = off").await }))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn after_connect<F, E>(mut self, hook: F) -> Self
    where
        F: for<'a> Fn(&'a mut Client) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.hooks.after_connect = Some(ConnectionHook::new(hook));
        self
    }

    /// Sets a function that is called with each connection before it is handed out, new ones included, as to set the
    /// tenant of a session or to check what a ping does not. It replaces one that was set before.
    ///
    /// It counts as part of the checkout: `checkout_timeout` bounds it, and its time is that of the phase `hook`. If it
    /// fails, the connection is closed (`hook_failed`) and the checkout goes on with the next idle one, or connects. If it
    /// fails for a new connection, so does the checkout, with
    /// [`ConnectError::BeforeCheckout`](crate::ConnectError::BeforeCheckout), as after a failure to connect. Each failure is
    /// counted in `poolscope_connection_errors_total` with the phase `hook`. It has also failed if it leaves a transaction
    /// open, or has dropped a query before its end, as far as `read_wire` shows this. If the checkout ends meanwhile, the
    /// connection is closed (`hook_abandoned`). A connection whose checkout ended while it was opened goes to the pool, and
    /// the hook is called again when it is handed out. It is not called for connections outside the pool.
    ///
    /// Each query that it makes is a round trip that each checkout waits for, and no checkout takes the fast path.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), poolscope::ConfigError> {
    /// let pool = poolscope::Pool::builder()
    ///     .url("postgres://app@localhost/shop")
    ///     .before_checkout(|client| Box::pin(async move { client.batch_execute("RESET ROLE").await }))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn before_checkout<F, E>(mut self, hook: F) -> Self
    where
        F: for<'a> Fn(&'a mut Client) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.hooks.before_checkout = Some(ConnectionHook::new(hook));
        self
    }

    /// Sets the collector that counts the pool, instead of [`Collector::global`].
    pub fn collector(mut self, collector: Collector) -> Self {
        self.collector = Some(collector);
        self
    }

    /// Lets the pool replace `old` without a gap: it takes over its name, whatever [`name`](Self::name) is.
    ///
    /// While both exist, the metrics of the name are the sum of both pools, limits included; afterwards, the counters of
    /// `old` stay in them, so no counter decreases. Build the new pool, give it to those that use the old one, and
    /// [close](Pool::close) that. Both must have the same collector, and a pool can be replaced by one other at a time;
    /// otherwise the name is as without this call.
    ///
    /// ```no_run
    /// # async fn example(mut pool: poolscope::Pool) -> Result<(), poolscope::ConfigError> {
    /// let new = poolscope::Pool::builder().url("postgres://app@db2.example/shop").replaces(&pool).build()?;
    /// let old = std::mem::replace(&mut pool, new);
    /// old.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn replaces(mut self, old: &Pool) -> Self {
        self.replaced = Some(old.clone());
        self
    }

    /// Builds the pool. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range, the URL is missing or invalid, more than one source of passwords is
    /// given, or the file of a certificate or password cannot be read.
    pub fn build(self) -> Result<Pool, ConfigError> {
        let settings = self.settings;
        if let Some(error) = self.url_error {
            return Err(error);
        }
        settings.validate()?;
        let url = settings.require_database_url()?;
        let name = pool_name(self.replaced.as_ref(), &settings, || url.default_pool_name());
        let manager = PostgresManager::new(&settings, url, self.password_provider, self.hooks, &name)?;
        let pool = build(manager, &name, self.replaced.as_ref(), &settings, self.collector)?;
        pool.backend().connector().give_pool_name(pool.name());
        Ok(pool)
    }
}

impl Pool {
    /// Returns a builder.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }

    /// Creates a pool from a `postgres://` URL, whose query may contain any of the settings. Does not connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL or a setting in it is invalid.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::builder().settings(Settings::from_url(url)?).build()
    }

    /// Creates a pool from environment variables: `POOLSCOPE_DATABASE_URL`, `POOLSCOPE_POOL_SIZE` and so on. Does not
    /// connect yet.
    ///
    /// # Errors
    ///
    /// Returns an error if a variable is invalid, or the one with the URL is missing.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::builder().settings(Settings::from_env()?).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_value_counts_also_from_the_url() {
        let settings = |builder: PoolBuilder| builder.settings.pool_size;
        assert_eq!(settings(PoolBuilder::default().url("postgres://h/d?pool_size=3").pool_size(5)), 5);
        assert_eq!(settings(PoolBuilder::default().pool_size(5).url("postgres://h/d?pool_size=3")), 3);
    }

    #[test]
    fn invalid_url_is_reported_by_build() {
        let error = PoolBuilder::default().url("mysql://h/d").pool_size(3).build().unwrap_err();
        assert!(error.to_string().contains("postgres://"), "{error}");
        let error = PoolBuilder::default().build().unwrap_err();
        assert!(error.to_string().contains("database_url is not set"), "{error}");
    }

    #[test]
    fn log_has_the_final_name_of_the_pool() {
        let collector = Collector::new();
        let build = || {
            let builder = PoolBuilder::default().url("postgres://u@h/d").name("shop").collector(collector.clone());
            builder.build().unwrap()
        };
        let (first, second) = (build(), build());
        for (pool, name) in [(&first, "shop"), (&second, "shop-2")] {
            assert_eq!(pool.name(), name);
            assert_eq!(pool.backend().connector().losses().pool().as_str(), name);
        }
    }

    #[test]
    fn debug_omits_the_password() {
        let shown = format!("{:?}", PoolBuilder::default().url("postgres://u:hunter2@h/d"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
