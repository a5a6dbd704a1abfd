//! Runtimes that end while connections are out, and share one pool, as those of `#[tokio::test]` do with a static one.

use std::sync::OnceLock;
use std::time::Duration;

use poolscope::{Collector, Connection, Pool};
use poolscope_testing::server::Server;
use tokio::runtime::{Builder, Runtime};

use super::world::assert_clean;

static POOL: OnceLock<Pool> = OnceLock::new();

/// How many runtimes use the pool, in four threads.
const RUNTIMES: usize = 40;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Uses the pool in a runtime of its own, which ends before the connection is returned.
fn use_and_end(pool: &Pool, kind: usize) {
    let runtime = runtime();
    let connection: Connection = runtime.block_on(async {
        // Connections of runtimes that have ended are not handed out.
        let connection =
            tokio::time::timeout(Duration::from_secs(60), pool.get()).await.expect("a connection").unwrap();
        assert_clean(&connection).await.unwrap();
        match kind % 4 {
            0 => connection.batch_execute("BEGIN").await.unwrap(),
            1 => {
                let slow = connection.batch_execute("SELECT pg_sleep(60)");
                let _ = tokio::time::timeout(Duration::from_millis(20), slow).await;
            }
            2 => connection.batch_execute("SET search_path = pg_catalog").await.unwrap(),
            _ => {}
        }
        connection
    });
    if kind.is_multiple_of(2) {
        drop(runtime);
        drop(connection);
    } else {
        drop(connection);
        runtime.shutdown_background();
    }
}

#[test]
fn ended_runtimes_leave_a_shared_pool_whole() {
    let own = runtime();
    let server = own.block_on(async { Server::builder().start().await.unwrap() });
    let pool = POOL.get_or_init(|| {
        Pool::builder()
            .url(&server.url())
            .name("runtimes")
            .application_name("runtimes")
            .collector(Collector::new())
            .pool_size(2)
            .max_overflow(1)
            .checkout_timeout(Duration::from_secs(30))
            .clean_timeout(Duration::from_millis(200))
            .close_timeout(Duration::from_millis(500))
            .reset_session(true)
            .build()
            .unwrap()
    });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || (0..RUNTIMES / 4).for_each(|number| use_and_end(pool, thread + number)));
        }
    });
    own.block_on(async {
        let mut taken = Vec::new();
        for _ in 0..3 {
            let connection = pool.get().await.expect("the whole capacity");
            assert_clean(&connection).await.unwrap();
            taken.push(connection);
        }
        drop(taken);
        tokio::time::timeout(Duration::from_secs(60), pool.close()).await.expect("the pool is closed");
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.connections.live(), snapshot.in_flight), (0, 0));
        assert_eq!(snapshot.created, snapshot.closed.iter().sum::<u64>());
    });
}
