//! Trying again what failed, where that is known to be safe.
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
//! A wrapper that repeats whatever failed makes two orders of one. So two questions are asked of each failure, and both
//! are answered by what passed on the wire, whatever error the work gave in the end:
//!
//! **Can it succeed if it is repeated?** The error's [`Class`] says so: a serialization failure can, a duplicate key
//! cannot, and neither can an error that is the work's own.
//!
//! **Can it have taken effect?** The whole work is done anew, on another connection or one that was cleaned. That is
//! safe if nothing of the attempt was committed and no statement is unanswered that could have been: if all was in a
//! transaction that was not committed, say, or the one statement there was failed. If it is not safe, only an operation
//! that is [`idempotent`](crate::pool::Operation::idempotent) is repeated. A COMMIT to which no answer came is reported
//! as [`Effects::CommitUnknown`].
//!
//! | class | SQLSTATE | repeated |
//! |---|---|---|
//! | `transient` | 40001, 40P01, 55P03, 55006 | where nothing took effect |
//! | `connect` | no connection could be made: 08000, 08001, 08006, 53300, 57P01, 57P02, 57P03, 57P05, no answer, none in time, no writable server | always: nothing was done |
//! | `read_only` | 25006 of a server that takes no writes at all, once it is known: its connections are closed first | where nothing took effect |
//! | `stale_statement` | 26000; 0A000 "cached plan must not change result type": cached statements are forgotten first | once, where nothing took effect |
//! | `lost` | 25P03, 57P01, 57P02, 57P05, and a connection that broke off | where nothing took effect |
//! | `unknown` | 08007, 40003, and 08000, 08003, 08006 of a session that goes on: the server itself does not know | only if idempotent |
//! | `resources` | 53000, 53200, 53400, 58000, 58030: after ten times the backoff | only if idempotent |
//! | `permanent` | everything else: 22, 23, 28, 42, 53100, 57014, … | never |
//! | `application` | none: the server did not complain, or what it complained of was overcome | never |
//! | `unseen` | not known, as `read_wire` is off or the wire was not understood | never |
//!
//! A checkout that met `checkout_timeout` is `permanent`: the pool was asked to give up after that time.
//!
//! Two things the wire does not show. What the work does elsewhere (a request to another service, another connection, a
//! foreign table) is repeated with it. And each statement outside a transaction counts as one that takes effect, a SELECT too, since
//! it may call a function that writes; put what belongs together into one transaction.
//!
//! Retries are paid from a budget that all operations of a pool share (settings `retry_floor` and `retry_percent`): when
//! it is spent, they stop. The pauses between them have full jitter: each is between zero and a bound that doubles.
//!
//! Sources: the classes are those of Npgsql's `PostgresException.IsTransient`, the AWS JDBC wrapper's
//! `PgExceptionHandler`, HikariCP's `ProxyConnection`, pgx's `SafeToRetry` and cockroach-go, as far as they agree.

mod class;
mod decision;
mod error;
mod policy;
mod report;
mod run;

pub use self::class::{Class, Effects};
pub use self::error::RetryError;
pub use self::policy::Policy;
pub use self::report::{Completed, Report};
pub use self::run::Retrying;
