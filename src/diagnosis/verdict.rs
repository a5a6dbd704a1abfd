//! Words a verdict: the finding, the advice, and the evidence.

use std::sync::Arc;

use super::call_site::CallSite;
use super::causes::{OPERATION_PLACEHOLDER, texts};
use super::figures::Figures;
use super::interval::{Interval, may_be_replaced};
use super::locks::LockBlock;
use super::measures::Measure;
use super::rules::{Condition, Responsible, Rule};
use super::window::Window;
use crate::labels::{Activity, BackendState, Cause, ClientAddress, CloseReason, ErrorCode};
use crate::telemetry::Evidence;

/// The operation and the call site responsible.
#[derive(Clone, Debug, Default)]
pub(super) struct Responsibility {
    pub(super) operation: Option<Arc<str>>,
    pub(super) call_site: Option<CallSite>,
}

/// The finding, in one sentence without a full stop, and the advice, in one with.
pub(super) struct Wording {
    pub(super) finding: String,
    pub(super) advice: String,
}

impl Responsibility {
    /// Finds the operation responsible in the window.
    pub(super) fn find(responsible: Responsible, window: &Window) -> Self {
        let held = |activity: Activity| {
            let top = window.top_operation(|operation| operation.held[activity.index()]);
            Self::of_operation(window, top.map(|(operation, _)| &operation.name), Some(activity))
        };
        match responsible {
            Responsible::None => Self::default(),
            Responsible::Executing => held(Activity::Executing),
            Responsible::HoldingIdle => held(Activity::Idle),
            Responsible::InTransaction => held(Activity::IdleInTransaction),
            Responsible::Holding => {
                let top = window.top_operation(|operation| operation.held_in_all());
                Self::of_operation(window, top.map(|(operation, _)| &operation.name), None)
            }
            Responsible::Peaks => {
                let top = window.top_operation_of_peaks(|operation| operation.held_in_all());
                Self::of_operation(window, top.map(|(operation, _)| &operation.name), None)
            }
            Responsible::Retrying => {
                let top = window.top_operation(|operation| operation.retries);
                Self::of_operation(window, top.map(|(operation, _)| &operation.name), None)
            }
            Responsible::Leaking => {
                let leaking = window.top_group(|group| group.suspected_leaks);
                leaking.map_or_else(Self::default, |group| Self {
                    operation: Some(Arc::clone(&group.operation)),
                    call_site: group.call_site.clone(),
                })
            }
            Responsible::SelfBlocked => {
                let blocked = window.latest(|interval| interval.first_self_blocked.as_ref());
                blocked.map_or_else(Self::default, |blocked| Self {
                    operation: Some(Arc::clone(&blocked.held_by)),
                    call_site: blocked.held_at.clone(),
                })
            }
            Responsible::Blocking => {
                let lock = window.latest(|interval| interval.first_lock.as_ref());
                let party = lock.map(|lock| lock.blocker.as_ref().unwrap_or(&lock.waiter));
                party.map_or_else(Self::default, |party| Self {
                    operation: Some(Arc::clone(&party.operation)),
                    call_site: party.call_site.clone(),
                })
            }
        }
    }

    /// Finds the call site at which the operation holds most connections with this activity.
    fn of_operation(window: &Window, name: Option<&Arc<str>>, activity: Option<Activity>) -> Self {
        let Some(name) = name else { return Self::default() };
        let group = window.top_group(|group| match activity {
            _ if group.operation != *name => 0.0,
            Some(activity) => group.activities[activity.index()],
            None => group.connections,
        });
        Self { operation: Some(Arc::clone(name)), call_site: group.and_then(|group| group.call_site.clone()) }
    }

    fn name(&self) -> &str {
        self.operation.as_deref().unwrap_or("an operation")
    }

    pub(super) fn call_site_text(&self) -> Option<Arc<str>> {
        self.call_site.as_ref().map(|site| site.to_string().into())
    }
}

/// The measures of what a proxy does not see, or sees as something else.
const UNSEEN_BY_PROXIES: [Measure; 4] =
    [Measure::WaitP99, Measure::WaitSeverity, Measure::TimeoutShare, Measure::CheckoutRate];

/// Returns the evidence for a cause: the measures of the conditions that hold, and others worth showing.
pub(super) fn evidence(
    rule: &Rule,
    conditions: &[Condition],
    figures: &Figures,
    usual: impl Fn(Measure) -> Option<f64>,
    is_proxied: bool,
) -> Vec<Evidence> {
    let mut measures: Vec<Measure> = Vec::new();
    for measure in conditions.iter().map(|condition| condition.measure()).chain(rule.also_shown.iter().copied()) {
        let is_unseen = is_proxied && UNSEEN_BY_PROXIES.contains(&measure);
        if !is_unseen && !measures.contains(&measure) {
            measures.push(measure);
        }
    }
    measures.into_iter().map(|measure| entry(measure, figures, &usual)).collect()
}

pub(super) fn entry(measure: Measure, figures: &Figures, usual: impl Fn(Measure) -> Option<f64>) -> Evidence {
    Evidence { name: measure.name(), value: figures[measure], unit: measure.unit(), usual: usual(measure) }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        ..0.9995 => format!("{:.0} ms", seconds * 1e3),
        ..9.95 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Words the finding and the advice for a cause.
#[allow(clippy::too_many_lines, reason = "one arm per cause")]
pub(super) fn word(
    cause: Cause,
    by: &Responsibility,
    figures: &Figures,
    usual_query: Option<f64>,
    window: &Window,
) -> Wording {
    use Measure::*;
    let last = window.last();
    let (max, name) = (window.max(), by.name());
    let is_proxied = window.is_proxied();
    let p99 = seconds(figures[WaitP99]);
    let constant = texts(cause).1.replace(OPERATION_PLACEHOLDER, name);
    let (finding, advice) = match cause {
        Cause::Healthy if is_proxied => (
            format!("the pool is healthy: {:.1} of {max} connections are used on average", figures[UsedConnections]),
            constant,
        ),
        Cause::Healthy if figures[CheckoutRate] == 0.0 => {
            ("the pool is healthy; nothing is checked out of it".to_owned(), constant)
        }
        Cause::Healthy => (format!("the pool is healthy: 99 % of checkouts take at most {p99}"), constant),
        Cause::NotEnoughData => (texts(cause).0.to_owned(), constant),
        Cause::Undersized if is_proxied => (
            format!("all {max} connections are in use {} of the time", percent(figures[SaturatedShare])),
            format!("Raise the maximum of the client's pool, or make `{name}`, which holds most connections, shorter."),
        ),
        Cause::Leak if is_proxied => (
            format!(
                "`{name}` does not end its transactions: {:.0} of {max} connections are held without being used, the first for {}",
                figures[SuspectedLeaks],
                seconds(figures[SilentSeconds])
            ),
            format!("Return the connections of `{name}` to the client's pool: look for a session that is not closed."),
        ),
        Cause::ConnectSlow if is_proxied => (
            format!(
                "connecting takes {}, and {:.1} clients wait for it",
                seconds(figures[ConnectSeconds]),
                figures[ConnectWaiters]
            ),
            "Check name lookup, TLS and the load of the server; keep connections open in the client's pool.".to_owned(),
        ),
        Cause::Undersized => (
            format!(
                "all {max} connections are in use {} of the time, and checkouts wait up to {p99}",
                percent(figures[SaturatedShare])
            ),
            constant,
        ),
        Cause::Burst => (
            format!(
                "peaks exhaust all {max} connections, though {} are used on average; checkouts wait up to {p99}",
                percent(figures[BurstUsedShare])
            ),
            constant,
        ),
        Cause::SlowQueries => {
            let usual = usual_query.map_or_else(String::new, |usual| format!(" instead of {}", seconds(usual)));
            (
                format!("queries of `{name}` take {}{usual} and occupy the pool", seconds(figures[QuerySeconds])),
                constant,
            )
        }
        Cause::LockWait => lock_wait(figures, window),
        Cause::HeldIdle => (
            format!(
                "`{name}` holds most of the {:.0} of {max} connections that are held without a running query",
                figures[HeldIdleConnections]
            ),
            constant,
        ),
        Cause::IdleInTransaction => (
            format!(
                "`{name}` holds most of the {:.0} of {max} connections that are idle in a transaction",
                figures[InTransactionConnections]
            ),
            constant,
        ),
        Cause::Leak => (
            format!(
                "`{name}` does not return its connections: {:.0} of {max} are held without being used, the first for {}",
                figures[SuspectedLeaks],
                seconds(figures[SilentSeconds])
            ),
            constant,
        ),
        Cause::SelfDeadlock => self_deadlock(figures, window),
        Cause::ServerDown => {
            let code = window.latest(|interval| interval.last_connect_failure);
            let why = code.map_or_else(String::new, |code| format!(" ({})", code.as_str()));
            let advice = if code.is_some_and(is_authentication) {
                "Check user, password and pg_hba.conf of the server.".to_owned()
            } else {
                constant
            };
            (format!("the server cannot be reached{why}"), advice)
        }
        Cause::ServerFull => {
            let server = last.and_then(|interval| interval.server.as_ref());
            let top = server.and_then(|server| server.top_application.as_ref());
            let taken = top.map_or_else(String::new, |(application, count)| {
                format!("; `{application}` has {count} of its connections")
            });
            let slots = server.filter(|server| server.slots > 0.0);
            let slots = slots.map_or_else(String::new, |server| format!(", {},", server.slots));
            let whom = top.map_or("the other clients", |(application, _)| application);
            let left = server.map_or(0.0, |server| server.unowned[ClientAddress::Same.index()]);
            let left = if left > 0.0 {
                format!(
                    "; {left} of this application, from this host, belong to no pool of this process, but to another process, one that has crashed, or a proxy"
                )
            } else {
                String::new()
            };
            (
                format!("the server refuses connections because all its slots{slots} are taken{taken}{left}"),
                format!(
                    "Close connections of {whom}, lower the sum of the pools' sizes below max_connections, or put a proxy in front of the server."
                ),
            )
        }
        Cause::ConnectSlow => (
            format!(
                "connecting takes {}, and {:.1} checkouts wait for it",
                seconds(figures[ConnectSeconds]),
                figures[ConnectWaiters]
            ),
            constant,
        ),
        Cause::Churn => churn(figures, window),
        Cause::RetryStorm => {
            (format!("{} of checkouts are retries, most of `{name}`", percent(figures[RetryShare])), constant)
        }
        Cause::CacheDown => {
            let caches = window.latest(|interval| interval.caches.as_ref()?.most_bypassed.as_ref());
            let cache = caches.map_or_else(|| "a cache".to_owned(), |cache| format!("the cache `{cache}`"));
            (
                format!(
                    "{cache} is away: {} of the lookups, {:.1} per second, are loaded from the database",
                    percent(figures[CacheBypassedShare]),
                    figures[CacheBypassedRate]
                ),
                constant,
            )
        }
        Cause::RuntimeStalled => (
            format!(
                "the runtime does not poll its tasks in time: timers are {} late, and connections are idle while checkouts wait",
                seconds(figures[TimerDelay])
            ),
            constant,
        ),
    };
    Wording { finding, advice }
}

fn is_authentication(code: ErrorCode) -> bool {
    code == ErrorCode::AUTH || code.as_str().starts_with("28")
}

fn at(site: Option<&CallSite>) -> String {
    site.map_or_else(String::new, |site| format!(" at {site}"))
}

fn lock_wait(figures: &Figures, window: &Window) -> (String, String) {
    let Some(lock) = window.latest(|interval| interval.first_lock.as_ref()) else {
        return ("queries wait for locks".to_owned(), "Look at pg_locks for the session that holds them.".to_owned());
    };
    let LockBlock { waiter, blocker, application, user, state, pid, state_seconds, .. } = lock;
    let waiters = format!(
        "{:.0} connections wait for a lock, `{}`{} the longest ({})",
        figures[Measure::LockBlocked],
        waiter.operation,
        at(waiter.call_site.as_ref()),
        seconds(figures[Measure::LockSeconds])
    );
    let state_text = match state {
        BackendState::IdleInTransaction | BackendState::IdleInTransactionAborted => "idle in a transaction",
        BackendState::Active => "executing",
        _ => "in its state",
    };
    let since = seconds(*state_seconds);
    match blocker {
        Some(blocker) => (
            format!(
                "{waiters}; `{}`{} of this pool blocks it, {state_text} for {since}",
                blocker.operation,
                at(blocker.call_site.as_ref())
            ),
            format!(
                "End the transaction of `{}` sooner, and lock rows in the same order everywhere.",
                blocker.operation
            ),
        ),
        None if *pid == 0 => (
            format!("{waiters}; a prepared transaction blocks it"),
            "Commit or roll back the prepared transaction; pg_prepared_xacts lists them.".to_owned(),
        ),
        None => (
            format!(
                "{waiters}; a session of `{application}` (user {user}, pid {pid}) blocks it, {state_text} for {since}"
            ),
            format!("End that session's transaction; SELECT pg_terminate_backend({pid}) does it by force."),
        ),
    }
}

fn self_deadlock(figures: &Figures, window: &Window) -> (String, String) {
    let share = percent(figures[Measure::SelfBlockedShare]);
    match window.latest(|interval| interval.first_self_blocked.as_ref()) {
        Some(blocked) => (
            format!(
                "tasks of `{}`, which hold {share} of the connections in use, wait for another connection in `{}`{}",
                blocked.held_by,
                blocked.operation,
                at(Some(&blocked.waits_at))
            ),
            format!(
                "Pass the connection of `{}` to `{}` instead of checking out a second one.",
                blocked.held_by, blocked.operation
            ),
        ),
        None => (
            format!("tasks that hold {share} of the connections in use wait for another one"),
            "Pass on the connection instead of checking out a second one.".to_owned(),
        ),
    }
}

fn churn(figures: &Figures, window: &Window) -> (String, String) {
    let closed = |reason: CloseReason| window.sum(|interval: &Interval| interval.closed[reason.index()]);
    let reasons = CloseReason::ALL.iter().copied().filter(|reason| may_be_replaced(*reason));
    let top = reasons.max_by(|a, b| closed(*a).total_cmp(&closed(*b))).unwrap_or(CloseReason::Discarded);
    let advice = match top {
        CloseReason::Overflow => "Raise pool_size, so that connections that are needed again stay open.",
        CloseReason::Recycled => "Raise recycle_after.",
        CloseReason::IdleTimeout => {
            "Raise idle_timeout or min_idle, so that connections that are needed again stay open."
        }
        CloseReason::HookFailed => "Look at the errors of the hook before_checkout in the log.",
        CloseReason::Discarded => "Return connections instead of closing them after each use.",
        CloseReason::Dirty => "End transactions and queries before the connection is returned.",
        CloseReason::Broken | CloseReason::PingFailed | CloseReason::Invalidated => {
            "Look for what closes connections on the way: a proxy's idle timeout, the server's log, or the network."
        }
        CloseReason::ClientClosed | CloseReason::ClientLost => {
            "Keep connections open in a pool of the client, instead of connecting for each use."
        }
        CloseReason::PingAbandoned => "Raise the callers' timeouts above the time of a ping.",
        _ => texts(Cause::Churn).1,
    };
    (
        format!(
            "{:.1} connections per second are closed and replaced, most with reason {}; that is {} of {}",
            figures[Measure::ReplacedRate],
            top.as_str(),
            percent(figures[Measure::ReplacedShare]),
            if window.is_proxied() { "transactions" } else { "checkouts" }
        ),
        advice.to_owned(),
    )
}
