//! The one pool of a process that has no better place to keep it.
//!
//! Each function reads its caller's place before it makes a future, so that operations are named after that place and
//! not after this file.

use std::fmt;
use std::panic::Location;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::config::ConfigError;
use crate::labels::label_enum;
use crate::pool::Pool;
use crate::pool::postgres::{CheckoutError, ConnectError, Connection, PoolBuilder, RunError, UnpooledConnection};
use crate::retry::{Completed, Policy as RetryPolicy, Report};
use crate::telemetry::log::Chain;

/// Why work with a retry policy was not done.
type RetryError<E> = crate::retry::RetryError<E, ConnectError>;

/// Why there is no global pool to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalPoolError {
    /// There is one already, and it stays.
    #[error("there is a global pool already, `{pool}`, {}", Origin { call_site, from_environment: *from_environment })]
    #[non_exhaustive]
    AlreadyInitialised {
        /// Its name.
        pool: String,
        /// Where it was initialised, or first asked for.
        call_site: &'static Location<'static>,
        /// Whether the environment said how to make it, because it was asked for before it was initialised.
        from_environment: bool,
    },
    /// It cannot be built as [`init_connection_pool`] was told.
    #[error(transparent)]
    Settings(ConfigError),
    /// It was not initialised, and the environment does not say how to make one.
    #[error("init_connection_pool was not called, and no global pool can be made from the environment")]
    Environment(#[source] ConfigError),
}

/// How the pool that there is came to be, and what to do instead of making another.
struct Origin<'a> {
    call_site: &'a Location<'a>,
    from_environment: bool,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (how, remedy) = if self.from_environment {
            ("made from the environment for", "call init_connection_pool before anything asks for the pool")
        } else {
            ("initialised at", "initialise it once, and use get_connection_pool from then on")
        };
        write!(f, "{how} {}:{}: {remedy}", self.call_site.file(), self.call_site.line())
    }
}

/// Why something that was asked of the global pool has no value to answer with.
///
/// It is an [`Error`](std::error::Error) where `E` is one, and adds nothing to what either kind says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalError<E> {
    /// There is no global pool.
    #[error(transparent)]
    Pool(#[from] GlobalPoolError),
    /// The pool could not do it.
    #[error(transparent)]
    Failed(E),
}

/// Makes the process's global pool. To be called once, at the start, before anything asks for the pool. Connects to
/// nothing yet.
///
/// The pool is for the life of the process: once it is closed, there is no other.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// poolscope::init_connection_pool(poolscope::Pool::builder().url("postgres://app@localhost/shop").pool_size(5))?;
///
/// // Anywhere else in the process:
/// let orders = poolscope::execute_with_pool(async |connection| connection.query("SELECT id FROM orders", &[]).await).await?;
/// # drop(orders);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If there is one already, or if the pool cannot be built; in the latter case another attempt may be made.
#[track_caller]
pub fn init_connection_pool(builder: PoolBuilder) -> Result<Pool, GlobalPoolError> {
    GLOBAL.init(Location::caller(), builder)
}

/// The global pool: the one that [`init_connection_pool`] made, or else one as the environment says (see
/// [`Pool::from_env`]), which is made once and stays. Connects to nothing yet.
///
/// # Errors
///
/// If there is none and the environment does not say how to make one. The next call tries again.
#[track_caller]
pub fn get_connection_pool() -> Result<Pool, GlobalPoolError> {
    GLOBAL.pool(Location::caller(), Pool::from_env).cloned()
}

/// A connection of the global pool, for the operation that is named after the caller's file and line. See [`Pool::get`].
///
/// # Errors
///
/// If there is no global pool, or if the checkout fails.
///
/// # Cancel safety
///
/// As [`Pool::get`].
#[track_caller]
pub fn get_pooled_connection() -> impl Future<Output = Result<Connection, GlobalError<CheckoutError>>> + Send {
    let call_site = Location::caller();
    async move { GLOBAL.pool(call_site, Pool::from_env)?.get_at(call_site).await.map_err(GlobalError::Failed) }
}

/// Checks out a connection of the global pool, gives it to `work`, and returns it; the operation is named after the
/// caller's file and line. See [`Pool::run`].
///
/// # Errors
///
/// If there is no global pool, if the checkout fails, or if `work` does.
///
/// # Cancel safety
///
/// Dropping the future drops `work`'s, and returns the connection as it is.
#[track_caller]
pub fn execute_with_pool<T, E, W>(work: W) -> impl Future<Output = Result<T, GlobalError<RunError<E>>>> + use<T, E, W>
where
    W: AsyncFnOnce(&mut Connection) -> Result<T, E>,
{
    let call_site = Location::caller();
    async move { GLOBAL.pool(call_site, Pool::from_env)?.run_at(call_site, work).await.map_err(GlobalError::Failed) }
}

/// Checks out a connection of the global pool, gives it to `work`, and returns it; again if that fails and is known to be
/// safe to repeat, see [`retry`](crate::retry). The operation is named after the caller's file and line, and counts as one
/// that is not idempotent; for one that is, there is [`Operation::idempotent`](crate::pool::Operation::idempotent).
///
/// ```no_run
/// # async fn example() {
/// use poolscope::{RetryPolicy, execute_with_pool_connection};
///
/// let answer = execute_with_pool_connection(RetryPolicy::default(), async |connection| {
///     connection.execute("UPDATE products SET stock = stock - 1 WHERE id = 1", &[]).await
/// })
/// .await;
/// match answer.result() {
///     Some(rows) => println!("{rows} rows after {} attempts", answer.attempts()),
///     None => println!("{}: {}", answer.status().as_str(), answer.message().unwrap_or_default()),
/// }
/// # }
/// ```
///
/// # Cancel safety
///
/// As [`Retrying::run`](crate::retry::Retrying::run).
#[track_caller]
pub fn execute_with_pool_connection<T, E, W>(policy: RetryPolicy, work: W) -> impl Future<Output = Answer<T, E>>
where
    W: AsyncFnOnce(&mut Connection) -> Result<T, E> + Clone,
{
    let call_site = Location::caller();
    async move {
        let outcome = match GLOBAL.pool(call_site, Pool::from_env) {
            Ok(pool) => {
                let retrying = pool.operation_at(call_site).retry(policy);
                retrying.run_at(call_site, work).await.map_err(GlobalError::Failed)
            }
            Err(error) => Err(GlobalError::Pool(error)),
        };
        Answer { outcome }
    }
}

/// A connection outside the global pool, to the same database by the same settings, counted by the pool under the
/// caller's file and line. See [`Pool::connect_unpooled`].
///
/// # Errors
///
/// If there is no global pool, or if the connection cannot be established.
///
/// # Cancel safety
///
/// As [`Pool::connect_unpooled`].
#[track_caller]
pub fn get_postgres_connection() -> impl Future<Output = Result<UnpooledConnection, GlobalError<ConnectError>>> + Send {
    let call_site = Location::caller();
    async move {
        let pool = GLOBAL.pool(call_site, Pool::from_env)?;
        pool.connect_unpooled_at(call_site).await.map_err(GlobalError::Failed)
    }
}

label_enum! {
    /// How [`execute_with_pool_connection`] ended.
    AnswerStatus {
        /// The work was done.
        Success => "success",
        /// It was not.
        Error => "error",
    }
}

/// What [`execute_with_pool_connection`] came to: a status, the result or a message, and what it took.
#[derive(Debug)]
#[must_use = "it may be an error"]
pub struct Answer<T, E> {
    outcome: Result<Completed<T>, GlobalError<RetryError<E>>>,
}

impl<T, E> Answer<T, E> {
    /// Whether the work was done.
    #[must_use]
    pub const fn status(&self) -> AnswerStatus {
        match self.outcome {
            Ok(_) => AnswerStatus::Success,
            Err(_) => AnswerStatus::Error,
        }
    }

    /// What the work answered, if it was done.
    #[must_use]
    pub const fn result(&self) -> Option<&T> {
        match &self.outcome {
            Ok(completed) => Some(&completed.value),
            Err(_) => None,
        }
    }

    /// Why the work was not done, if it was not, on one line: why it was not tried (again), and what failed last with all
    /// its causes.
    #[must_use]
    pub fn message(&self) -> Option<String>
    where
        E: std::error::Error + 'static,
    {
        self.outcome.as_ref().err().map(|error| Chain(error).to_string())
    }

    /// How often it was tried; zero if there was no pool.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.report().attempts
    }

    /// How often it was tried, and where the time went.
    #[must_use]
    pub fn report(&self) -> Report {
        match &self.outcome {
            Ok(completed) => completed.report,
            Err(GlobalError::Failed(error)) => *error.report(),
            Err(GlobalError::Pool(_)) => Report::default(),
        }
    }

    /// The result, or the error.
    ///
    /// # Errors
    ///
    /// If there was no pool, or the work was not done.
    pub fn into_result(self) -> Result<T, GlobalError<RetryError<E>>> {
        self.outcome.map(|completed| completed.value)
    }
}

static GLOBAL: Global = Global::new();

/// A place for a pool that is made once.
#[derive(Debug)]
struct Global {
    made: OnceLock<Made>,
    /// Held while a pool is made, so that nobody else makes one.
    making: Mutex<()>,
}

#[derive(Debug)]
struct Made {
    pool: Pool,
    /// Where it was initialised, or first asked for.
    call_site: &'static Location<'static>,
    from_environment: bool,
}

impl Global {
    const fn new() -> Self {
        Self { made: OnceLock::new(), making: Mutex::new(()) }
    }

    fn init(&self, call_site: &'static Location<'static>, builder: PoolBuilder) -> Result<Pool, GlobalPoolError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Made { pool, call_site, from_environment }) = self.made.get() {
            let (pool, from_environment) = (pool.name().to_owned(), *from_environment);
            return Err(GlobalPoolError::AlreadyInitialised { pool, call_site, from_environment });
        }
        let pool = builder.build().map_err(GlobalPoolError::Settings)?;
        Ok(self.made.get_or_init(|| Made { pool, call_site, from_environment: false }).pool.clone())
    }

    /// The pool that there is, or the one that `make` makes.
    fn pool(
        &self,
        call_site: &'static Location<'static>,
        make: impl FnOnce() -> Result<Pool, ConfigError>,
    ) -> Result<&Pool, GlobalPoolError> {
        if let Some(made) = self.made.get() {
            return Ok(&made.pool);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have made one in between.
        if let Some(made) = self.made.get() {
            return Ok(&made.pool);
        }
        let pool = make().map_err(GlobalPoolError::Environment)?;
        Ok(&self.made.get_or_init(|| Made { pool, call_site, from_environment: true }).pool)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::{Collector, Settings};

    fn builder() -> PoolBuilder {
        Pool::builder().url("postgres://app@localhost/shop").name("shop").collector(Collector::new())
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Pool, ConfigError> {
        let variables = variables.iter().map(|(variable, value)| ((*variable).to_owned(), (*value).to_owned()));
        let settings = Settings::default().apply_env(variables)?;
        Pool::builder().settings(settings).collector(Collector::new()).build()
    }

    fn same(one: &Pool, other: &Pool) -> bool {
        std::ptr::eq(one.backend(), other.backend())
    }

    fn nothing() -> Result<Pool, ConfigError> {
        panic!("there is one")
    }

    #[test]
    fn the_pool_is_the_one_that_was_initialised() {
        let global = Global::new();
        let pool = global.init(Location::caller(), builder()).unwrap();
        assert!(same(&pool, global.pool(Location::caller(), nothing).unwrap()));
    }

    #[test]
    fn a_second_pool_is_refused_with_the_place_of_the_first() {
        let global = Global::new();
        let first = Location::caller();
        let pool = global.init(first, builder()).unwrap();
        let error = global.init(Location::caller(), builder().name("another")).unwrap_err();
        let told = format!(
            "there is a global pool already, `shop`, initialised at src/global.rs:{}: \
             initialise it once, and use get_connection_pool from then on",
            first.line()
        );
        assert_eq!(error.to_string(), told);
        assert!(same(&pool, global.pool(Location::caller(), nothing).unwrap()));
    }

    #[test]
    fn a_pool_that_was_asked_for_first_is_the_environments_and_stays() {
        let global = Global::new();
        let url = ("POOLSCOPE_DATABASE_URL", "postgres://app@localhost/shop");
        let first = Location::caller();
        let pool = global.pool(first, || environment(&[url, ("POOLSCOPE_NAME", "env")])).unwrap();
        assert!(same(pool, global.pool(Location::caller(), nothing).unwrap()));
        let error = global.init(Location::caller(), builder()).unwrap_err();
        let told = format!(
            "there is a global pool already, `env`, made from the environment for src/global.rs:{}: \
             call init_connection_pool before anything asks for the pool",
            first.line()
        );
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn a_failure_is_not_remembered() {
        let global = Global::new();
        let error = global.pool(Location::caller(), || environment(&[])).unwrap_err();
        assert!(error.to_string().contains("init_connection_pool was not called"), "{error}");
        assert!(error.source().unwrap().to_string().contains("POOLSCOPE_DATABASE_URL"), "{error:?}");
        let error = global.init(Location::caller(), builder().pool_size(0)).unwrap_err();
        assert!(error.to_string().contains("invalid pool_size: "), "{error}");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            global.pool(Location::caller(), || panic!("as the test wants it")).map(drop)
        }));
        assert!(panicked.is_err());
        assert_eq!(global.init(Location::caller(), builder()).unwrap().name(), "shop");
    }

    #[test]
    fn threads_that_ask_together_get_one_pool() {
        const THREADS: usize = 8;
        for _ in 0..50 {
            let (global, barrier, makings) = (Global::new(), Barrier::new(THREADS), AtomicUsize::new(0));
            let ask = |thread: usize| {
                barrier.wait();
                if thread == 0 {
                    // The one that initialises comes first or is refused.
                    drop(global.init(Location::caller(), builder()));
                }
                let make = || {
                    makings.fetch_add(1, SeqCst);
                    builder().build()
                };
                global.pool(Location::caller(), make).cloned().unwrap()
            };
            let pools: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || ask(thread))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(pools.iter().all(|pool| same(pool, &pools[0])));
            assert!(makings.load(SeqCst) <= 1);
        }
    }

    #[tokio::test]
    async fn an_answer_has_a_status_the_result_or_a_message_and_the_attempts() {
        let global = Global::new();
        let pool =
            global.init(Location::caller(), builder().connect_timeout(std::time::Duration::from_millis(1))).unwrap();
        pool.close().await;
        let retrying = pool.operation("closed").retry(RetryPolicy::default());
        let outcome = retrying.run_at(Location::caller(), async |_| Ok::<_, std::fmt::Error>(1)).await;
        let answer = Answer { outcome: outcome.map_err(GlobalError::Failed) };
        assert_eq!((answer.status().as_str(), answer.result(), answer.attempts()), ("error", None, 1));
        let message = answer.message().unwrap();
        assert!(message.starts_with("operation `closed` failed after 1 attempt (permanent;"), "{message}");
        assert!(message.ends_with(": pool `shop` is closed"), "{message}");
        assert!(matches!(answer.into_result(), Err(GlobalError::Failed(_))));

        let none: Answer<(), std::fmt::Error> =
            Answer { outcome: Err(Global::new().pool(Location::caller(), || environment(&[])).unwrap_err().into()) };
        assert_eq!((none.attempts(), none.report()), (0, Report::default()));
        assert!(none.message().unwrap().contains("database_url is not set"));

        let completed = Completed { value: 7, report: Report { attempts: 2, ..Report::default() } };
        let done: Answer<i32, std::fmt::Error> = Answer { outcome: Ok(completed) };
        assert_eq!((done.status().as_str(), done.result(), done.attempts()), ("success", Some(&7), 2));
        assert_eq!(done.message(), None);
        assert_eq!(done.into_result().unwrap(), 7);
    }

    #[test]
    fn an_error_says_what_either_kind_says() {
        let closed = || CheckoutError::Closed { pool: "shop".into() };
        let failed = GlobalError::Failed(closed());
        assert_eq!((failed.to_string(), failed.source().is_none()), (closed().to_string(), true));
        let none: GlobalError<CheckoutError> =
            Global::new().pool(Location::caller(), || environment(&[])).unwrap_err().into();
        assert!(none.source().unwrap().to_string().contains("database_url is not set"), "{none:?}");
        // What an operation fails with need not be an `Error`.
        let boxed: GlobalError<RunError<Box<dyn Error>>> = GlobalError::Failed(RunError::Operation("no".into()));
        assert_eq!(boxed.to_string(), "no");
    }
}
