//! The measures that rules compare, each a number with a unit.

/// Defines [`Measure`] with the name, the unit and the meaning of each variant.
macro_rules! measures {
    ($($variant:ident => $name:literal, $unit:literal, $meaning:literal;)+) => {
        /// A number that is computed from a window.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Measure { $($variant,)+ }

        impl Measure {
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)+];
            pub(super) const COUNT: usize = Self::ALL.len();

            /// Returns the name in evidence.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            pub(super) const fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit,)+ }
            }

            #[cfg_attr(not(test), allow(dead_code, reason = "only the generated page shows it"))]
            pub(super) const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }
        }
    };
}

measures! {
    SampledSeconds => "sampled", "seconds", "the time for which the pool has been observed without a gap, at most a minute";
    WaitSeverity => "wait_severity", "ratio",
        "how harmful waits are: the 99th percentile over 250 ms or the share of timeouts over 1 %, whichever is larger; for a proxy's pool `saturated_share` over 50 %";
    WaitP99 => "wait_p99", "seconds", "the 99th percentile of checkouts, or the age of the oldest one in flight if that is more";
    TimeoutShare => "timeout_share", "ratio", "the share of ended checkouts that timed out";
    CheckoutRate => "checkouts", "per_second", "checkouts started";
    SaturatedShare => "saturated_share", "ratio", "the share of time with every connection taken and a checkout waiting; for a proxy's pool the share of samples with at least three connections, all of them in use, and as many as within the last minute, or as `pool_size`";
    UsedConnections => "used_connections", "connections", "the mean number of connections held";
    UsedShare => "used_share", "ratio", "the mean share of the maximum that is held";
    HeldIdleConnections => "held_idle_connections", "connections",
        "the mean number of connections held without a query and outside a transaction";
    HeldIdleShare => "held_idle_share", "ratio", "their share of the maximum";
    IdleOfHeld => "idle_of_held", "ratio", "their share of the connections held";
    InTransactionConnections => "idle_in_transaction_connections", "connections",
        "the mean number of connections held in an open transaction without a query";
    InTransactionShare => "idle_in_transaction_share", "ratio", "their share of the maximum";
    InTransactionOfHeld => "idle_in_transaction_of_held", "ratio", "their share of the connections held";
    ExecutingConnections => "executing_connections", "connections", "the mean number of connections that execute a query";
    SilentSeconds => "longest_silence", "seconds",
        "the longest time for which a connection has been held without traffic or a running query";
    QuerySeconds => "query_time", "seconds", "the mean time of queries of the operation that executes most";
    TopExecutingShare => "top_executing_share", "ratio", "the share of the time held that this operation's queries take";
    SuspectedLeaks => "suspected_leaks", "connections", "connections held and silent for longer than `leak_threshold`";
    SelfBlockedShare => "self_blocked_share", "ratio",
        "the largest share of the connections in use whose task waits for another connection, for 250 ms and longer";
    ConnectFailures => "connect_failures", "per_second", "failed attempts to connect, without refusals of a full server";
    ConnectingSuspended => "connecting_suspended", "seconds", "the time since connecting first failed";
    ServerUnreachable => "server_unreachable", "ratio", "1 if the last query of the server's view failed";
    QueryRate => "queries", "per_second", "queries that ended";
    Refusals => "refusals", "per_second", "attempts to connect that the server refused because it has no free slot (53300)";
    SlotsLeft => "slots_left", "connections", "free slots of the server, if it is watched";
    UnownedConnections => "unowned_connections", "connections",
        "the server's connections with the pool's `application_name` that no pool of this process owns, if it is watched";
    ConnectSeconds => "connect_time", "seconds", "the mean time that checkouts spend per connection attempt";
    ConnectWaiters => "checkouts_connecting", "checkouts", "the mean number of checkouts that wait for a connect";
    ReplacedShare => "replaced_share", "ratio", "closed connections per checkout, without failed connects and shutdown";
    ReplacedRate => "replaced_connections", "per_second", "closed connections, likewise";
    ReplacedSteadiness => "replaced_steadiness", "ratio", "the share of samples in which connections were closed";
    RetryShare => "retry_share", "ratio", "retries per checkout";
    RetryRate => "retries", "per_second", "retries";
    BudgetRefusals => "budget_refusals", "per_second", "failed operations that were not retried because the retry budget was spent";
    LockBlocked => "blocked_on_locks", "connections", "the pool's connections that wait for a lock, if the server is watched";
    LockBlockedShare => "blocked_on_locks_share", "ratio", "their share of the maximum";
    LockSeconds => "lock_wait", "seconds", "the time for which the first of them has waited";
    TimerDelay => "timer_delay", "seconds", "the mean over the samples of the longest delay of a timer since the sample before; a timer fires every 100 ms";
    LateShare => "late_samples", "ratio", "the share of time in samples with a timer that was at least 150 ms late";
    UnpolledShare => "unpolled_waiters", "ratio",
        "the share of samples in which a connection was idle while a checkout waited for one";
    CacheBypassedShare => "cache_bypassed_share", "ratio",
        "the share of lookups that the caches in front of the pool did not answer in time";
    CacheBypassedRate => "cache_bypassed", "per_second", "these lookups, whose values are loaded instead";
    BurstEpisodes => "saturated_episodes", "count", "the number of times within a minute that the pool became saturated and a twentieth of the checkouts waited for 250 ms or longer, or some timed out";
    BurstSaturatedShare => "saturated_share_of_minute", "ratio", "the share of the last minute in which the pool was saturated";
    BurstUsedShare => "used_share_of_minute", "ratio", "`used_share` over a minute";
}
