//! Holders, suspected leaks and self-deadlocks.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use poolscope::labels::Phase;
use poolscope::{CheckoutError, PoolBuilder};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{TestPool, eventually, with_deadline};

fn two_connections(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(2).max_overflow(0)
}

#[tokio::test]
async fn holders_are_listed_oldest_first() {
    let test = TestPool::shared("holders_list", two_connections).await;
    let first = test.pool.operation("report").get().await.unwrap();
    let line = line!() + 1;
    let second = test.pool.get().await.unwrap();
    first.batch_execute("SELECT 1").await.unwrap();
    let waiting = tokio::spawn({
        let pool = test.pool.clone();
        async move { pool.operation("login").get().await.map(drop) }
    });
    eventually("one waiter", async || test.pool.waiters().len() == 1).await;

    let holders = test.pool.holders();
    let names: Vec<_> = holders.iter().map(|holder| &*holder.operation).collect();
    assert_eq!(names, ["report", &*format!("{}:{line}", file!())]);
    let sites: Vec<_> = holders.iter().map(|holder| holder.call_site.unwrap().line()).collect();
    assert_eq!(sites, [line - 2, line]);
    assert!(holders[0].age >= holders[1].age);
    assert_eq!((holders[0].queries, holders[1].queries), (1, 0));
    let waiters = test.pool.waiters();
    assert_eq!((&*waiters[0].operation, waiters[0].phase), ("login", Phase::Queue));
    assert_eq!(waiters[0].own_connection, None);
    drop((first, second));
    with_deadline("the waiter is served", waiting).await.unwrap().unwrap();
    assert!(test.pool.holders().is_empty() && test.pool.waiters().is_empty());
}

#[tokio::test]
async fn silent_holder_is_a_suspected_leak_until_return() {
    let settings = |builder: PoolBuilder| two_connections(builder).leak_threshold(Some(Duration::from_millis(150)));
    let test = TestPool::shared("holders_leak", settings).await;
    let suspected = || test.scrape().count("poolscope_suspected_leaks", &[]);
    let forgotten = test.pool.operation("forgets").get().await.unwrap();
    forgotten.batch_execute("SELECT 1").await.unwrap();
    let works = test.pool.operation("works").get().await.unwrap();
    assert_eq!(suspected(), 0);
    // A long query is no leak, although the wire is silent as well.
    let (executed, ()) = tokio::join!(works.batch_execute("SELECT pg_sleep(0.5)"), async {
        eventually("a suspected leak", async || suspected() == 1).await;
    });
    executed.unwrap();
    let leaks: Vec<_> = test.pool.holders().into_iter().filter(|holder| holder.suspected_leak).collect();
    assert_eq!(leaks.len(), 1);
    assert_eq!(&*leaks[0].operation, "forgets");
    // Using it ends the suspicion; silence renews it.
    forgotten.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(suspected(), 0);
    eventually("both, as the other is silent now too", async || suspected() == 2).await;
    drop(forgotten);
    drop(works);
    assert_eq!(suspected(), 0);
}

/// The log of this thread.
#[derive(Clone, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Captures until the guards are dropped.
    pub(crate) fn capture(&self) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
        let subscriber = tracing_subscriber::fmt().with_writer(self.clone()).with_ansi(false).finish();
        // With a single dispatcher, `tracing` decides whether a log line is enabled by the thread that first reaches it,
        // which may be that of another test.
        (tracing::subscriber::set_default(subscriber), tracing::Dispatch::new(tracing_subscriber::registry()))
    }

    /// Returns the lines that contain `word`.
    pub(crate) fn containing(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

impl Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for CapturedLog {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn suspected_leak_is_logged_once_and_once_resolved() {
    let log = CapturedLog::default();
    let _capture = log.capture();
    let settings = |builder: PoolBuilder| two_connections(builder).leak_threshold(Some(Duration::from_millis(50)));
    let test = TestPool::shared("holders_log", settings).await;
    let line = line!() + 1;
    let forgotten = test.pool.operation("forgets").get().await.unwrap();
    eventually("a suspected leak", async || test.scrape().count("poolscope_suspected_leaks", &[]) == 1).await;
    for _ in 0..10 {
        test.scrape();
        drop(test.pool.holders());
    }
    let suspected = log.containing("suspected leak");
    assert_eq!(suspected.len(), 1, "{suspected:?}");
    let site = format!("call_site=\"{}:{line}\"", file!());
    for part in ["WARN", "pool=\"holders_log\"", "operation=\"forgets\"", &site, "held_seconds="] {
        assert!(suspected[0].contains(part), "{part} in {suspected:?}");
    }
    drop(forgotten);
    let over = log.containing("no leak");
    assert_eq!(over.len(), 1, "{over:?}");
    assert!(over[0].contains("INFO") && over[0].contains("was returned") && over[0].contains(&site), "{over:?}");
    drop(test.get().await);
    assert_eq!(log.containing("leak").len(), 2);
}

#[tokio::test]
async fn self_deadlock_is_reported() {
    let settings = |builder: PoolBuilder| two_connections(builder).checkout_timeout(Duration::from_millis(300));
    let test = TestPool::shared("holders_self", settings).await;
    let deadlocks = || test.scrape().count("poolscope_self_deadlocks_total", &[("operation", "inner")]);
    let log = CapturedLog::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let _second_dispatcher = tracing::Dispatch::new(tracing_subscriber::registry());
    let pool = test.pool.clone();
    let other = tokio::spawn({
        let pool = pool.clone();
        async move { pool.operation("other").get().await }
    })
    .await
    .unwrap()
    .unwrap();
    let line = line!() + 2;
    let greedy = tokio::spawn(async move {
        let first = pool.operation("outer").get().await.unwrap();
        let second = pool.operation("inner").get().await;
        drop(first);
        second.map(drop)
    });
    eventually("a self-deadlock", async || deadlocks() == 1).await;
    assert_eq!(test.pool.waiters()[0].own_connection.as_ref().unwrap().call_site.unwrap().line(), line);
    let holders = test.pool.holders();
    let waiting: Vec<_> = holders.iter().filter(|holder| holder.waits_for_own_pool).collect();
    assert_eq!((holders.len(), waiting.len(), &*waiting[0].operation), (2, 1, "outer"), "{holders:?}");
    let lines = log.containing("self-deadlock");
    let sites = [line, line + 1].map(|line| format!("call_site=\"{}:{line}\"", file!()));
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["operation=\"inner\"", "held_operation=\"outer\"", &format!("held_{}", sites[0]), &sites[1]] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    let error = with_deadline("the deadline", greedy).await.unwrap().unwrap_err();
    let CheckoutError::Timeout(report) = &error else { panic!("{error:?}") };
    assert_eq!(&*report.own_connection.as_ref().unwrap().operation, "outer");
    let message = format!("the waiting task itself held one, checked out for outer at {}:{line}", file!());
    assert!(error.to_string().contains(&message), "{error}");

    // Waiting for other tasks only is no self-deadlock.
    let (pool, held) = (test.pool.clone(), other);
    let third = tokio::spawn({
        let pool = pool.clone();
        async move { pool.operation("third").get().await }
    });
    let third = third.await.unwrap().unwrap();
    let waits = tokio::spawn(async move { pool.operation("waits").get().await.map(drop) });
    let error = with_deadline("the deadline", waits).await.unwrap().unwrap_err();
    assert!(!error.to_string().contains("the waiting task itself"), "{error}");
    assert_eq!(deadlocks(), 1);
    drop((held, third));
}

#[tokio::test]
async fn timeout_reports_the_top_three_holders() {
    let settings =
        |builder: PoolBuilder| builder.pool_size(5).max_overflow(0).checkout_timeout(Duration::from_millis(200));
    let test = TestPool::shared("holders_story", settings).await;
    let pool = &test.pool;
    let reports = [pool.operation("report").get().await.unwrap(), pool.operation("report").get().await.unwrap()];
    reports[0].batch_execute("BEGIN").await.unwrap();
    let mail = pool.operation("mail").get().await.unwrap();
    let (login, cron) = (pool.operation("login").get().await.unwrap(), pool.operation("cron").get().await.unwrap());
    let late = pool.operation("late");
    let (_, error) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(1), mail.batch_execute("SELECT pg_sleep(1)")),
        late.get()
    );
    let message = error.unwrap_err().to_string();
    for part in [
        "5 used, 0 idle, 0 being created of 5, 0 waiting",
        "held by report ×2 (oldest ",
        ": 1 idle in transaction, 1 not executing), ",
        "mail ×1 (oldest ",
        ": executing), ",
        "login ×1 (oldest ",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!message.contains("cron"), "{message}");
    reports[0].batch_execute("ROLLBACK").await.unwrap();
    drop((reports, mail, login, cron));
}
