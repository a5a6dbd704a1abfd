//! The closed sets of label values, such as the outcome of a checkout or the reason why a connection was closed.
//!
//! Each value has one spelling, which metrics, logs, spans and JSON share. Each set has `ALL`, `COUNT`, `as_str` and
//! `index`; arrays in a [`PoolSnapshot`](crate::telemetry::PoolSnapshot) are indexed by the latter.
//!
//! ```
//! use poolscope::labels::Outcome;
//!
//! assert_eq!(Outcome::Timeout.as_str(), "timeout");
//! assert_eq!(Outcome::ALL[Outcome::Timeout.index()], Outcome::Timeout);
//! ```

mod error_code;

pub use self::error_code::ErrorCode;

/// Defines an enum whose variants are label values, with `ALL`, `COUNT`, `as_str` and `index`.
macro_rules! label_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The number of values.
            pub const COUNT: usize = Self::ALL.len();

            /// Returns the value as it is spelled in labels and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            /// Returns the value's index in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize { self as usize }
        }
    };
}

pub(crate) use label_enum;

label_enum! {
    /// Where a client of the server connects from, compared with this process.
    ClientAddress {
        /// From the address of this process: the same host or pod, or the same proxy.
        Same => "same",
        /// From another address.
        Other => "other",
    }
}

label_enum! {
    /// How a checkout ended. Each checkout has exactly one outcome, even if its future is dropped.
    Outcome {
        /// The checkout got a connection, or the operation succeeded.
        Ok => "ok",
        /// The deadline of the whole checkout passed.
        Timeout => "timeout",
        /// Connecting failed or, for a named operation, the operation failed.
        Error => "error",
        /// The pool was closed.
        Closed => "closed",
        /// The checkout was refused because the pool was overloaded.
        Shed => "shed",
        /// The caller dropped the future before it was ready.
        Cancelled => "cancelled",
    }
}

label_enum! {
    /// The event that a checkout in flight waits for.
    Phase {
        /// A free connection: every connection is in use.
        Queue => "queue",
        /// The establishment of a new connection.
        Connect => "connect",
        /// The reply to a pre-ping.
        Ping => "ping",
        /// The reset of a connection that was returned dirty.
        Clean => "clean",
        /// The hook `before_checkout` with a connection that was idle.
        Hook => "hook",
        /// Its turn to connect: connecting has failed, and one checkout at a time retries.
        Suspended => "suspended",
        /// Its turn within its route, which already holds its share of the pool.
        Share => "share",
    }
}

impl Phase {
    /// Returns whether the checkout waits for a turn rather than for a connection.
    pub(crate) const fn is_wait_for_turn(self) -> bool {
        matches!(self, Self::Suspended | Self::Share)
    }
}

label_enum! {
    /// The kind of a failure to connect, by its implication for the next attempts of all checkouts.
    ConnectFailure {
        /// The failure concerns this attempt only: others may succeed, and are not delayed.
        Transient => "transient",
        /// This host, or the server's accept queue, is short of something for a moment: file descriptors, ports,
        /// buffers, an answer of the resolver. The same attempt may succeed shortly after, with fewer at once.
        LocalResource => "local_resource",
        /// The server refuses connections, or cannot be reached, or does not answer: further attempts fail as well, for
        /// a while.
        ServerDown => "server_down",
        /// The server is starting or shutting down, and accepts no connections yet.
        ServerStarting => "server_starting",
        /// The server is full: further attempts fail until a connection to it is closed, by this pool or another
        /// client.
        TooManyConnections => "too_many_connections",
        /// The credentials or the configuration, here or on the server, are wrong: further attempts fail until somebody
        /// changes them.
        Configuration => "configuration",
    }
}

label_enum! {
    /// Why a connection was closed.
    CloseReason {
        /// The connection was never established: connecting failed.
        ConnectFailed => "connect_failed",
        /// The connection was never established: the pool was closed, the runtime ended, or the backend panicked.
        ConnectAbandoned => "connect_abandoned",
        /// The connection was older than `recycle_after`.
        Recycled => "recycled",
        /// The connection was returned while `pool_size` connections were already idle.
        Overflow => "overflow",
        /// The connection was idle for `idle_timeout`, and more than `min_idle` were.
        IdleTimeout => "idle_timeout",
        /// The pool was resized, and had more connections than its new maximum.
        Resized => "resized",
        /// A pre-ping failed.
        PingFailed => "ping_failed",
        /// The checkout that was pinging the connection timed out or was dropped.
        PingAbandoned => "ping_abandoned",
        /// The hook `before_checkout` failed.
        HookFailed => "hook_failed",
        /// The checkout for which the hook `before_checkout` was called timed out or was dropped.
        HookAbandoned => "hook_abandoned",
        /// A ping failed that was sent after the connection was established.
        Invalidated => "invalidated",
        /// The server or the network had closed the connection.
        Broken => "broken",
        /// The server no longer accepts writes: another one is the primary.
        ReadOnly => "read_only",
        /// The connection was returned dirty and could not be reset in time.
        Dirty => "dirty",
        /// The holder closed the connection instead of returning it.
        Discarded => "discarded",
        /// The pool was closed or dropped; or the proxy shuts down.
        Shutdown => "shutdown",
        /// The client of a proxy ended its session.
        ClientClosed => "client_closed",
        /// The client of a proxy closed or lost its connection without ending its session.
        ClientLost => "client_lost",
    }
}

label_enum! {
    /// The activity of a connection, or of the checkout that needs one, at an error.
    ErrorPhase {
        /// Connecting, from the first socket until the server is ready.
        Connect => "connect",
        /// A pre-ping.
        Ping => "ping",
        /// A query, as observed on the wire; also anything that the server reported on an idle connection.
        Query => "query",
        /// The reset after a dirty return.
        Reset => "reset",
        /// The hook `before_checkout`.
        Hook => "hook",
        /// None: a checkout that needed a new connection ended without one while no attempt of its own failed. Either
        /// connecting is suspended after a failure, which is its error, or its attempt took longer (`too_slow`, or
        /// `dropped` if its caller gave up).
        Checkout => "checkout",
    }
}

label_enum! {
    /// Where a pool is.
    PoolKind {
        /// In this process: its checkouts are recorded.
        Pool => "pool",
        /// In the clients of a proxy, which sees their connections and no checkouts.
        Proxy => "proxy",
    }
}

#[cfg(feature = "exporter")]
impl PoolKind {
    pub(crate) const fn of(is_proxied: bool) -> Self {
        if is_proxied { Self::Proxy } else { Self::Pool }
    }
}

label_enum! {
    /// The activity of a checked-out connection.
    Activity {
        /// The server is working: from the first byte of a request until it is ready for the next one.
        Executing => "executing",
        /// No query is running, and no transaction is open.
        Idle => "idle",
        /// No query is running, and a transaction is open, or has failed and was not ended.
        IdleInTransaction => "idle_in_transaction",
    }
}

label_enum! {
    /// In what way a returned connection was dirty.
    Dirt {
        /// A transaction was open.
        InTransaction => "in_transaction",
        /// A transaction had failed and was not ended.
        FailedTransaction => "failed_transaction",
        /// The server was still executing an abandoned query.
        Busy => "busy",
        /// Settings had been changed with `SET`.
        Settings => "settings",
        /// Session-level advisory locks were held.
        AdvisoryLocks => "advisory_locks",
        /// The session was listening for notifications.
        Listen => "listen",
        /// The session had temporary tables.
        TemporaryTables => "temporary_tables",
    }
}

label_enum! {
    /// Why a failed operation was not retried.
    GiveUp {
        /// A retry cannot succeed: the statement is invalid, a constraint is violated, or the operation itself failed.
        Permanent => "permanent",
        /// The checkout timed out: another would wait behind those that wait already.
        CheckoutTimeout => "checkout_timeout",
        /// Part of the operation may have taken effect, and it is not marked as idempotent.
        NotIdempotent => "not_idempotent",
        /// It is unknown whether the COMMIT took effect, and the operation is not marked as idempotent.
        CommitUnknown => "commit_unknown",
        /// The cause of the failure is unknown, because the wire is not observed or was not understood.
        Unseen => "unseen",
        /// The policy's maximum number of attempts was reached.
        Attempts => "attempts",
        /// The policy's deadline passed, or would have passed during the backoff.
        Deadline => "deadline",
        /// The pool's retry budget was exhausted.
        Budget => "budget",
    }
}

label_enum! {
    /// A direction on the wire.
    Direction {
        /// To the server.
        Sent => "sent",
        /// From the server.
        Received => "received",
    }
}

label_enum! {
    /// What a cache answered to a lookup. Each lookup has exactly one answer, also if it is dropped.
    CacheResult {
        /// A value within its time to live.
        Hit => "hit",
        /// A value whose time to live has passed, within the stale window.
        Stale => "stale",
        /// The stored information that there is no value.
        Negative => "negative",
        /// Nothing was stored: the caller's loader is called.
        Miss => "miss",
        /// Another caller was loading the same key, and its result is shared.
        Coalesced => "coalesced",
        /// The cache could not be read in time: the caller's loader is called.
        Bypassed => "bypassed",
        /// The caller dropped the future before the answer.
        Cancelled => "cancelled",
    }
}

label_enum! {
    /// The kind of an error of a cache.
    CacheError {
        /// No reply within the deadline, including the wait for a connection.
        Timeout => "timeout",
        /// No connection, or it broke.
        Unavailable => "unavailable",
        /// The server refused the command, for example because its memory is full.
        Server => "server",
        /// A value could not be encoded.
        Encode => "encode",
        /// A stored value could not be decoded; it counts as a miss.
        Decode => "decode",
        /// A value is larger than the maximum, and is not stored.
        TooLarge => "too_large",
    }
}

label_enum! {
    /// The state of a connection.
    ConnectionState {
        /// Being established for a checkout.
        Creating => "creating",
        /// In the pool, available to the next checkout.
        Idle => "idle",
        /// Checked out, or being pinged or reset by the pool.
        Used => "used",
        /// Closed by the pool, while the server may still execute its query.
        Closing => "closing",
    }
}

label_enum! {
    /// The method of a request, as OpenTelemetry's semantic conventions spell it.
    RequestMethod {
        /// `GET`
        Get => "GET",
        /// `HEAD`
        Head => "HEAD",
        /// `POST`
        Post => "POST",
        /// `PUT`
        Put => "PUT",
        /// `DELETE`
        Delete => "DELETE",
        /// `PATCH`
        Patch => "PATCH",
        /// `OPTIONS`
        Options => "OPTIONS",
        /// `CONNECT`
        Connect => "CONNECT",
        /// `TRACE`
        Trace => "TRACE",
        /// Any other method.
        Other => "_OTHER",
    }
}

label_enum! {
    /// A misuse of the pool by a request.
    RequestWarning {
        /// The request made many checkouts one after another (the N+1 problem).
        ManyCheckouts => "many_checkouts",
        /// The request held a connection without running a query.
        HeldElsewhere => "held_elsewhere",
    }
}

label_enum! {
    /// The state of a server backend, from `pg_stat_activity.state`.
    BackendState {
        /// Executing a query.
        Active => "active",
        /// Waiting for its client, outside a transaction.
        Idle => "idle",
        /// Waiting for its client, inside a transaction.
        IdleInTransaction => "idle_in_transaction",
        /// Waiting for its client, inside a transaction that has failed.
        IdleInTransactionAborted => "idle_in_transaction_aborted",
        /// Any other state, for example starting; also all states of a server with `track_activities` off.
        Other => "other",
        /// Hidden from the querying role, which lacks `pg_monitor`.
        Hidden => "hidden",
    }
}

label_enum! {
    /// The role of a server in replication.
    ServerRole {
        /// The server accepts writes.
        Primary => "primary",
        /// The server is in recovery and follows another one.
        Standby => "standby",
    }
}

label_enum! {
    /// The state that a pool is diagnosed with: healthy, or the cause of its problem.
    Cause {
        /// Checkouts are served without a long wait, and nothing accumulates.
        Healthy => "healthy",
        /// The load needs more connections than the pool may have, all the time.
        Undersized => "undersized",
        /// The load suits the pool on average, and its peaks exceed it.
        Burst => "burst",
        /// Queries take so long that they occupy the pool.
        SlowQueries => "slow_queries",
        /// Queries wait for a lock that another session holds.
        LockWait => "lock_wait",
        /// Connections are held without a query and outside a transaction.
        HeldIdle => "held_idle",
        /// Connections are held in an open transaction without a query.
        IdleInTransaction => "idle_in_transaction",
        /// Connections are not returned.
        Leak => "leak",
        /// Tasks that hold a connection wait for another one of the same pool.
        SelfDeadlock => "self_deadlock",
        /// The server cannot be connected to.
        ServerDown => "server_down",
        /// The server has no free slot for a connection.
        ServerFull => "server_full",
        /// Connecting takes long.
        ConnectSlow => "connect_slow",
        /// Connections are closed and replaced all the time.
        Churn => "churn",
        /// A large share of the load is retries.
        RetryStorm => "retry_storm",
        /// The executor does not poll its tasks in time.
        RuntimeStalled => "runtime_stalled",
        /// A cache in front of the pool is away, and the pool has its load.
        CacheDown => "cache_down",
        /// The pool was not observed for long enough.
        NotEnoughData => "not_enough_data",
    }
}
