//! The table of rules: a row per cause, in the order of precedence.

use Condition::{AtLeast, Below, TimesUsual};
use Measure::*;

use super::figures::Figures;
use super::measures::Measure;
use crate::labels::Cause;

/// While a cause is diagnosed, its conditions are relaxed by this factor, so that a value near a threshold does not
/// switch the verdict on and off.
pub(super) const RELAXED: f64 = 0.7;

/// The reason for a threshold.
type Why = &'static str;

/// A condition on one measure.
#[cfg_attr(not(test), allow(dead_code, reason = "only the generated page shows the reasons"))]
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    /// The value is at least this.
    AtLeast(Measure, f64, Why),
    /// The value is below this.
    Below(Measure, f64, Why),
    /// The value is at least `factor` times what is usual for the pool and at least `floor`; or at least `otherwise`
    /// where the usual value is unknown.
    TimesUsual { measure: Measure, factor: f64, floor: f64, otherwise: f64, why: Why },
}

impl Condition {
    pub(super) const fn measure(self) -> Measure {
        match self {
            AtLeast(measure, ..) | Below(measure, ..) | TimesUsual { measure, .. } => measure,
        }
    }

    fn holds(self, figures: &Figures, usual: Option<f64>, relaxed: bool) -> bool {
        let factor = if relaxed { RELAXED } else { 1.0 };
        let value = figures[self.measure()];
        match self {
            AtLeast(_, threshold, _) => value >= threshold * factor,
            Below(_, threshold, _) => value < threshold / factor,
            TimesUsual { factor: times, floor, otherwise, .. } => {
                value >= factor * usual.map_or(otherwise, |usual| floor.max(times * usual))
            }
        }
    }
}

/// Where the operation responsible is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Responsible {
    /// No operation is.
    None,
    /// The one that executes longest.
    Executing,
    /// The one that holds connections idle for longest.
    HoldingIdle,
    /// The one that is idle in transactions for longest.
    InTransaction,
    /// The one that holds connections for longest.
    Holding,
    /// The one that holds connections for longest while the pool is saturated.
    Peaks,
    /// The holder of suspected leaks.
    Leaking,
    /// The one whose task waits for itself.
    SelfBlocked,
    /// The session that blocks others, or else the one that is blocked.
    Blocking,
    /// The one with the most retries.
    Retrying,
}

/// How a cause is recognized.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) cause: Cause,
    /// The cause holds if all conditions of one alternative do.
    pub(super) alternatives: &'static [&'static [Condition]],
    /// For how long the conditions hold before the cause is diagnosed, in seconds.
    pub(super) adopt_after: f64,
    /// How it differs from causes that look alike.
    #[cfg_attr(not(test), allow(dead_code, reason = "only the generated page shows it"))]
    pub(super) distinguished_from: &'static str,
    /// The causes whose conditions hold as a consequence.
    pub(super) explains: &'static [Cause],
    pub(super) responsible: Responsible,
    /// The measures that are evidence, in addition to those of the conditions.
    pub(super) also_shown: &'static [Measure],
}

impl Rule {
    /// Returns the alternative that holds, if any.
    pub(super) fn matching(
        &self,
        figures: &Figures,
        usual: impl Fn(Measure) -> Option<f64>,
        relaxed: bool,
    ) -> Option<&'static [Condition]> {
        let holds = |condition: &Condition| condition.holds(figures, usual(condition.measure()), relaxed);
        self.alternatives.iter().copied().find(|conditions| conditions.iter().all(holds))
    }
}

const SEVERE: Condition =
    AtLeast(WaitSeverity, 1.0, "one checkout in a hundred waits for longer than most requests take, or times out");

const CACHE_BYPASSED: Condition =
    AtLeast(CacheBypassedShare, 0.5, "most reads load the database, as without a cache; single timeouts are normal");
const CACHE_LOAD: Condition = AtLeast(CacheBypassedRate, 1.0, "fewer reads are no load for a database");
const MORE_CHECKOUTS: Condition = TimesUsual {
    measure: CheckoutRate,
    factor: 2.0,
    floor: 2.0,
    otherwise: 10.0,
    why: "twice the usual load shows what the cache saved; without a usual value, ten per second are a load",
};

/// A verdict within 30 s leaves time for a few samples that confirm each other.
const SOON: f64 = 3.0;
/// Causes that others explain are diagnosed later, so that the explanation comes first.
const LATER: f64 = 8.0;

/// The rules, those that explain others first.
pub(super) static RULES: &[Rule] = &[
    Rule {
        cause: Cause::ServerFull,
        alternatives: &[&[AtLeast(
            Refusals,
            0.05,
            "a single refusal proves it, and a suspended pool tries about once a second",
        )]],
        adopt_after: SOON,
        distinguished_from: "`server_down`: the server answers, with SQLSTATE 53300",
        explains: &[
            Cause::ServerDown,
            Cause::ConnectSlow,
            Cause::Churn,
            Cause::RetryStorm,
            Cause::Burst,
            Cause::Undersized,
        ],
        responsible: Responsible::None,
        also_shown: &[SlotsLeft, UsedConnections, UnownedConnections],
    },
    Rule {
        cause: Cause::ServerDown,
        alternatives: &[
            &[
                AtLeast(ConnectFailures, 0.05, "one failure in the window, while connecting stays suspended"),
                AtLeast(ConnectingSuspended, 1.0, "a restart of the server ends the failures sooner"),
            ],
            &[
                AtLeast(ServerUnreachable, 1.0, "the server's view could not be queried"),
                Below(QueryRate, 0.05, "a server that ends queries is not down"),
            ],
        ],
        adopt_after: SOON,
        distinguished_from: "`server_full`: the failures are not SQLSTATE 53300; `connect_slow`: connecting fails, not only takes long",
        explains: &[
            Cause::ConnectSlow,
            Cause::Churn,
            Cause::RetryStorm,
            Cause::SlowQueries,
            Cause::HeldIdle,
            Cause::IdleInTransaction,
            Cause::Leak,
            Cause::Burst,
            Cause::Undersized,
        ],
        responsible: Responsible::None,
        also_shown: &[],
    },
    Rule {
        cause: Cause::SelfDeadlock,
        alternatives: &[&[
            AtLeast(
                SelfBlockedShare,
                0.5,
                "with half of the connections, their tasks wait for each other rather than for slow work",
            ),
            SEVERE,
        ]],
        adopt_after: SOON,
        distinguished_from: "`held_idle`: the holders wait for a connection of the same pool",
        explains: &[
            Cause::Leak,
            Cause::IdleInTransaction,
            Cause::HeldIdle,
            Cause::RetryStorm,
            Cause::Burst,
            Cause::Undersized,
        ],
        responsible: Responsible::SelfBlocked,
        also_shown: &[WaitP99, TimeoutShare],
    },
    Rule {
        cause: Cause::LockWait,
        alternatives: &[
            &[
                AtLeast(LockBlocked, 1.0, "one is enough, if checkouts wait at the same time"),
                AtLeast(LockSeconds, 1.0, "shorter lock waits are normal"),
                SEVERE,
            ],
            &[
                AtLeast(LockBlockedShare, 0.2, "a fifth of the pool stands still, even if no checkout waits yet"),
                AtLeast(LockSeconds, 1.0, "shorter lock waits are normal"),
            ],
        ],
        adopt_after: SOON,
        distinguished_from: "`slow_queries`: the server reports that the queries wait for a lock; needs the server's view",
        explains: &[
            Cause::SlowQueries,
            Cause::IdleInTransaction,
            Cause::HeldIdle,
            Cause::RetryStorm,
            Cause::Burst,
            Cause::Undersized,
        ],
        responsible: Responsible::Blocking,
        also_shown: &[SaturatedShare],
    },
    Rule {
        cause: Cause::Leak,
        alternatives: &[&[AtLeast(
            SuspectedLeaks,
            1.0,
            "a connection that is never returned does not come back by itself",
        )]],
        adopt_after: SOON,
        distinguished_from: "`held_idle`: held and silent for longer than `leak_threshold`",
        explains: &[Cause::IdleInTransaction, Cause::HeldIdle, Cause::Burst, Cause::Undersized],
        responsible: Responsible::Leaking,
        also_shown: &[SilentSeconds, UsedConnections],
    },
    Rule {
        cause: Cause::RuntimeStalled,
        alternatives: &[
            &[
                AtLeast(LateShare, 0.5, "some late timers may be pauses of a busy machine; every second one is not"),
                SEVERE,
            ],
            &[AtLeast(UnpolledShare, 0.6, "under load, a waiter is sometimes seen just before it is polled"), SEVERE],
            &[
                AtLeast(LateShare, 0.5, "as above"),
                AtLeast(
                    TimerDelay,
                    0.25,
                    "every task, not only checkouts, is delayed by longer than most requests take in total",
                ),
            ],
        ],
        adopt_after: SOON,
        distinguished_from: "`undersized` and `churn`: connections are idle while checkouts wait, or timers are late, and what they delayed then needs connections all at once",
        explains: &[
            Cause::CacheDown,
            Cause::IdleInTransaction,
            Cause::HeldIdle,
            Cause::SlowQueries,
            Cause::ConnectSlow,
            Cause::Churn,
            Cause::RetryStorm,
            Cause::Burst,
            Cause::Undersized,
        ],
        responsible: Responsible::None,
        also_shown: &[TimerDelay, WaitP99],
    },
    Rule {
        cause: Cause::CacheDown,
        alternatives: &[&[CACHE_BYPASSED, CACHE_LOAD, SEVERE], &[CACHE_BYPASSED, CACHE_LOAD, MORE_CHECKOUTS]],
        adopt_after: SOON,
        distinguished_from: "`undersized`: the size suits the load that the cache leaves; `runtime_stalled`: timers are not late",
        explains: &[
            Cause::SlowQueries,
            Cause::RetryStorm,
            Cause::ConnectSlow,
            Cause::Churn,
            Cause::Undersized,
            Cause::Burst,
        ],
        responsible: Responsible::None,
        also_shown: &[CheckoutRate, WaitP99],
    },
    Rule {
        cause: Cause::IdleInTransaction,
        alternatives: &[
            &[
                AtLeast(InTransactionShare, 0.2, "a fifth of the pool also holds locks and hinders VACUUM"),
                AtLeast(
                    InTransactionOfHeld,
                    0.4,
                    "otherwise queries, or connections held outside transactions, weigh more",
                ),
                SEVERE,
            ],
            &[
                AtLeast(InTransactionShare, 0.2, "as above"),
                AtLeast(SilentSeconds, 60.0, "a transaction without a query for a minute is no pause between queries"),
            ],
        ],
        adopt_after: SOON,
        distinguished_from: "`held_idle`: a transaction is open; `slow_queries`: no query is running",
        explains: &[Cause::HeldIdle, Cause::Burst, Cause::Undersized],
        responsible: Responsible::InTransaction,
        also_shown: &[InTransactionConnections],
    },
    Rule {
        cause: Cause::HeldIdle,
        alternatives: &[
            &[
                AtLeast(HeldIdleShare, 0.3, "the pool is larger than its queries need by this share"),
                AtLeast(IdleOfHeld, 0.5, "otherwise queries or transactions weigh more"),
                SEVERE,
            ],
            &[
                AtLeast(HeldIdleShare, 0.3, "as above"),
                AtLeast(SilentSeconds, 60.0, "a minute without a query is no pause between queries"),
            ],
        ],
        adopt_after: SOON,
        distinguished_from: "`idle_in_transaction`: no transaction is open; `leak`: connections are returned",
        explains: &[Cause::Burst, Cause::Undersized],
        responsible: Responsible::HoldingIdle,
        also_shown: &[HeldIdleConnections, SaturatedShare],
    },
    Rule {
        cause: Cause::SlowQueries,
        alternatives: &[&[
            TimesUsual {
                measure: QuerySeconds,
                factor: 3.0,
                floor: 0.1,
                otherwise: 0.5,
                why: "three times the usual time is more than load alone causes; below 100 ms a query is not slow, and \
                      without a usual value half a second is long for a request",
            },
            AtLeast(TopExecutingShare, 0.5, "one operation accounts for most of the time"),
            AtLeast(SaturatedShare, 0.3, "slow queries that leave connections free are no problem of the pool"),
            SEVERE,
        ]],
        adopt_after: SOON,
        distinguished_from: "`undersized`: queries take longer than usual; `lock_wait`: they do not wait for a lock",
        explains: &[Cause::RetryStorm, Cause::Burst, Cause::Undersized],
        responsible: Responsible::Executing,
        also_shown: &[ExecutingConnections],
    },
    Rule {
        cause: Cause::RetryStorm,
        alternatives: &[
            &[
                AtLeast(RetryShare, 0.1, "half of what `retry_percent` allows by default"),
                AtLeast(RetryRate, 0.5, "thirty retries a minute; fewer add no noticeable load"),
            ],
            &[AtLeast(BudgetRefusals, 0.5, "the retry budget is spent all the time")],
        ],
        adopt_after: LATER,
        distinguished_from: "`server_down`, `lock_wait`: those explain the retries",
        explains: &[Cause::Burst, Cause::Undersized],
        responsible: Responsible::Retrying,
        also_shown: &[CheckoutRate],
    },
    Rule {
        cause: Cause::ConnectSlow,
        alternatives: &[&[
            TimesUsual {
                measure: ConnectSeconds,
                factor: 5.0,
                floor: 0.25,
                otherwise: 0.5,
                why: "connecting takes some milliseconds, and some ten with TLS over a distance",
            },
            AtLeast(ConnectWaiters, 0.2, "a fifth of the time, a checkout waits for it"),
        ]],
        adopt_after: LATER,
        distinguished_from: "`server_down`: connecting succeeds; `undersized`: checkouts wait for a connect, not in the queue",
        explains: &[Cause::Burst, Cause::Undersized],
        responsible: Responsible::None,
        also_shown: &[WaitP99],
    },
    Rule {
        cause: Cause::Churn,
        alternatives: &[&[
            AtLeast(
                ReplacedShare,
                0.1,
                "connecting costs as much as about fifty queries, so from a tenth on it is most of the work",
            ),
            AtLeast(ReplacedRate, 0.2, "fewer than twelve connections a minute do not burden a server"),
            AtLeast(ReplacedSteadiness, 0.3, "a deploy or a restart of the server closes all connections once"),
        ]],
        adopt_after: LATER,
        distinguished_from: "start-up and restarts: connections are closed all the time",
        explains: &[Cause::Burst],
        responsible: Responsible::None,
        also_shown: &[ConnectSeconds],
    },
    Rule {
        cause: Cause::Undersized,
        alternatives: &[&[AtLeast(SaturatedShare, 0.5, "the pool is exhausted most of the time"), SEVERE]],
        adopt_after: LATER,
        distinguished_from: "all of the above: none of them holds; `burst`: exhausted most of the time",
        explains: &[Cause::Burst],
        responsible: Responsible::Holding,
        also_shown: &[UsedShare, WaitP99, CheckoutRate],
    },
    Rule {
        cause: Cause::Burst,
        alternatives: &[&[
            AtLeast(BurstEpisodes, 2.0, "a single peak needs no change"),
            Below(BurstSaturatedShare, 0.5, "otherwise the pool is exhausted most of the time"),
            Below(BurstUsedShare, 0.7, "otherwise the mean load needs a larger pool as well"),
        ]],
        adopt_after: LATER,
        distinguished_from: "`undersized`: the mean load leaves connections free",
        explains: &[],
        responsible: Responsible::Peaks,
        also_shown: &[WaitP99, CheckoutRate],
    },
];
