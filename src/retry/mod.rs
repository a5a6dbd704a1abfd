//! Retries of failed operations, where a retry is known to be safe.
//!
//! ```no_run
//! # async fn example(pool: poolscope::Pool) -> Result<(), Box<dyn std::error::Error>> {
//! use poolscope::RetryPolicy;
//!
//! pool.operation("transfer")
//!     .retry(RetryPolicy::default())
//!     .run(async |connection| {
//!         let transaction = connection.transaction().await?;
//!         transaction.execute("UPDATE accounts SET cents = cents - 100 WHERE id = 1", &[]).await?;
//!         transaction.execute("UPDATE accounts SET cents = cents + 100 WHERE id = 2", &[]).await?;
//!         transaction.commit().await
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A wrapper that repeats every failed operation executes some of them twice. Two properties of a failure therefore decide
//! whether it is retried. Both are derived from the protocol messages, not from the error that the work returns:
//!
//! **Can a repetition succeed?** This depends on the error's [`Class`]: a serialization failure can, a duplicate key
//! cannot, and neither can an error of the work itself.
//!
//! **Can the attempt have taken effect?** A retry repeats the whole work, on another connection or after the connection
//! was cleaned. That is safe if nothing of the attempt was committed and no statement that could have been is
//! unanswered: everything was in a transaction that was not committed, or the only statement failed. Otherwise only an
//! operation that is [`idempotent`](crate::pool::Operation::idempotent) is retried. A COMMIT without an answer is
//! reported as [`Effects::CommitUnknown`].
//!
//! | class | SQLSTATE | retried |
//! |---|---|---|
//! | `transient` | 40001, 40P01, 55P03, 55006 | if nothing took effect |
//! | `connect` | the connection could not be established: refused, unreachable, no answer, 53300, 57P03, a shortage on this host, no writable server, … ([`ConnectFailure`](crate::labels::ConnectFailure)) | always: nothing was executed |
//! | `read_only` | 25006 of a server that is verified to be read-only; its connections are closed first | if nothing took effect |
//! | `stale_statement` | 26000; 0A000 "cached plan must not change result type"; cached statements are dropped first | once, if nothing took effect |
//! | `lost` | 25P03, 57P01, 57P02, 57P05, and a broken connection | if nothing took effect |
//! | `unknown` | 08007, 40003, and 08000, 08003, 08006 of a session that continues: the server itself does not know the effects | only if idempotent |
//! | `resources` | 53000, 53200, 53400, 58000, 58030; after ten times the backoff | only if idempotent |
//! | `checkout_timeout` | no connection was available within `checkout_timeout`, which limits how long callers wait | never |
//! | `permanent` | all others: 22, 23, 28, 42, 53100, 57014, …; connecting failed because of the credentials or the configuration | never |
//! | `application` | none: the server reported no error, or the work recovered from it | never |
//! | `unseen` | unknown, because `read_wire` is off or the messages were not understood | never |
//!
//! Of Redis, `BUSY`, `CLUSTERDOWN`, `LOADING`, `MASTERDOWN`, `NOREPLICAS` and `TRYAGAIN` are `transient`, `READONLY` is
//! `read_only`, `OOM` and `MISCONF` are `resources`, and the others `permanent`. A command that writes takes effect at once
//! unless it is part of a MULTI; one that reads takes none.
//!
//! While connecting is suspended, checkouts fail at once by the setting `fail_fast`. A retry waits instead until it may make
//! an attempt of its own, within the policy's deadline: five attempts are five attempts at the server.
//!
//! The protocol does not show two things. Effects of the work outside its connection (a request to another service,
//! another connection, a foreign table) are repeated with it. And each statement outside a transaction counts as one that
//! takes effect, a SELECT too, since it may call a function that writes; put statements that belong together into one
//! transaction.
//!
//! All operations of a pool share a retry budget (settings `retry_floor` and `retry_percent`); when it is exhausted,
//! failures are not retried. The pauses between attempts have full jitter: each is between zero and a bound that doubles.
//!
//! The classes follow Npgsql's `PostgresException.IsTransient`, the AWS JDBC wrapper's `PgExceptionHandler`, HikariCP's
//! `ProxyConnection`, pgx's `SafeToRetry` and cockroach-go, as far as these agree.

mod class;
mod error;
mod failure;
mod policy;
mod report;
mod run;

pub use self::class::{Class, Effects};
pub use self::error::RetryError;
pub use self::policy::RetryPolicy;
pub use self::report::{Completed, Report};
pub use self::run::Retrying;
