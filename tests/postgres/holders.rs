//! Who holds the pool, who seems to have forgotten that, and who waits for himself.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use poolscope::labels::Phase;
use poolscope::{CheckoutError, PoolBuilder};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Counted, eventually, patiently};

fn small(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(2).max_overflow(0)
}

#[tokio::test]
async fn holders_are_listed_oldest_first() {
    let counted = Counted::shared("holders_list", small).await;
    let first = counted.pool.operation("report").get().await.unwrap();
    let line = line!() + 1;
    let second = counted.pool.get().await.unwrap();
    first.batch_execute("SELECT 1").await.unwrap();
    let waiting = tokio::spawn({
        let pool = counted.pool.clone();
        async move { pool.operation("login").get().await.map(drop) }
    });
    eventually("the waiter", async || counted.pool.waiters().len() == 1).await;

    let holders = counted.pool.holders();
    let names: Vec<_> = holders.iter().map(|holder| &*holder.operation).collect();
    assert_eq!(names, ["report", &*format!("{}:{line}", file!())]);
    let sites: Vec<_> = holders.iter().map(|holder| holder.call_site.unwrap().line()).collect();
    assert_eq!(sites, [line - 2, line]);
    assert!(holders[0].age >= holders[1].age);
    assert_eq!((holders[0].queries, holders[1].queries), (1, 0));
    let waiters = counted.pool.waiters();
    assert_eq!((&*waiters[0].operation, waiters[0].phase), ("login", Phase::Queue));
    assert_eq!(waiters[0].own, None);
    drop((first, second));
    patiently("the waiter's turn", waiting).await.unwrap().unwrap();
    assert!(counted.pool.holders().is_empty() && counted.pool.waiters().is_empty());
}

#[tokio::test]
async fn silent_holder_is_a_suspected_leak_until_return() {
    let settings = |builder: PoolBuilder| small(builder).leak_threshold(Some(Duration::from_millis(150)));
    let counted = Counted::shared("holders_leak", settings).await;
    let suspected = || counted.scrape().count("poolscope_suspected_leaks", &[]);
    let forgotten = counted.pool.operation("forgets").get().await.unwrap();
    forgotten.batch_execute("SELECT 1").await.unwrap();
    let works = counted.pool.operation("works").get().await.unwrap();
    assert_eq!(suspected(), 0);
    // A long query is none, though the wire is as silent.
    let (executed, ()) = tokio::join!(works.batch_execute("SELECT pg_sleep(0.5)"), async {
        eventually("the leak", async || suspected() == 1).await;
    });
    executed.unwrap();
    let leaks: Vec<_> = counted.pool.holders().into_iter().filter(|holder| holder.suspected_leak).collect();
    assert_eq!(leaks.len(), 1);
    assert_eq!(&*leaks[0].operation, "forgets");
    // Used again, it is none any more; silent again, it is.
    forgotten.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(suspected(), 0);
    eventually("both, since the other is silent now too", async || suspected() == 2).await;
    drop(forgotten);
    drop(works);
    assert_eq!(suspected(), 0);
}

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Those that say this.
    fn of(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn suspected_leak_is_logged_once_and_once_resolved() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let settings = |builder: PoolBuilder| small(builder).leak_threshold(Some(Duration::from_millis(50)));
    let counted = Counted::shared("holders_log", settings).await;
    let line = line!() + 1;
    let forgotten = counted.pool.operation("forgets").get().await.unwrap();
    eventually("the leak", async || counted.scrape().count("poolscope_suspected_leaks", &[]) == 1).await;
    for _ in 0..10 {
        counted.scrape();
        drop(counted.pool.holders());
    }
    let suspected = lines.of("suspected leak");
    assert_eq!(suspected.len(), 1, "{suspected:?}");
    let site = format!("call_site=\"{}:{line}\"", file!());
    for part in ["WARN", "pool=\"holders_log\"", "operation=\"forgets\"", &site, "held_seconds="] {
        assert!(suspected[0].contains(part), "{part} in {suspected:?}");
    }
    drop(forgotten);
    let over = lines.of("no leak");
    assert_eq!(over.len(), 1, "{over:?}");
    assert!(over[0].contains("INFO") && over[0].contains("came back") && over[0].contains(&site), "{over:?}");
    drop(counted.get().await);
    assert_eq!(lines.of("leak").len(), 2);
}

#[tokio::test]
async fn self_deadlock_is_reported() {
    let settings = |builder: PoolBuilder| small(builder).checkout_timeout(Duration::from_millis(300));
    let counted = Counted::shared("holders_self", settings).await;
    let counts = || counted.scrape().count("poolscope_self_deadlocks_total", &[]);
    let pool = counted.pool.clone();
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
    eventually("the deadlock", async || counts() == 1).await;
    assert_eq!(counted.pool.waiters()[0].own.as_ref().unwrap().call_site.unwrap().line(), line);
    let error = patiently("the deadline", greedy).await.unwrap().unwrap_err();
    let CheckoutError::Timeout(report) = &error else { panic!("{error:?}") };
    assert_eq!(&*report.own.as_ref().unwrap().operation, "outer");
    let told = format!("this very task held one itself, checked out for outer at {}:{line}", file!());
    assert!(error.to_string().contains(&told), "{error}");

    // Who waits for others only is none.
    let (pool, held) = (counted.pool.clone(), other);
    let third = tokio::spawn({
        let pool = pool.clone();
        async move { pool.operation("third").get().await }
    });
    let third = third.await.unwrap().unwrap();
    let waits = tokio::spawn(async move { pool.operation("waits").get().await.map(drop) });
    let error = patiently("the deadline", waits).await.unwrap().unwrap_err();
    assert!(!error.to_string().contains("this very task"), "{error}");
    assert_eq!(counts(), 1);
    drop((held, third));
}

#[tokio::test]
async fn timeout_reports_the_top_three_holders() {
    let settings =
        |builder: PoolBuilder| builder.pool_size(5).max_overflow(0).checkout_timeout(Duration::from_millis(200));
    let counted = Counted::shared("holders_story", settings).await;
    let pool = &counted.pool;
    let reports = [pool.operation("report").get().await.unwrap(), pool.operation("report").get().await.unwrap()];
    reports[0].batch_execute("BEGIN").await.unwrap();
    let mail = pool.operation("mail").get().await.unwrap();
    let (login, cron) = (pool.operation("login").get().await.unwrap(), pool.operation("cron").get().await.unwrap());
    let late = pool.operation("late");
    let (_, error) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(1), mail.batch_execute("SELECT pg_sleep(1)")),
        late.get()
    );
    let told = error.unwrap_err().to_string();
    for part in [
        "5 used, 0 idle, 0 being created of 5, 0 waiting",
        "held by report ×2 (oldest ",
        ": 1 idle in transaction, 1 not executing), ",
        "mail ×1 (oldest ",
        ": executing), ",
        "login ×1 (oldest ",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("cron"), "{told}");
    reports[0].batch_execute("ROLLBACK").await.unwrap();
    drop((reports, mail, login, cron));
}
