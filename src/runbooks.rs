//! The runbooks of the alerts, to which their notifications link.
//!
//! The files are in `docs/runbooks/`. This module exists only in the documentation.
#![allow(non_snake_case, reason = "each module has the name of its alert")]

/// Declares a module with the text of a runbook for each alert.
macro_rules! runbooks {
    ($($name:ident,)+) => {
        $(
            #[doc = include_str!(concat!("../docs/runbooks/", stringify!($name), ".md"))]
            pub mod $name {}
        )+
    };
}

runbooks![
    PoolscopeCacheDown,
    PoolscopeCacheHitRatioLow,
    PoolscopeCheckoutErrors,
    PoolscopeCheckoutWaitHigh,
    PoolscopeConnectingFails,
    PoolscopeConnectionChurn,
    PoolscopeDiagnosedBurst,
    PoolscopeDiagnosedCacheDown,
    PoolscopeDiagnosedChurn,
    PoolscopeDiagnosedConnectSlow,
    PoolscopeDiagnosedHeldIdle,
    PoolscopeDiagnosedIdleInTransaction,
    PoolscopeDiagnosedLeak,
    PoolscopeDiagnosedLockWait,
    PoolscopeDiagnosedRetryStorm,
    PoolscopeDiagnosedRuntimeStalled,
    PoolscopeDiagnosedSelfDeadlock,
    PoolscopeDiagnosedServerDown,
    PoolscopeDiagnosedServerFull,
    PoolscopeDiagnosedSlowQueries,
    PoolscopeDiagnosedUndersized,
    PoolscopeDirtyReturns,
    PoolscopeHeldIdle,
    PoolscopeIdleInTransaction,
    PoolscopeManyCheckouts,
    PoolscopeMetricsAbsent,
    PoolscopePoolExhausted,
    PoolscopePoolSaturated,
    PoolscopeRequestsShed,
    PoolscopeRetryBudgetSpent,
    PoolscopeRetryStorm,
    PoolscopeSelfDeadlock,
    PoolscopeServerDown,
    PoolscopeServerFull,
    PoolscopeServerSlotsLow,
    PoolscopeServerSlotsShort,
    PoolscopeSlowQueries,
    PoolscopeSpanExportFailing,
    PoolscopeSuspectedLeak,
    PoolscopeTargetDown,
    PoolscopeTimeoutBudgetBurns,
    PoolscopeTimeoutBudgetBurnsFast,
    PoolscopeWaitBudgetBurns,
    PoolscopeWaitBudgetBurnsFast,
    PoolscopeWaitersSustained,
    PoolscopeWiresLost,
];
