//! What fails, and with which SQLSTATE?

use super::super::drawing::{Drawing, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{Series, metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;
use crate::monitoring::Thresholds;

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![failed_checkouts(), who_fails(), self_deadlocks(), connection_errors(thresholds), query_errors()];
    Row { title: "What fails?", panels }
}

/// Checkouts that gave no connection, although their caller wanted one to the end.
pub(super) fn failed() -> Series {
    metric!("poolscope_checkouts_total").only(r#"outcome!~"ok|cancelled""#)
}

fn failed_checkouts() -> Drawing {
    let says = Says {
        means: "Checkouts that gave no connection, by outcome: timeout (its deadline), error (connecting failed), shed \
                (load that was turned away), closed (the pool is), cancelled (its caller went away).",
        bad: "timeout: the pool is exhausted, or connecting hangs. error: see the SQLSTATE beside. cancelled in numbers: \
              callers give up before they are served.",
        cure: "timeout: see who holds it. error: see whether the server is away, full, or refuses the login.",
    };
    let ended = metric!("poolscope_checkouts_total").only(r#"outcome!="ok""#);
    Drawing::lines(Panel::FailedCheckouts, "Checkouts without success: by outcome", says)
        .asks(sum_by(&["outcome"], ended.rate()), "{{outcome}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colours(&[
            ("timeout", "red"),
            ("error", "orange"),
            ("shed", "purple"),
            ("closed", "#6e7079"),
            ("cancelled", "light-blue"),
        ])
}

fn who_fails() -> Drawing {
    let says = Says {
        means: "The same by operation, without those that their callers gave up.",
        bad: "Any. If all operations fail it is the pool or the server; if one does, it asks for too much at once.",
        cure: "Give an operation that comes in bursts a limit of its own, or a pool of its own.",
    };
    Drawing::lines(Panel::WhoFails, "Who gets none: by operation", says)
        .size(10, 8)
        .asks(unless_zero(sum_by(&["operation"], failed().rate())), "{{operation}}")
        .unit(Unit::PerSecond)
        .stacked()
        .listed()
}

fn connection_errors(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "Errors of connections, by what was under way (connect, ping, reset) and SQLSTATE; where the server sent \
                none: io, timeout, tls, auth. Those of queries are beside. The dashed line is where failing to connect is an \
                alert.",
        bad: "connect with 53300: no slots left. 28P01 or auth: wrong password. 57P03 or io: the server is away or starts. \
              ping: connections die while they lie idle.",
        cure: "53300: see the sum of all pools in the fleet's dashboard. ping: a firewall or proxy drops idle connections; \
               lower tcp_keepalive or recycle_after.",
    };
    let errors = metric!("poolscope_connection_errors_total").only(r#"phase!="query""#);
    Drawing::lines(Panel::ConnectionErrors, "Errors of connections: by SQLSTATE", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&["phase", "sqlstate"], errors.rate())), "{{phase}} · {{sqlstate}}")
        .unit(Unit::PerSecond)
        .listed()
        .above(WARNING, &thresholds.connect_failures)
}

fn query_errors() -> Drawing {
    let says = Says {
        means: "Errors that the server reported for queries, by operation and SQLSTATE.",
        bad: "40001 and 40P01: transactions in each other's way. 57014: cancelled by a timeout. 23505: a duplicate. 42…: \
              a query that is wrong, perhaps since the last release.",
        cure: "40001 and 40P01: retry them, and touch rows in one order. 42…: compare with the version marks.",
    };
    let errors = metric!("poolscope_query_errors_total").rate();
    Drawing::lines(Panel::QueryErrors, "Errors of queries: by operation and SQLSTATE", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&["operation", "sqlstate"], errors)), "{{operation}} · {{sqlstate}}")
        .unit(Unit::PerSecond)
        .listed()
}

fn self_deadlocks() -> Drawing {
    let says = Says {
        means: "Checkouts that waited while their own task already held a connection of this pool.",
        bad: "Any: with every connection in such hands, all wait for each other until they time out.",
        cure: "Pass the connection on instead of asking for a second one. A timeout's error names the line of code.",
    };
    Drawing::lines(Panel::SelfDeadlocks, "Waiting for oneself", says)
        .size(6, 8)
        .at_least(1.0)
        .asks(sum(metric!("poolscope_self_deadlocks_total").rate()), "checkouts")
        .unit(Unit::PerSecond)
        .colours(&[("checkouts", "orange")])
}
