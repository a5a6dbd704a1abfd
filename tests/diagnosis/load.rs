//! The workloads of cases.

use std::sync::Mutex;
use std::time::Duration;

use poolscope::{Connection, Pool, RetryPolicy};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// What one task does with the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// A query of this duration; of another one during the fault.
    Query {
        ms: u64,
        in_fault: u64,
    },
    /// Holds a connection for this time after a short query.
    HoldIdle {
        ms: u64,
    },
    /// Likewise in a transaction.
    Transaction {
        ms: u64,
    },
    /// Keeps a connection for good, this many times.
    Leak {
        times: usize,
    },
    /// Checks out a second connection while it holds one.
    Nested,
    UpdateRow,
    /// Updates the row and keeps the transaction open for this time.
    HoldRow {
        ms: u64,
    },
    /// Closes the connection in this share of cases instead of returning it.
    Discard {
        percent: u32,
    },
    /// Fails with a serialization failure in this share of attempts, and is retried.
    Conflict {
        percent: u32,
    },
    /// Blocks the thread, without a connection.
    Block {
        ms: u64,
    },
}

/// When a task works.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Again after this pause, in milliseconds.
    Pause(u64),
    /// All tasks at once, again after this period, in milliseconds.
    Every(u64),
}

/// Tasks that do the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) operation: &'static str,
    pub(crate) tasks: usize,
    pub(crate) pace: Pace,
    pub(crate) work: Work,
    /// Whether it begins with the fault.
    pub(crate) from_fault: bool,
}

impl Load {
    pub(crate) const fn new(operation: &'static str, tasks: usize, pace: Pace, work: Work) -> Self {
        Self { operation, tasks, pace, work, from_fault: false }
    }

    /// Starts the tasks. They end with the runtime.
    pub(crate) fn start(self, pool: &Pool, fault: &watch::Receiver<bool>) {
        for index in 0..self.tasks {
            tokio::spawn(self.run(index, pool.clone(), fault.clone()));
        }
    }

    async fn run(self, index: usize, pool: Pool, mut fault: watch::Receiver<bool>) {
        if self.from_fault && fault.wait_for(|has_begun| *has_begun).await.is_err() {
            return;
        }
        let mut next = Instant::now();
        if let Pace::Pause(ms) = self.pace {
            // Not all at once.
            sleep(Duration::from_millis(ms * index as u64 / self.tasks as u64)).await;
        }
        let mut round = 0;
        loop {
            let in_fault = *fault.borrow();
            self.work.once(&pool, self.operation, in_fault, round).await;
            round += 1;
            match self.pace {
                Pace::Pause(ms) => sleep(Duration::from_millis(ms.max(1))).await,
                Pace::Every(ms) => {
                    next += Duration::from_millis(ms);
                    sleep_until(next).await;
                }
            }
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Work {
    /// Failures are part of the faults.
    async fn once(self, pool: &Pool, operation: &'static str, in_fault: bool, round: usize) {
        static LEAKED: Mutex<Vec<Connection>> = Mutex::new(Vec::new());
        match self {
            Self::Query { ms, in_fault: longer } => {
                let Ok(connection) = pool.operation(operation).get().await else { return };
                let time = if in_fault { longer } else { ms };
                let _ = connection.batch_execute(&format!("SELECT pg_sleep({})", time as f64 / 1e3)).await;
            }
            Self::HoldIdle { ms: time } => {
                let Ok(connection) = pool.operation(operation).get().await else { return };
                let _ = connection.batch_execute("SELECT 1").await;
                sleep(ms(time)).await;
            }
            Self::Transaction { ms: time } => {
                let Ok(connection) = pool.operation(operation).get().await else { return };
                if connection.batch_execute("BEGIN; SELECT 1").await.is_ok() {
                    sleep(ms(time)).await;
                    let _ = connection.batch_execute("COMMIT").await;
                }
            }
            Self::Leak { times } => {
                if round < times
                    && let Ok(connection) = pool.operation(operation).get().await
                {
                    let _ = connection.batch_execute("SELECT 1").await;
                    LEAKED.lock().unwrap().push(connection);
                }
            }
            Self::Nested => {
                let Ok(first) = pool.operation(operation).get().await else { return };
                let _ = first.batch_execute("SELECT 1").await;
                if let Ok(second) = pool.operation("write_audit").get().await {
                    let _ = second.batch_execute("SELECT 1").await;
                }
            }
            Self::UpdateRow => {
                let Ok(connection) = pool.operation(operation).get().await else { return };
                let _ = connection.batch_execute("UPDATE stock SET n = n + 1 WHERE id = 1").await;
            }
            Self::HoldRow { ms: time } => {
                let Ok(connection) = pool.operation(operation).get().await else { return };
                if connection.batch_execute("BEGIN; UPDATE stock SET n = n + 1 WHERE id = 1").await.is_ok() {
                    sleep(ms(time)).await;
                    let _ = connection.batch_execute("COMMIT").await;
                }
            }
            Self::Discard { percent } => {
                let Ok(connection) = pool.operation(operation).get().await else { return };
                let _ = connection.batch_execute("SELECT 1").await;
                if chance(percent, round) {
                    connection.discard();
                }
            }
            Self::Conflict { percent } => {
                let operation = pool.operation(operation).idempotent(true).retry(RetryPolicy::default());
                let statement =
                    if chance(percent, round) { "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$" } else { "SELECT 1" };
                let _ = operation.run(async |connection| connection.batch_execute(statement).await).await;
            }
            Self::Block { ms: time } => std::thread::sleep(ms(time)),
        }
    }
}

/// Returns true in `percent` of the rounds, evenly.
fn chance(percent: u32, round: usize) -> bool {
    let percent = percent as usize;
    (round + 1) * percent / 100 > round * percent / 100
}
