//! The pool's spans, as a collector receives them.

use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt};
use opentelemetry_semantic_conventions::attribute as names;
use poolscope::labels::Activity;
use poolscope::retry::RetryPolicy;
use poolscope::{CheckoutError, Connection, RunError};
use tokio_postgres::config::Host;
use tokio_postgres::types::Type;
use tracing::Instrument;

use crate::support::{Admin, Attributes, Link, Span, TestPool, Trace, eventually, poll_until, shared, traced};

/// Returns the only span called `name`.
fn single_span<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    match (named.next(), named.next()) {
        (Some(span), None) => span,
        (first, _) => panic!("{} spans called {name}: {spans:#?}", if first.is_some() { "several" } else { "no" }),
    }
}

fn children<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a str> {
    spans.iter().filter(|span| span.parent.as_ref() == Some(&parent.span_id)).map(|span| &*span.name).collect()
}

/// Returns the attributes of an event of the span.
fn event_attributes<'a>(span: &'a Span, event: &str) -> Option<&'a Attributes> {
    span.events.iter().find(|(name, _)| name == event).map(|(_, attributes)| attributes)
}

/// Returns the attributes of the links between two spans.
fn link_attributes<'a>(from: &'a Span, to: &Span) -> Vec<&'a Attributes> {
    let targets = |link: &&Link| (&link.trace_id, &link.span_id) == (&to.trace_id, &to.span_id);
    from.links.iter().filter(targets).map(|link| &link.attributes).collect()
}

/// Returns a numeric attribute.
fn number(span: &Span, name: &str) -> f64 {
    span.attributes.get(name).unwrap_or_else(|| panic!("no {name}: {span:#?}")).parse().unwrap()
}

#[tokio::test]
async fn every_api_produces_client_spans() {
    let server = shared().await;
    Admin::new(server).await.execute("CREATE TABLE spans_queries (id int PRIMARY KEY, name text)").await;
    let test = TestPool::shared("spans_queries", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /queries", async {
        let mut connection = test.get().await;
        let insert = connection.prepare_cached("INSERT INTO spans_queries VALUES ($1, $2)").await.unwrap();
        connection.execute(&insert, &[&1, &"a"]).await.unwrap();
        connection.execute(&insert, &[&1, &"twice"]).await.unwrap_err();
        let typed = "SELECT name FROM spans_queries WHERE id = $1";
        connection.query_typed(typed, &[(&1, Type::INT4)]).await.unwrap();
        connection.simple_query("SELECT 'hidden' FROM generate_series(1, 3)").await.unwrap();
        let transaction = connection.transaction().await.unwrap();
        let (one, two) = (transaction.query("SELECT 1", &[]), transaction.query("SELECT 2", &[]));
        tokio::try_join!(one, two).unwrap();
        transaction.commit().await.unwrap();
        let sink = connection.copy_in::<_, bytes::Bytes>("COPY spans_queries FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from_static(b"3\tc\n")).await.unwrap();
        sink.finish().await.unwrap();
    })
    .await;
    let spans = trace.spans(10).await;
    let called: Vec<_> = spans[1..].iter().map(|span| &*span.name).collect();
    let expected = [
        "INSERT spans_queries",
        "INSERT spans_queries",
        "SELECT spans_queries",
        "SELECT",
        "START TRANSACTION",
        "SELECT",
        "SELECT",
        "COMMIT",
        "COPY spans_queries",
    ];
    assert_eq!(called, expected);
    let to: tokio_postgres::Config = server.url().parse().unwrap();
    let [Host::Unix(directory)] = to.get_hosts() else { panic!("{to:?}") };
    let socket = format!("{}/.s.PGSQL.{}", directory.display(), to.get_ports()[0]);
    for span in &spans[1..] {
        assert_eq!((span.kind, span.parent.as_ref()), ("client", Some(&spans[0].span_id)), "{span:#?}");
        let attribute = |name: &str| span.attributes.get(name).map(String::as_str);
        assert_eq!(attribute(names::DB_SYSTEM_NAME), Some("postgresql"));
        assert_eq!(attribute(names::DB_NAMESPACE), to.get_dbname());
        assert_eq!(attribute(names::SERVER_ADDRESS), Some(&*socket));
        assert_eq!(attribute(names::SERVER_PORT), None);
        assert_eq!(attribute(names::DB_QUERY_SUMMARY), Some(&*span.name));
        assert_eq!(attribute(names::DB_CLIENT_CONNECTION_POOL_NAME), Some("spans_queries"));
        assert_eq!(attribute(names::DB_QUERY_TEXT), None);
        assert!(spans[0].start <= span.start && span.end <= spans[0].end, "{span:#?}");
        assert!(!format!("{span:?}").contains("hidden"));
    }
    let rows: Vec<_> = spans.iter().map(|span| span.attributes.get(names::DB_RESPONSE_RETURNED_ROWS)).collect();
    let rows: Vec<_> = rows.into_iter().map(|rows| rows.map(String::as_str)).collect();
    let (none, one) = (Some("0"), Some("1"));
    assert_eq!(rows, [None, none, None, one, Some("3"), none, one, one, none, none]);
    for (index, span) in spans.iter().enumerate() {
        let failed = (index == 2).then_some("23505");
        assert_eq!(span.status.0, failed.map_or("unset", |_| "error"), "{span:#?}");
        for name in [names::DB_RESPONSE_STATUS_CODE, names::ERROR_TYPE] {
            assert_eq!(span.attributes.get(name).map(String::as_str), failed, "{span:#?}");
        }
    }
}

#[tokio::test]
async fn query_is_a_child_of_the_current_span() {
    let test = TestPool::shared("spans_within", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /within", async {
        let connection = test.get().await;
        connection.batch_execute("SELECT 1").await.unwrap();
        let load = async { connection.batch_execute("SHOW work_mem").await.unwrap() };
        load.instrument(tracing::info_span!("load")).await;
        connection.batch_execute("SELECT 3").await.unwrap();
    })
    .await;
    let spans = trace.spans(5).await;
    assert_eq!(children(&spans, &spans[0]), ["SELECT", "load", "SELECT"]);
    assert_eq!(children(&spans, single_span(&spans, "load")), ["SHOW"]);
}

/// The wire does not show whose request is whose.
#[tokio::test]
async fn concurrent_queries_are_children_of_the_checkout() {
    let test = TestPool::shared("spans_joined", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /joined", async {
        let connection = test.get().await;
        let load = |sql: &'static str| {
            let connection = &connection;
            async move { connection.query(sql, &[]).await.unwrap() }
        };
        let one = load("SELECT 1").instrument(tracing::info_span!("one"));
        let two = load("SHOW work_mem").instrument(tracing::info_span!("two"));
        tokio::join!(one, two);
        // Once both were answered, spans are attributed again.
        load("VALUES (3)").instrument(tracing::info_span!("three")).await;
        let simple = |sql: &'static str| {
            let connection = &connection;
            async move { connection.batch_execute(sql).await.unwrap() }
        };
        let long = simple("SELECT pg_sleep(0.05)").instrument(tracing::info_span!("long"));
        let later = async {
            eventually("the query runs", async || {
                test.pool.holders().iter().any(|holder| holder.activity == Some(Activity::Executing))
            })
            .await;
            simple("SHOW port").await;
        };
        tokio::join!(long, later.instrument(tracing::info_span!("later")));
    })
    .await;
    let spans = trace.spans(11).await;
    let mut of_checkout = children(&spans, &spans[0]);
    of_checkout.sort_unstable();
    assert_eq!(of_checkout, ["SELECT", "SHOW", "later", "long", "one", "three", "two"]);
    for (span, queries) in
        [("one", &[][..]), ("two", &[]), ("three", &["VALUES"]), ("long", &["SELECT"]), ("later", &["SHOW"])]
    {
        assert_eq!(children(&spans, single_span(&spans, span)), queries, "{span}");
    }
}

/// Also while the connection's task runs on another thread, and has the closing of a statement to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn successive_queries_keep_their_own_spans() {
    let test = TestPool::shared("spans_successive", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /successive", async {
        let connection = test.get().await;
        for _ in 0..20 {
            let load = async { connection.query("SELECT 1", &[]).await.unwrap() };
            load.instrument(tracing::info_span!("load")).await;
        }
    })
    .await;
    let spans = trace.spans(41).await;
    for span in spans.iter().filter(|span| span.name == "load") {
        assert_eq!(children(&spans, span), ["SELECT"]);
    }
    assert_eq!(children(&spans, &spans[0]), ["load"; 20]);
}

#[tokio::test]
async fn connection_shared_by_traces_joins_none_of_them() {
    let test = TestPool::shared("spans_shared", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (checkout, connection) = traced("GET /checkout", test.get()).await;
    let run = |sql: &'static str| {
        let connection = &connection;
        async move { connection.query(sql, &[]).await.unwrap() }
    };
    let ((first, _), (second, _)) =
        tokio::join!(traced("GET /first", run("SELECT 1")), traced("GET /second", run("SELECT 2")));
    assert_eq!(checkout.spans(3).await.iter().filter(|span| span.name == "SELECT").count(), 2);
    assert_eq!((first.spans(1).await.len(), second.spans(1).await.len()), (1, 1));
    // A connection used by one at a time joins its trace, with a link to the checkout.
    let (third, _) = traced("GET /third", run("SELECT 3")).await;
    let spans = third.spans(2).await;
    assert_eq!(children(&spans, &spans[0]), ["SELECT"]);
    let [link] = &link_attributes(single_span(&spans, "SELECT"), &checkout.spans(3).await[0])[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(link["poolscope.link"], "checkout");
}

/// `.instrument` may wrap the checkout, the query, or a future that runs both.
#[tokio::test]
async fn instrumented_futures_are_in_the_trace() {
    let test = TestPool::shared("spans_instrument", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /instrument", async {
        let connection = test.get().instrument(tracing::info_span!("checking out")).await;
        connection.batch_execute("SELECT 1").instrument(tracing::info_span!("querying")).await.unwrap();
        let both = async {
            drop(connection);
            test.get().await.batch_execute("SHOW port").await.unwrap();
        };
        both.instrument(tracing::info_span!("both")).await;
    })
    .await;
    let spans = trace.spans(6).await;
    // The client is dereferenced before the future of the query is wrapped.
    assert_eq!(children(&spans, &spans[0]), ["checking out", "querying", "SELECT", "both"]);
    assert_eq!(children(&spans, single_span(&spans, "both")), ["SHOW"]);
    let (outside, connection) = traced("GET /outside", test.get()).await;
    connection.batch_execute("SELECT 2").await.unwrap();
    let spans = outside.spans(2).await;
    assert_eq!(children(&spans, &spans[0]), ["SELECT"], "outside of any span, the trace is the checkout's");
}

#[tokio::test]
async fn query_text_is_recorded_without_literals() {
    let test = TestPool::shared("spans_texts", |builder| builder.pool_size(1).trace_query_text(true)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /texts", async {
        let connection = test.get().await;
        connection.batch_execute("SELECT 'secret' /* secret */, 42 FROM pg_class").await.unwrap();
        let text = "SELECT relname FROM pg_class WHERE relname = $1 AND relname <> 'secret'";
        let statement = connection.prepare_cached(text).await.unwrap();
        connection.query(&statement, &[&"secret"]).await.unwrap();
        connection.query(&statement, &[&"other"]).await.unwrap();
    })
    .await;
    let spans = trace.spans(4).await;
    let texts: Vec<_> = spans[1..].iter().map(|span| &*span.attributes[names::DB_QUERY_TEXT]).collect();
    let prepared = "SELECT relname FROM pg_class WHERE relname = $1 AND relname <> ?";
    assert_eq!(texts, ["SELECT ? FROM pg_class", prepared, prepared]);
    assert!(!format!("{spans:?}").contains("secret"), "{spans:#?}");
}

#[tokio::test]
async fn operation_is_a_span_around_its_queries() {
    let test = TestPool::shared("spans_operation", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /operation", async {
        let list = test.pool.operation("list_orders");
        list.run(async |connection: &mut Connection| connection.batch_execute("SELECT 1").await).await.unwrap();
    })
    .await;
    let spans = trace.spans(3).await;
    let operation = single_span(&spans, "list_orders");
    assert_eq!((children(&spans, &spans[0]), children(&spans, operation)), (vec!["list_orders"], vec!["SELECT"]));
    assert_eq!((operation.kind, operation.status.0), ("internal", "unset"));
    let attribute = |name: &str| &*operation.attributes[name];
    assert_eq!(attribute(names::DB_CLIENT_CONNECTION_POOL_NAME), "spans_operation");
    assert_eq!(
        [attribute("poolscope.operation"), attribute("poolscope.outcome"), attribute("poolscope.attempts")],
        ["list_orders", "ok", "1"]
    );
    assert!(attribute("poolscope.call_site").starts_with("tests/postgres/spans.rs:"), "{operation:#?}");
}

#[tokio::test]
async fn failed_operation_records_its_error() {
    let test = TestPool::shared("spans_failing", |builder| builder.pool_size(1).max_overflow(0)).await;
    let (trace, result) = traced("GET /failing", async {
        let divide = test.pool.operation("divide");
        divide.run(async |connection: &mut Connection| connection.batch_execute("SELECT 1 / 0").await).await
    })
    .await;
    assert!(matches!(result, Err(RunError::Operation(_))), "{result:?}");
    let spans = trace.spans(4).await;
    for name in ["divide", "SELECT"] {
        let span = single_span(&spans, name);
        assert_eq!(span.status.0, "error");
        assert_eq!(
            [names::ERROR_TYPE, names::DB_RESPONSE_STATUS_CODE].map(|name| &*span.attributes[name]),
            ["22012", "22012"]
        );
    }
    assert_eq!(single_span(&spans, "divide").attributes["poolscope.outcome"], "error");
}

#[tokio::test]
async fn panic_fails_the_attempt_and_its_operation() {
    let test = TestPool::shared("spans_panicking", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /panicking", async {
        let retried = test.pool.operation("reserve").retry(RetryPolicy::default()).run(async |connection| {
            connection.batch_execute("SELECT 1").await?;
            std::panic::resume_unwind(Box::new("scripted"));
            #[allow(unreachable_code, reason = "determines the type of the result")]
            Ok::<_, tokio_postgres::Error>(())
        });
        std::panic::AssertUnwindSafe(retried).catch_unwind().await.unwrap_err();
    })
    .await;
    let spans = trace.spans(4).await;
    for name in ["reserve", "attempt"] {
        let span = single_span(&spans, name);
        let attribute = |name: &str| &*span.attributes[name];
        assert_eq!(
            (span.status.0, attribute("poolscope.outcome"), attribute("error.type")),
            ("error", "error", "panic"),
            "{span:#?}"
        );
    }
}

#[tokio::test]
async fn attempts_are_children_of_their_operation() {
    let test = TestPool::shared("spans_retries", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let policy = RetryPolicy::default();
    let (trace, ()) = traced("POST /retries", async {
        let tries = std::sync::atomic::AtomicU32::new(0);
        let tries = &tries;
        let work = async move |connection: &mut Connection| {
            let fails = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            let code = if fails { "RAISE EXCEPTION 'no' USING ERRCODE = '40001';" } else { "" };
            let transaction = connection.transaction().await?;
            transaction.batch_execute(&format!("DO $$ BEGIN {code} END $$")).await?;
            transaction.commit().await
        };
        test.pool.operation("reserve").retry(policy).run(work).await.unwrap();
    })
    .await;
    let spans = trace.spans(11).await;
    let operation = single_span(&spans, "reserve");
    assert_eq!(children(&spans, operation), ["attempt", "attempt"]);
    assert_eq!((operation.status.0, &*operation.attributes["poolscope.attempts"]), ("unset", "2"));
    let attempts: Vec<_> = spans.iter().filter(|span| span.name == "attempt").collect();
    let [first, second] = [0, 1].map(|attempt| children(&spans, attempts[attempt]));
    assert_eq!(first, ["START TRANSACTION", "DO", "ROLLBACK"]);
    // Pinged, as its last use failed.
    assert_eq!(second, ["checkout", "START TRANSACTION", "DO", "COMMIT"]);
    assert_eq!((attempts[0].status.0, attempts[1].status.0), ("error", "unset"));
    assert_eq!(attempts[0].attributes[names::DB_RESPONSE_STATUS_CODE], "40001");
    let numbers = attempts.iter().map(|attempt| &*attempt.attributes["poolscope.attempt"]);
    assert!(numbers.eq(["1", "2"]));
    let retry = event_attributes(attempts[0], "poolscope.retry").expect("a retry");
    assert_eq!((&*retry["error.type"], &*retry["poolscope.attempt"]), ("40001", "1"));
    assert!(retry["poolscope.pause_seconds"].parse::<f64>().unwrap() > 0.0);
    assert_eq!(event_attributes(attempts[1], "poolscope.retry"), None);
}

/// A checkout has a span if it connected or pinged, and none if it was served at once.
#[tokio::test]
async fn only_slow_checkouts_have_a_span() {
    let test = TestPool::shared("spans_steps", |builder| builder.pool_size(1).max_overflow(0)).await;
    let pinging = |builder: poolscope::PoolBuilder| builder.pool_size(1).max_overflow(0).pre_ping_idle(Duration::ZERO);
    let pinged = TestPool::shared("spans_pinged", pinging).await;
    drop(pinged.get().await);
    let (trace, ()) = traced("GET /steps", async {
        drop(test.get().await);
        drop(test.get().await);
        drop(pinged.get().await);
    })
    .await;
    let spans = trace.spans(3).await;
    let [_, connected, pinged] = &spans[..] else { panic!("{spans:#?}") };
    for (span, step, pool) in [(connected, "connect", "spans_steps"), (pinged, "ping", "spans_pinged")] {
        assert_eq!((&*span.name, span.kind, span.status.0), ("checkout", "internal", "unset"));
        assert_eq!(span.attributes["poolscope.outcome"], "ok");
        assert_eq!(span.attributes[names::DB_CLIENT_CONNECTION_POOL_NAME], pool);
        assert!(number(span, &format!("poolscope.{step}_seconds")) > 0.0);
        assert_eq!(span.events.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), [step]);
        let steps = span.attributes.keys().filter(|name| name.ends_with("_seconds"));
        assert_eq!(steps.count(), 1, "{span:#?}");
    }
}

#[tokio::test]
async fn waiter_and_holder_are_linked() {
    let test = TestPool::shared("spans_waits", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (held, release) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
    let holds = traced("GET /holds", async {
        let report = test.pool.operation("report");
        report
            .run(async |_: &mut Connection| {
                held.notify_one();
                release.notified().await;
                Ok::<_, tokio_postgres::Error>(())
            })
            .await
            .unwrap();
    });
    let waits = traced("GET /waits", async {
        held.notified().await;
        let list = test.pool.operation("list");
        list.run(async |connection: &mut Connection| connection.batch_execute("SELECT 1").await).await.unwrap();
    });
    let releases = async {
        eventually("a waiter", async || test.pool.status().waiting == 1).await;
        release.notify_one();
    };
    let ((holder, ()), (waiter, ()), ()) = tokio::join!(holds, waits, releases);
    let (holder, waiter) = (holder.spans(2).await, waiter.spans(4).await);
    let (holding, waiting) = (single_span(&holder, "report"), single_span(&waiter, "checkout"));
    let [to_holder] = link_attributes(waiting, holding)[..] else { panic!("{waiting:#?}") };
    let [to_waiter] = link_attributes(holding, waiting)[..] else { panic!("{holding:#?}") };
    assert_eq!([&*to_holder["poolscope.link"], &*to_holder["poolscope.operation"]], ["holder", "report"]);
    assert_eq!([&*to_waiter["poolscope.link"], &*to_waiter["poolscope.operation"]], ["waiter", "list"]);
    assert!(to_holder["poolscope.held_seconds"].parse::<f64>().unwrap() > 0.0);
    assert_eq!((waiting.links.len(), holding.links.len()), (1, 1));
    assert_eq!(waiting.attributes["poolscope.holders"], "report 1");
    assert!(number(waiting, "poolscope.queue_seconds") > 0.0);
    assert_eq!(children(&waiter, single_span(&waiter, "list")), ["checkout", "SELECT"]);
}

#[tokio::test]
async fn failed_checkout_records_its_error() {
    let test = TestPool::shared("spans_fails", |builder| {
        builder.pool_size(1).max_overflow(0).checkout_timeout(Duration::from_millis(20))
    })
    .await;
    // Connecting may take longer than this checkout timeout.
    let held = poll_until("a connection", async || test.pool.get().await.ok()).await;
    let (timeout, result) = traced("GET /timeout", test.pool.get()).await;
    assert!(matches!(result, Err(CheckoutError::Timeout(_))), "{result:?}");
    drop(held);
    test.pool.close().await;
    let (closed, result) = traced("GET /closed", test.pool.get()).await;
    assert!(matches!(result, Err(CheckoutError::Closed { .. })), "{result:?}");
    let unreachable = TestPool::new("spans_unreachable", "postgres://nobody@127.0.0.1:1/none", |builder| builder);
    let (refused, result) = traced("GET /refused", unreachable.pool.get()).await;
    assert!(matches!(result, Err(CheckoutError::Connect { .. })), "{result:?}");
    for (trace, outcome, error) in
        [(timeout, "timeout", "timeout"), (closed, "closed", "closed"), (refused, "error", "io")]
    {
        let spans = trace.spans(2).await;
        let checkout = single_span(&spans, "checkout");
        assert_eq!(checkout.status.0, "error", "{checkout:#?}");
        assert_eq!(
            [&*checkout.attributes["poolscope.outcome"], &*checkout.attributes[names::ERROR_TYPE]],
            [outcome, error]
        );
        assert_eq!(checkout.attributes.get(names::DB_RESPONSE_STATUS_CODE), None);
        let steps = checkout.events.iter().filter(|(name, _)| ["queue", "connect"].contains(&&**name));
        assert_eq!(steps.count(), usize::from(outcome != "closed"), "{checkout:#?}");
    }
}

#[tokio::test]
async fn cancelled_work_is_in_the_trace() {
    let test = TestPool::shared("spans_cancelled", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /cancelled", async {
        let sleep = test.pool.operation("sleep").retry(RetryPolicy::default());
        let sleep =
            sleep.run(async |connection: &mut Connection| connection.batch_execute("SELECT pg_sleep(60)").await);
        let executes = async || test.pool.holders().iter().any(|holder| holder.queries == 1);
        tokio::select! {
            result = sleep => panic!("{result:?}"),
            () = eventually("a query", executes) => {}
        }
        eventually("the connection is returned", async || test.pool.status().idle == 1).await;
    })
    .await;
    let spans = trace.spans(5).await;
    let operation = single_span(&spans, "sleep");
    assert_eq!(children(&spans, operation), ["attempt"]);
    assert_eq!((operation.status.0, &*operation.attributes["poolscope.outcome"]), ("unset", "cancelled"));
    let (query, attempt) = (single_span(&spans, "SELECT"), single_span(&spans, "attempt"));
    assert_eq!((attempt.status.0, &*attempt.attributes["poolscope.outcome"]), ("unset", "cancelled"));
    assert_eq!(query.parent.as_ref(), Some(&attempt.span_id));
    assert_eq!(query.attributes[names::DB_RESPONSE_STATUS_CODE], "57014");
    let clean = single_span(&spans, "clean");
    assert_eq!(clean.attributes["poolscope.outcome"], "ok");
}

#[tokio::test]
async fn dirty_return_is_an_event_of_its_span() {
    let test = TestPool::shared("spans_dirty", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /dirty", async {
        let connection = test.get().await;
        connection.batch_execute("BEGIN").await.unwrap();
        drop(connection);
        let count = async || test.scrape().count("poolscope_dirty_returns_total", &[("kind", "in_transaction")]) == 1;
        eventually("a dirty return", count).await;
    })
    .await;
    let spans = trace.spans(3).await;
    let dirty = event_attributes(&spans[0], "poolscope.dirty_return").expect("a dirty return");
    assert_eq!(dirty["poolscope.dirty.kind"], "in_transaction");
    let clean = single_span(&spans, "clean");
    assert_eq!((clean.parent.as_ref(), clean.status.0), (Some(&spans[0].span_id), "unset"));
}

#[tokio::test]
async fn suspected_leak_is_an_event_of_its_span() {
    let test = TestPool::shared("spans_leak", |builder| builder.leak_threshold(Some(Duration::from_millis(20)))).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /leak", async {
        let forgotten = test.get().await;
        eventually("a suspected leak", async || test.pool.snapshot().suspected_leaks == 1).await;
        drop(forgotten);
    })
    .await;
    let spans = trace.spans(1).await;
    let leak = event_attributes(&spans[0], "poolscope.suspected_leak").expect("a suspected leak");
    assert!(leak["poolscope.held_seconds"].parse::<f64>().unwrap() >= 0.02);
}

#[tokio::test]
async fn dirty_return_after_span_end_is_on_the_reset() {
    let test = TestPool::shared("spans_dirty_run", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, ()) = traced("GET /dirty", async {
        let begin = async |connection: &mut Connection| connection.batch_execute("BEGIN").await;
        test.pool.operation("begin").run(begin).await.unwrap();
        eventually("the connection is returned", async || test.pool.status().idle == 1).await;
    })
    .await;
    let spans = trace.spans(4).await;
    let clean = single_span(&spans, "clean");
    assert_eq!(clean.parent.as_ref(), Some(&single_span(&spans, "begin").span_id));
    let dirty = event_attributes(clean, "poolscope.dirty_return").expect("a dirty return");
    assert_eq!((&*dirty["poolscope.dirty.kind"], &*dirty["poolscope.operation"]), ("in_transaction", "begin"));
}

/// Returns a connection with a BEGIN in its channel, which is sent after the return.
async fn leave_dirty(test: &TestPool) {
    let connection = test.get().await;
    let mut begin = Box::pin(connection.batch_execute("BEGIN"));
    assert!(futures_util::poll!(begin.as_mut()).is_pending());
}

/// A checkout that finds a dirty connection stays in its own trace and links to the holder that left it dirty.
#[tokio::test]
async fn reset_at_checkout_links_to_the_dirty_holder() {
    let test = TestPool::shared("spans_found", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (left, ()) = traced("GET /left", leave_dirty(&test)).await;
    let (found, ()) = traced("GET /found", async { drop(test.get().await) }).await;
    let (left, found) = (left.spans(2).await, found.spans(2).await);
    assert_eq!(children(&left, &left[0]), ["clean"]);
    let checkout = single_span(&found, "checkout");
    assert_eq!((checkout.parent.as_ref(), checkout.status.0), (Some(&found[0].span_id), "unset"));
    assert!(number(checkout, "poolscope.clean_seconds") > 0.0);
    let [link] = link_attributes(checkout, &left[0])[..] else { panic!("{checkout:#?}") };
    assert_eq!(link["poolscope.link"], "left_dirty");
    // Found while the server executes the BEGIN, or after it.
    assert!(["busy", "in_transaction"].contains(&&*link["poolscope.dirty.kind"]), "{link:?}");
    // Within one trace there is no link.
    let (same, ()) = traced("GET /same", async {
        leave_dirty(&test).await;
        drop(test.get().await);
    })
    .await;
    let same = same.spans(3).await;
    let named: std::collections::BTreeSet<_> = children(&same, &same[0]).into_iter().collect();
    assert!(named.into_iter().eq(["checkout", "clean"]), "{same:#?}");
    assert!(same.iter().all(|span| span.links.is_empty()), "{same:#?}");
}

#[tokio::test]
async fn holder_links_to_waiters_are_bounded() {
    let test = TestPool::shared("spans_crowd", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (holder, ()) = traced("GET /crowded", async {
        let held = test.get().await;
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let test = test.clone();
                tokio::spawn(async move { drop(traced("GET /crowd", test.get()).await) })
            })
            .collect();
        eventually("twenty waiters", async || test.pool.status().waiting == 20).await;
        drop(held);
        for waiter in waiters {
            waiter.await.unwrap();
        }
    })
    .await;
    assert_eq!(holder.spans(1).await[0].links.len(), 16);
}

#[tokio::test]
async fn unsampled_query_joins_no_other_trace() {
    let test = TestPool::shared("spans_worker", |builder| builder.pool_size(1).max_overflow(0)).await;
    drop(test.get().await);
    let (trace, connection) = traced("GET /first", test.get()).await;
    let (unsampled, ()) = Trace::unsampled(async { connection.batch_execute("SELECT 1").await.unwrap() }).await;
    let (second, ()) = traced("GET /second", async { connection.batch_execute("SELECT 2").await.unwrap() }).await;
    assert_eq!(children(&second.spans(2).await, &second.spans(2).await[0]), ["SELECT"]);
    drop(connection);
    // Nor does a query of the next holder, which is outside any trace.
    test.get().await.batch_execute("SELECT 3").await.unwrap();
    let (last, ()) = traced("GET /last", async {}).await;
    assert_eq!((last.spans(1).await.len(), trace.spans(1).await.len()), (1, 1));
    assert!(unsampled.received().is_empty(), "{:?}", unsampled.received());
}

#[tokio::test]
async fn returned_connection_keeps_no_span_open() {
    use opentelemetry::Context;
    use opentelemetry::trace::{FutureExt, TraceContextExt, Tracer, TracerProvider};
    let test = TestPool::shared("spans_open", |builder| builder.pool_size(1).max_overflow(0)).await;
    let ended = EndedSpans::default();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().with_span_processor(ended.clone()).build();
    // A span that ends with its last reference.
    let job = Context::current_with_span(provider.tracer("tests").start("job"));
    async { test.get().await.batch_execute("SELECT 1").await.unwrap() }.with_context(job).await;
    eventually("the span ends", async || *ended.0.lock().unwrap() == ["job"]).await;
    assert_eq!(test.pool.status().idle, 1);
}

/// The names of ended spans.
#[derive(Clone, Debug, Default)]
struct EndedSpans(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl opentelemetry_sdk::trace::SpanProcessor for EndedSpans {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: opentelemetry_sdk::trace::SpanData) {
        self.0.lock().unwrap().push(span.name.to_string());
    }

    fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> opentelemetry_sdk::error::OTelSdkResult {
        Ok(())
    }
}

#[tokio::test]
async fn non_default_port_is_recorded() {
    let url = shared().await.tcp_url().unwrap();
    let test = TestPool::new("spans_tcp", &url, |builder| builder.pool_size(1).max_overflow(0));
    let (trace, ()) = traced("GET /tcp", async { test.get().await.batch_execute("SELECT 1").await.unwrap() }).await;
    let spans = trace.spans(3).await;
    let to: tokio_postgres::Config = url.parse().unwrap();
    let [Host::Tcp(address)] = to.get_hosts() else { panic!("{to:?}") };
    let query = single_span(&spans, "SELECT");
    assert_eq!(query.attributes[names::SERVER_ADDRESS], *address);
    assert_eq!(query.attributes[names::SERVER_PORT], to.get_ports()[0].to_string());
}

#[tokio::test]
async fn no_spans_outside_sampled_traces() {
    let test = TestPool::shared("spans_none", |builder| builder.pool_size(1).max_overflow(0)).await;
    let work = async || {
        let select = async |connection: &mut Connection| connection.batch_execute("SELECT 1").await;
        test.pool.operation("select").run(select).await.unwrap();
        assert!(test.pool.holders().is_empty());
    };
    let (unsampled, ()) = Trace::unsampled(work()).await;
    // Earlier spans arrive before those of a later trace.
    let (later, ()) = traced("GET /later", work()).await;
    assert_eq!(later.spans(3).await.len(), 3);
    assert!(unsampled.received().is_empty(), "{:?}", unsampled.received());
}
