//! What fails, what is tried again, and how connections live, in all pools.

use super::super::drawing::{Drawing, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{Series, max, metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;
use crate::monitoring::Thresholds;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::rules::recording::{CONNECT_FAILURES, CONNECTED, RETRY_SHARE};

pub(super) fn failures() -> Row {
    Row { title: "What fails?", panels: vec![timeouts(), connection_errors()] }
}

pub(super) fn retries(thresholds: &Thresholds) -> Row {
    Row { title: "What is tried again, what comes back dirty?", panels: vec![retried(thresholds), dirt()] }
}

pub(super) fn cycle() -> Row {
    Row { title: "How do connections live, and what does not use a pool?", panels: vec![churn(), unpooled()] }
}

fn timeouts() -> Drawing {
    let says = Says {
        means: "Checkouts that met their deadline, by pool name; the ten with most.",
        bad: "Any that stays. Many pools at once: the server is the cause.",
        cure: "One pool: open it, and see who holds it. All: see the errors beside.",
    };
    let timeouts = sum_by(&["job", POOL_LABEL], metric!("db_client_connection_timeouts_total").rate());
    Drawing::lines(Panel::FleetFailures, "Timeouts: by pool", says)
        .size(12, 8)
        .asks(format!("topk(10, {timeouts} > 0)"), &format!("{{{{{POOL_LABEL}}}}} · {{{{job}}}}"))
        .unit(Unit::PerSecond)
        .stacked()
        .listed()
}

fn connection_errors() -> Drawing {
    let says = Says {
        means: "Errors of connections in all pools, by what was under way (connect, ping, reset) and SQLSTATE; where the \
                server sent none: io, timeout, tls, auth.",
        bad: "53300: the server has no slots left. 57P03, io: it is away or starts. 28P01, auth: a wrong password.",
        cure: "53300: see the sum of maxima against the slots. The others: look at the server.",
    };
    let errors = metric!("poolscope_connection_errors_total").only(r#"phase!="query""#);
    Drawing::lines(Panel::FleetConnectionErrors, "Errors of connections: by SQLSTATE", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&["phase", "sqlstate"], errors.rate())), "{{phase}} · {{sqlstate}}")
        .unit(Unit::PerSecond)
        .listed()
}

fn retried(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "Retries for each checkout: in the worst pool, and in the one in the middle. The dashed line is where they \
                are an alert.",
        bad: "Above the line they are a load of their own.",
        cure: "Open the pool: its retries go by operation and SQLSTATE.",
    };
    let share = Series::recorded(RETRY_SHARE);
    Drawing::lines(Panel::FleetRetries, "Retries for each checkout", says)
        .size(12, 8)
        .asks(max(&share), "worst")
        .asks(format!("quantile(0.5, {share})"), "middle")
        .unit(Unit::Share)
        .colours(&[("worst", "purple"), ("middle", "light-blue")])
        .above(WARNING, &thresholds.retry_share)
}

fn dirt() -> Drawing {
    let says = Says {
        means: "Connections that came back dirty, by kind, and the suspected leaks there are.",
        bad: "A stair of suspected leaks; dirty returns that began with a new version.",
        cure: "The table above shows which pools have leaks; the pool's dashboard which operations leave it dirty.",
    };
    Drawing::lines(Panel::FleetDirt, "Dirty returns and suspected leaks", says)
        .size(12, 8)
        .asks(unless_zero(sum_by(&["kind"], metric!("poolscope_dirty_returns_total").rate())), "{{kind}} a second")
        .asks(sum(metric!("poolscope_suspected_leaks")), "suspected leaks")
        .colours(&[("suspected leaks", "orange")])
}

fn churn() -> Drawing {
    let says = Says {
        means: "Connections established in all pools, and attempts that failed.",
        bad: "Many, all the time: they are made and thrown away. Failed: the server is away or full.",
        cure: "Raise pool_size where overflow is closed all the time; for failures see their SQLSTATE.",
    };
    Drawing::lines(Panel::FleetChurn, "Connections made", says)
        .size(12, 8)
        .asks(sum(Series::recorded(CONNECTED)), "established")
        .asks(sum(Series::recorded(CONNECT_FAILURES)), "failed")
        .unit(Unit::PerSecond)
        .colours(&[("established", "blue"), ("failed", "red")])
}

fn unpooled() -> Drawing {
    let says = Says {
        means: "Connections that are open outside of pools (`connect_unpooled`), by call site; the ten with most.",
        bad: "They take slots of the server that no pool's maximum counts.",
        cure: "Move the call sites to the pool: docs/migration.md has both forms side by side.",
    };
    let open = sum_by(&["operation"], metric!("poolscope_unpooled_connections_active"));
    Drawing::lines(Panel::FleetUnpooled, "Open outside of pools: by call site", says)
        .size(12, 8)
        .asks(format!("topk(10, {open} > 0)"), "{{operation}}")
        .stacked()
        .listed()
}
