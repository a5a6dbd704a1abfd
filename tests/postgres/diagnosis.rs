//! Verdicts about pools of a real server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use poolscope::labels::Cause;
use poolscope::recording::{Recorder, Recording};
use poolscope::telemetry::Verdict;
use poolscope::{CheckoutError, Connection, Pool, PoolBuilder};
use poolscope_testing::server::{Server, Shutdown};
use tokio::task::JoinSet;

use crate::support::{TestPool, eventually, poll_until, with_deadline};

fn three(builder: PoolBuilder) -> PoolBuilder {
    builder.pool_size(2).max_overflow(1).checkout_timeout(Duration::from_millis(800))
}

/// Ends the tasks and the sampling with the test.
struct Workload {
    _tasks: JoinSet<()>,
}

impl Workload {
    /// Samples the pool, and runs `tasks` loops of `work`.
    fn start<F: Future<Output = ()> + Send>(
        test: &TestPool,
        tasks: usize,
        work: impl Fn(Pool) -> F + Clone + Send + 'static,
    ) -> Self {
        let mut set = JoinSet::new();
        set.spawn(test.pool.watch());
        for _ in 0..tasks {
            let (pool, work) = (test.pool.clone(), work.clone());
            set.spawn(async move {
                loop {
                    work(pool.clone()).await;
                    // A failed checkout must not turn this into a busy loop.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        Self { _tasks: set }
    }
}

/// Returns the verdict once the pool has this cause.
async fn verdict(test: &TestPool, cause: Cause) -> Arc<Verdict> {
    let verdict =
        poll_until(cause.as_str(), async || test.pool.snapshot().diagnosis.filter(|verdict| verdict.cause == cause));
    verdict.await
}

/// Checks that no size is recommended while a fault lasts, and that the reason names it.
async fn assert_withheld(test: &TestPool, cause: Cause) {
    let snapshot = test.pool.snapshot();
    assert_eq!((snapshot.recommended_size, snapshot.size_withheld_by()), (None, Some(cause)));
    let reason = snapshot.sizing_reason();
    assert!(reason.starts_with(&format!("no size is recommended until {} ends: ", cause.as_str())), "{reason}");
}

async fn get(pool: &Pool, operation: &str) -> Option<Connection> {
    pool.operation(operation).get().await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_idle_connections_are_diagnosed_everywhere() {
    let test = TestPool::shared("diagnosis_held_idle", three).await;
    let line = line!() + 2;
    let _workload = Workload::start(&test, 15, async |pool| {
        let Ok(connection) = pool.get().await else { return };
        let _ = connection.batch_execute("SELECT 1").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    });
    let verdict = verdict(&test, Cause::HeldIdle).await;
    let site = format!("{}:{line}", file!());
    assert_eq!((verdict.operation.as_deref(), verdict.call_site.as_deref()), (Some(&*site), Some(&*site)));
    assert!(verdict.evidence.iter().any(|evidence| evidence.name == "held_idle_share" && evidence.value > 0.5));
    assert_withheld(&test, Cause::HeldIdle).await;
    let gauge = |cause: Cause| test.scrape().count("poolscope_diagnosis", &[("cause", cause.as_str())]);
    assert_eq!((gauge(Cause::HeldIdle), gauge(Cause::Healthy), gauge(Cause::Leak)), (1, 0, 0));
    let scraped = test.scrape();
    let responsible = [("cause", "held_idle"), ("operation", &*site), ("call_site", &*site)];
    assert!(scraped.sum("poolscope_diagnosis_seconds", &responsible) > 0.0);
    let share = [("measure", "held_idle_share"), ("unit", "ratio")];
    assert!(scraped.sum("poolscope_diagnosis_evidence", &share) > 0.5);
    let error = poll_until("a timeout", async || test.pool.get().await.err()).await;
    assert!(matches!(&error, CheckoutError::Timeout(report) if report.verdict.is_some()));
    let text = error.to_string();
    assert!(text.contains(&format!("; diagnosis: `{site}` holds most")) && text.ends_with("of the pool."), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_transactions_are_diagnosed() {
    let test = TestPool::shared("diagnosis_transactions", three).await;
    let _workload = Workload::start(&test, 8, async |pool| {
        let Some(connection) = get(&pool, "pay").await else { return };
        let _ = connection.batch_execute("BEGIN").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _ = connection.batch_execute("COMMIT").await;
    });
    let verdict = verdict(&test, Cause::IdleInTransaction).await;
    assert_eq!(verdict.operation.as_deref(), Some("pay"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_queries_of_many_tasks_mean_undersized() {
    let test = TestPool::shared("diagnosis_undersized", three).await;
    let _workload = Workload::start(&test, 30, async |pool| {
        let Some(connection) = get(&pool, "rush").await else { return };
        let _ = connection.batch_execute("SELECT pg_sleep(0.05)").await;
    });
    let verdict = verdict(&test, Cause::Undersized).await;
    assert_eq!(verdict.operation.as_deref(), Some("rush"));
    // The first size is that of ten seconds.
    let snapshot = async || Some(test.pool.snapshot()).filter(|snapshot| snapshot.recommended_size.is_some());
    let snapshot = poll_until("a recommended size", snapshot).await;
    assert!(snapshot.recommended_size.is_some_and(|size| size > 3), "{snapshot:?}");
    assert!(snapshot.sizing_reason().contains("99 % wait for less than 10ms"), "{}", snapshot.sizing_reason());
    let table = &snapshot.sizing.as_ref().unwrap().table;
    let three = table.iter().find(|row| row.size == 3).expect("the pool's maximum");
    assert!(three.wait_p99 > Duration::from_millis(10), "{table:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_queries_are_no_undersized_pool() {
    let test = TestPool::shared("diagnosis_slow", three).await;
    let _workload = Workload::start(&test, 12, async |pool| {
        let Some(connection) = get(&pool, "report").await else { return };
        let _ = connection.batch_execute("SELECT pg_sleep(0.7)").await;
    });
    let verdict = verdict(&test, Cause::SlowQueries).await;
    assert_eq!(verdict.operation.as_deref(), Some("report"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_checkouts_are_a_self_deadlock() {
    let test = TestPool::shared("diagnosis_nested", three).await;
    let _workload = Workload::start(&test, 6, async |pool| {
        let Some(first) = get(&pool, "place_order").await else { return };
        let _ = first.batch_execute("SELECT 1").await;
        let second = get(&pool, "write_audit").await;
        drop((first, second));
    });
    let verdict = verdict(&test, Cause::SelfDeadlock).await;
    assert_eq!(verdict.operation.as_deref(), Some("place_order"));
    assert!(verdict.finding.contains("`write_audit`"), "{}", verdict.finding);
    assert_withheld(&test, Cause::SelfDeadlock).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connection_is_a_leak_of_its_call_site() {
    let settings = |builder: PoolBuilder| three(builder).leak_threshold(Some(Duration::from_millis(500)));
    let test = TestPool::shared("diagnosis_leak", settings).await;
    let lost = test.pool.operation("count_customers").get().await.unwrap();
    let _workload = Workload::start(&test, 1, async |pool| {
        let Some(connection) = get(&pool, "works").await else { return };
        let _ = connection.batch_execute("SELECT 1").await;
    });
    let verdict = verdict(&test, Cause::Leak).await;
    assert_eq!(verdict.operation.as_deref(), Some("count_customers"));
    assert_withheld(&test, Cause::Leak).await;
    drop(lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lock_wait_names_the_session_that_blocks() {
    let server = Server::builder().start().await.unwrap();
    let test = TestPool::new("diagnosis_lock", &server.url(), three);
    let mut blocker: tokio_postgres::Config = server.url().parse().unwrap();
    let (blocker, connection) = blocker.application_name("nightly").connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    blocker.batch_execute("CREATE TABLE stock (n int)").await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE stock").await.unwrap();
    let watched = tokio::spawn(test.pool.watch_server(Duration::from_millis(200)));
    let _workload = Workload::start(&test, 8, async |pool| {
        let Some(connection) = get(&pool, "update_stock").await else { return };
        let _ = connection.batch_execute("SELECT n FROM stock").await;
    });
    let verdict = verdict(&test, Cause::LockWait).await;
    assert_eq!(verdict.operation.as_deref(), Some("update_stock"));
    assert!(verdict.finding.contains("a session of `nightly`") && verdict.finding.contains("idle in a transaction"));
    blocker.batch_execute("COMMIT").await.unwrap();
    watched.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_server_is_down_and_healthy_again_later() {
    let server = Server::builder().start().await.unwrap();
    let test = TestPool::new("diagnosis_down", &server.url(), three);
    let _workload = Workload::start(&test, 2, async |pool| {
        if let Some(connection) = get(&pool, "list_orders").await {
            let _ = connection.batch_execute("SELECT 1").await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    });
    verdict(&test, Cause::Healthy).await;
    let down = server.stop(Shutdown::Immediate);
    with_deadline("the server stops", down).await.unwrap();
    let verdict = verdict(&test, Cause::ServerDown).await;
    assert!(verdict.finding.starts_with("the server cannot be reached"), "{}", verdict.finding);
}

/// What is usual is known after some healthy seconds, and remains while there is a problem. The recording of all that yields
/// the same verdicts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usual_values_are_exported_and_recordings_replay() {
    let name = "diagnosis_recorded";
    let test = TestPool::shared(name, three).await;
    let recorder = Recorder::start(&test.collector(), name, Duration::from_secs(600)).unwrap();
    let is_ill = Arc::new(AtomicBool::new(false));
    let work = {
        let is_ill = Arc::clone(&is_ill);
        move |pool: Pool| {
            let is_ill = Arc::clone(&is_ill);
            async move {
                let Some(connection) = get(&pool, "export").await else { return };
                let _ = connection.batch_execute("SELECT 1").await;
                let pause = Duration::from_millis(300);
                if is_ill.load(Relaxed) {
                    tokio::time::sleep(pause).await;
                } else {
                    drop(connection);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    };
    let _workload = Workload::start(&test, 9, work);
    let usual = |measure: &str| test.scrape().sum("poolscope_diagnosis_evidence_usual", &[("measure", measure)]);
    eventually("the usual rate of checkouts", async || usual("checkouts") > 0.0).await;
    is_ill.store(true, Relaxed);
    let verdict = verdict(&test, Cause::HeldIdle).await;
    let share = verdict.evidence.iter().find(|evidence| evidence.name == "held_idle_share").unwrap();
    assert!(share.usual.is_some_and(|usual| usual < share.value / 2.0), "{share:?}");
    let scraped = test.scrape();
    let labels = [("measure", "held_idle_share"), ("unit", "ratio")];
    let value = scraped.sum("poolscope_diagnosis_evidence", &labels);
    assert!(scraped.sum("poolscope_diagnosis_evidence_usual", &labels) < value / 2.0);

    let mut lines = Vec::new();
    recorder.write(&mut lines).unwrap();
    let recording = Recording::read(&*lines).unwrap();
    assert!(recording.truncation.is_none() && recording.seconds.len() > 10, "{recording:?}");
    let mut live = None;
    for (second, replayed) in recording.replay() {
        if let Some(recorded) = &second.verdict {
            let values = |evidence: &poolscope::telemetry::Evidence| (evidence.name, evidence.value, evidence.usual);
            let replayed: Vec<_> = replayed.evidence.iter().map(values).collect();
            let recorded: Vec<_> =
                recorded.evidence.iter().map(|evidence| (&*evidence.name, evidence.value, evidence.usual)).collect();
            assert_eq!(replayed, recorded, "at {}", second.at_seconds);
        }
        live = second.verdict.as_ref().or(live);
        let live = live.map(|live| (&*live.cause, live.operation.as_deref(), live.call_site.as_deref()));
        let again = (replayed.cause.as_str(), replayed.operation.as_deref(), replayed.call_site.as_deref());
        assert_eq!(Some(again), live, "at {}", second.at_seconds);
    }
    assert_eq!(live.map(|live| &*live.cause), Some("held_idle"));
}
