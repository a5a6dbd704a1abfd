//! The row with the holders of connections, which a gauge of used and idle connections does not show.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, NEUTRAL, PanelBuilder, WARNING};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::shared::QUANTILE_COLORS;
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::thresholds::Thresholds;

/// The colors of activities.
const ACTIVITY_COLORS: [(&str, &str); 3] =
    [("executing", "blue"), ("idle", "yellow"), ("idle_in_transaction", "orange")];

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![
        holders(),
        held_by_activity(),
        held_without_query(),
        use_time(),
        queries(),
        wire_bytes(),
        query_time(thresholds),
    ];
    Row::open("Holders", panels)
}

fn use_seconds() -> Series {
    metric!("poolscope_connection_use_seconds_total")
}

fn holders() -> PanelBuilder {
    let description = Description {
        shows: "Average number of connections held by each operation, stacked: executing a query, idle, or idle in a \
                transaction. The dashed line is the maximum.",
        normal: "Mostly executing, and no operation that holds most of the pool. Idle bands are connections held \
                 during other work, such as a call to another service; idle in transaction also holds locks.",
        action: "Executing: speed up the queries or limit the concurrency. Idle: return the connection before the \
                 other work. Operations are named in code, or else by file and line.",
    };
    PanelBuilder::lines(PanelId::Holders, "Connection holders by operation and activity", description)
        .size(24, 11)
        .query(unless_zero(sum_by(&["operation", "activity"], use_seconds().rate())), "{{operation}} · {{activity}}")
        .query(sum(metric!("db_client_connection_max")), "maximum")
        .stacked()
        .legend_table()
        .limit("maximum", NEUTRAL)
}

fn held_by_activity() -> PanelBuilder {
    let description = Description {
        shows: "Average number of held connections by activity, stacked.",
        normal: "Mostly executing. Large idle bands mean that the pool is larger than its queries need.",
        action: "The next panel shows the operations that hold connections without a query.",
    };
    PanelBuilder::lines(PanelId::HeldByActivity, "Held connections by activity", description)
        .query(sum_by(&["activity"], use_seconds().rate()), "{{activity}}")
        .stacked()
        .colors(&ACTIVITY_COLORS)
}

fn held_without_query() -> PanelBuilder {
    let description = Description {
        shows: "Average number of connections that each operation holds without a running query.",
        normal: "Well below one connection per operation.",
        action: "Look for calls to other services, locks or long computations between two queries, and move them \
                 before the checkout or after the return.",
    };
    PanelBuilder::lines(PanelId::HeldWithoutQuery, "Held without a query, by operation", description)
        .size(16, 8)
        .query(
            unless_zero(sum_by(&["operation"], use_seconds().only(r#"activity!="executing""#).rate())),
            "{{operation}}",
        )
        .legend_table()
}

fn use_time() -> PanelBuilder {
    let description = Description {
        shows: "How long connections are held, from checkout to return, recorded on return. Points are exemplars with \
                a link to their trace.",
        normal: "p99 not far above the median. Otherwise a few uses are long, and the others wait for them.",
        action: "Open an exemplar's trace, or check which operations hold most.",
    };
    let use_time = || metric!("db_client_connection_use_time_seconds");
    PanelBuilder::lines(PanelId::UseTime, "Use time", description)
        .query(use_time().quantile(0.5, &[]), "p50")
        .query(use_time().quantile(0.9, &[]), "p90")
        .query(use_time().quantile(0.99, &[]), "p99")
        .unit(Unit::Seconds)
        .colors(&QUANTILE_COLORS)
}

fn queries() -> PanelBuilder {
    let description = Description {
        shows: "Queries sent and finished per second, observed on the wire for every client API.",
        normal: "Both lines equal. Sent above finished: queries hang, or their connections are lost.",
        action: "Check pg_stat_activity for what they wait for, and the connection lifecycle for lost connections.",
    };
    PanelBuilder::lines(PanelId::Queries, "Queries", description)
        .query(sum(metric!("poolscope_queries_total").rate()), "sent")
        .query(sum(metric!("poolscope_queries_finished_total").rate()), "finished")
        .unit(Unit::PerSecond)
        .colors(&[("sent", "blue"), ("finished", "purple")])
}

fn query_time(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "99th percentile of the query time by query summary, observed on the wire; the ten slowest. Points are \
                exemplars with a link to their trace. The dashed line is the slow-query threshold.",
        normal: "Below the line, in a pool that serves requests.",
        action: "Run EXPLAIN on them, or give batch jobs a pool of their own.",
    };
    let time = metric!("db_client_operation_duration_seconds").quantile(0.99, &["db_query_summary"]);
    PanelBuilder::lines(PanelId::QueryTime, "Slowest queries, p99", description)
        .size(24, 8)
        .query(format!("topk(10, {time})"), "{{db_query_summary}}")
        .unit(Unit::Seconds)
        .legend_table()
        .threshold(WARNING, &thresholds.slow_query_seconds)
}

fn wire_bytes() -> PanelBuilder {
    let description = Description {
        shows: "Bytes per second of the PostgreSQL protocol, before encryption.",
        normal: "Proportional to the number of queries. If received bytes grow alone, queries return more rows than \
                 before.",
        action: "Check the slowest queries; add a LIMIT, or select fewer columns.",
    };
    PanelBuilder::lines(PanelId::WireBytes, "Network traffic", description)
        .query(sum_by(&["direction"], metric!("poolscope_wire_bytes_total").rate()), "{{direction}}")
        .unit(Unit::BytesPerSecond)
        .colors(&[("received", "blue"), ("sent", "purple")])
}
