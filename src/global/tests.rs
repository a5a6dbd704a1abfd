use std::error::Error;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::cell::PoolCell;
use super::*;
use crate::config::ConfigError;
use crate::retry::{Completed, Report};
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

fn not_called() -> Result<Pool, ConfigError> {
    panic!("the pool exists")
}

#[test]
fn initialised_pool_is_returned() {
    let global = PoolCell::new();
    let pool = global.init(Location::caller(), builder()).unwrap();
    assert!(same(&pool, global.get_or_create(Location::caller(), not_called).unwrap()));
}

#[test]
fn second_init_error_names_the_first_call_site() {
    let global = PoolCell::new();
    let first = Location::caller();
    let pool = global.init(first, builder()).unwrap();
    let error = global.init(Location::caller(), builder().name("another")).unwrap_err();
    let expected = format!(
        "the global pool `shop` exists already, initialised at src/global/tests.rs:{}: \
         initialise it once, then call get_connection_pool",
        first.line()
    );
    assert_eq!(error.to_string(), expected);
    assert!(same(&pool, global.get_or_create(Location::caller(), not_called).unwrap()));
}

#[test]
fn first_use_creates_the_pool_from_environment() {
    let global = PoolCell::new();
    let url = ("POOLSCOPE_DATABASE_URL", "postgres://app@localhost/shop");
    let first = Location::caller();
    let pool = global.get_or_create(first, || environment(&[url, ("POOLSCOPE_NAME", "env")])).unwrap();
    assert!(same(pool, global.get_or_create(Location::caller(), not_called).unwrap()));
    let error = global.init(Location::caller(), builder()).unwrap_err();
    let expected = format!(
        "the global pool `env` exists already, created from the environment for src/global/tests.rs:{}: \
         call init_connection_pool before the pool is first used",
        first.line()
    );
    assert_eq!(error.to_string(), expected);
}

#[test]
fn failed_creation_is_retried() {
    let global = PoolCell::new();
    let error = global.get_or_create(Location::caller(), || environment(&[])).unwrap_err();
    let expected = "no global pool: init_connection_pool was not called, and the environment does not define one: \
                    database_url is not set: ";
    assert!(error.to_string().starts_with(expected) && error.source().is_none(), "{error:?}");
    assert!(error.to_string().contains("POOLSCOPE_DATABASE_URL"), "{error}");
    let error = global.init(Location::caller(), builder().pool_size(0)).unwrap_err();
    assert!(error.to_string().contains("invalid pool_size: "), "{error}");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        global.get_or_create(Location::caller(), || panic!("intended")).map(drop)
    }));
    assert!(panicked.is_err());
    assert_eq!(global.init(Location::caller(), builder()).unwrap().name(), "shop");
}

#[test]
fn concurrent_threads_get_one_pool() {
    const THREADS: usize = 8;
    for _ in 0..50 {
        let (global, barrier, creations) = (PoolCell::new(), Barrier::new(THREADS), AtomicUsize::new(0));
        let get = |thread: usize| {
            barrier.wait();
            if thread == 0 {
                // This thread initialises the pool, or fails if another came first.
                drop(global.init(Location::caller(), builder()));
            }
            let create = || {
                creations.fetch_add(1, SeqCst);
                builder().build()
            };
            global.get_or_create(Location::caller(), create).cloned().unwrap()
        };
        let pools: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || get(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(pools.iter().all(|pool| same(pool, &pools[0])));
        assert!(creations.load(SeqCst) <= 1);
    }
}

#[tokio::test]
async fn execution_result_has_status_value_and_message() {
    let global = PoolCell::new();
    let pool = global.init(Location::caller(), builder().connect_timeout(std::time::Duration::from_millis(1))).unwrap();
    pool.close().await;
    let retrying = pool.operation("closed").retry(RetryPolicy::default());
    let outcome = retrying.run_at(Location::caller(), async |_| Ok::<_, std::fmt::Error>(1)).await;
    let result = ExecutionResult { outcome: outcome.map_err(GlobalError::Failed) };
    assert_eq!((result.status().as_str(), result.result(), result.attempts()), ("error", None, 1));
    let message = result.message().unwrap();
    assert!(message.starts_with("operation `closed` failed after 1 attempt (permanent;"), "{message}");
    assert!(message.ends_with(": pool `shop` is closed"), "{message}");
    assert!(matches!(result.into_result(), Err(GlobalError::Failed(_))));

    let none: ExecutionResult<(), std::fmt::Error> = ExecutionResult {
        outcome: Err(PoolCell::new().get_or_create(Location::caller(), || environment(&[])).unwrap_err().into()),
    };
    assert_eq!((none.attempts(), none.report()), (0, Report::default()));
    assert!(none.message().unwrap().contains("database_url is not set"));

    let completed = Completed { value: 7, report: Report { attempts: 2, ..Report::default() } };
    let done: ExecutionResult<i32, std::fmt::Error> = ExecutionResult { outcome: Ok(completed) };
    assert_eq!((done.status().as_str(), done.result(), done.attempts()), ("success", Some(&7), 2));
    assert_eq!(done.message(), None);
    assert_eq!(done.into_result().unwrap(), 7);
}

#[test]
fn error_displays_the_contained_error() {
    let closed = || CheckoutError::Closed { pool: "shop".into() };
    let failed = GlobalError::Failed(closed());
    assert_eq!((failed.to_string(), failed.source().is_none()), (closed().to_string(), true));
    let none: GlobalError<CheckoutError> =
        PoolCell::new().get_or_create(Location::caller(), || environment(&[])).unwrap_err().into();
    assert!(none.to_string().contains("database_url is not set") && none.source().is_none(), "{none:?}");
    // The error of an operation may be any type.
    let boxed: GlobalError<RunError<Box<dyn Error>>> = GlobalError::Failed(RunError::Operation("no".into()));
    assert_eq!(boxed.to_string(), "no");
}
