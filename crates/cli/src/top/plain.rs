//! The pools as plain text, for pipes and files.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::app::{App, Exporter};
use super::model::{Holder, Pool, Waiter, duration};
use super::view::clock;

/// Returns one block with every pool, holder and waiter.
pub(super) fn page(app: &App, now: SystemTime) -> String {
    let (answering, pools, problems) = app.totals();
    let recorded = app.current().map(|(_, pool)| &*pool.recorded_at).filter(|time| !time.is_empty());
    let time = recorded.map_or_else(|| clock(now), str::to_owned);
    let mut page = format!(
        "poolscope top - {}, exporters answering: {answering} of {}, pools: {pools}, with a problem: {problems}\n",
        time,
        app.exporters.len(),
    );
    for exporter in &app.exporters {
        let _ = writeln!(page, "\n{}", exporter.url);
        match &exporter.error {
            Some(error) => drop(writeln!(page, "no answer: {error}")),
            None if exporter.pools.is_empty() => page.push_str("no pools\n"),
            None => table(&mut page, app, exporter),
        }
        // The pools of an earlier answer are not current.
        for pool in app.listed_pools(exporter).into_iter().filter(|_| exporter.error.is_none()) {
            details(&mut page, pool);
        }
    }
    page
}

fn table(page: &mut String, app: &App, exporter: &Exporter) {
    let pools = app.listed_pools(exporter);
    let name_width = pools.iter().map(|pool| pool.name.chars().count()).max().unwrap_or(0).max(4);
    let _ = writeln!(
        page,
        "{:<name_width$} {:<19} {:>7} {:>5} {:>5} {:>8} {:>7} {:>7} {:>5}",
        "POOL", "VERDICT", "SINCE", "USED", "IDLE", "CREATING", "CLOSING", "WAITING", "MAX"
    );
    for pool in pools {
        let Pool { name, state, verdict, .. } = pool;
        let _ = writeln!(
            page,
            "{name:<name_width$} {:<19} {:>7} {:>5} {:>5} {:>8} {:>7} {:>7} {:>5}",
            verdict.cause,
            verdict.since.map(duration).unwrap_or_default(),
            state.used,
            state.idle,
            state.creating,
            state.closing,
            pool.waiting(),
            state.max,
        );
    }
}

fn details(page: &mut String, pool: &Pool) {
    let verdict = &pool.verdict;
    let _ = writeln!(page, "\n{}: {}", pool.name, verdict.cause);
    for (lead, text) in [
        ("", &verdict.finding),
        ("at ", &verdict.call_site),
        ("evidence: ", &verdict.evidence),
        ("consequences: ", &verdict.consequences),
        ("advice: ", &verdict.advice),
        ("size: ", &pool.size),
    ] {
        if !text.is_empty() {
            let _ = writeln!(page, "  {lead}{text}");
        }
    }
    if !pool.holders.is_empty() {
        let _ = writeln!(page, "  {:>7} {:>3} {:<19} {:>7} {:>7} HOLDER", "AGE", "", "ACTIVITY", "PID", "QUERIES");
    }
    for Holder { operation, call_site, age, activity, queries, backend_pid, flags, .. } in &pool.holders {
        let (age, pid) = (duration(*age), backend_pid.map(|pid| pid.to_string()).unwrap_or_default());
        let _ = writeln!(page, "  {age:>7} {flags:>3} {activity:<19} {pid:>7} {queries:>7} {operation} {call_site}");
    }
    omitted(page, pool.holders_omitted, "holders");
    if !pool.waiters.is_empty() {
        let _ = writeln!(page, "  {:>7} {:>3} {:<19} WAITER", "AGE", "", "PHASE");
    }
    for Waiter { operation, call_site, age, phase, holds, .. } in &pool.waiters {
        let (age, flag) = (duration(*age), if holds.is_empty() { "" } else { "W" });
        let _ = writeln!(page, "  {age:>7} {flag:>3} {phase:<19} {operation} {call_site}");
    }
    omitted(page, pool.waiters_omitted, "waiters");
}

fn omitted(page: &mut String, count: u64, what: &str) {
    if count > 0 {
        let _ = writeln!(page, "  and {count} more {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::model::{State, Verdict};

    #[test]
    fn every_pool_holder_and_waiter_is_printed() {
        let mut app = App::new(["http://a:1", "http://b:2"].map(str::to_owned));
        let holder = Holder {
            operation: "list_orders".to_owned(),
            call_site: "src/orders.rs:42".to_owned(),
            age: 74.2,
            activity: "idle".to_owned(),
            queries: 3,
            backend_pid: Some(4711),
            flags: "L".to_owned(),
            ..Holder::default()
        };
        let waiter = Waiter {
            operation: "pay".to_owned(),
            call_site: "src/pay.rs:7".to_owned(),
            age: 1.5,
            phase: "queue".to_owned(),
            holds: "pay".to_owned(),
            ..Waiter::default()
        };
        let verdict =
            Verdict { cause: "leak".to_owned(), since: Some(3.0), advice: "Fix it.".to_owned(), ..Verdict::default() };
        let state = State { used: 10, waiting: 1, max: 10, ..State::default() };
        let (holders, waiters) = (vec![holder], vec![waiter]);
        app.update(
            0,
            Ok(vec![Pool {
                name: "shop".to_owned(),
                state,
                verdict,
                holders,
                waiters,
                holders_omitted: 2,
                ..Pool::default()
            }]),
        );
        app.update(1, Err("refused".to_owned()));
        let shown = page(&app, SystemTime::UNIX_EPOCH);
        assert_eq!(
            shown,
            "poolscope top - 00:00:00 UTC, exporters answering: 1 of 2, pools: 1, with a problem: 1\n\
             \n\
             http://a:1\n\
             POOL VERDICT               SINCE  USED  IDLE CREATING CLOSING WAITING   MAX\n\
             shop leak                  3.00s    10     0        0       0       1    10\n\
             \n\
             shop: leak\n  \
             advice: Fix it.\n      \
             AGE     ACTIVITY                PID QUERIES HOLDER\n    \
             1m14s   L idle                   4711       3 list_orders src/orders.rs:42\n  \
             and 2 more holders\n      \
             AGE     PHASE               WAITER\n    \
             1.50s   W queue               pay src/pay.rs:7\n\
             \n\
             http://b:2\n\
             no answer: refused\n"
        );
    }
}
