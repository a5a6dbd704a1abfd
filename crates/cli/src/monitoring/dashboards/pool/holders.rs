//! Who holds it? The one question that a used/idle gauge does not answer.

use super::super::drawing::{Drawing, NEUTRAL, Says, WARNING};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{Series, metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;
use crate::monitoring::Thresholds;

/// What connections do, each in its colour: work, nothing, and nothing while others' rows are locked.
const ACTIVITIES: [(&str, &str); 3] = [("executing", "blue"), ("idle", "yellow"), ("idle_in_transaction", "orange")];

pub(super) fn row(thresholds: &Thresholds) -> Row {
    let panels = vec![
        who_holds(),
        held_doing(),
        held_for_nothing(),
        use_time(),
        queries(),
        wire_bytes(),
        query_time(thresholds),
    ];
    Row { title: "Who holds it?", panels }
}

fn use_seconds() -> Series {
    metric!("poolscope_connection_use_seconds_total")
}

fn who_holds() -> Drawing {
    let says = Says {
        means: "How many connections each operation holds on average, and what they do: executing (the server works), \
                idle (held, and nothing asked), idle_in_transaction (the same in an open transaction). Stacked, so that the \
                top is all that are used; the dashed line is the maximum.",
        bad: "One band that takes most of the pool. Idle bands: connections held while the code does something else, as \
              in calling another service. Idle in transaction: that, with locks.",
        cure: "A wide executing band: make its queries faster (below), or fewer at once. A wide idle band: return the \
               connection before the other work. An operation is a name given in code, or the file and line.",
    };
    Drawing::lines(Panel::WhoHolds, "Who holds connections: by operation and activity", says)
        .size(24, 11)
        .asks(unless_zero(sum_by(&["operation", "activity"], use_seconds().rate())), "{{operation}} · {{activity}}")
        .asks(sum(metric!("db_client_connection_max")), "maximum")
        .stacked()
        .listed()
        .limit("maximum", NEUTRAL)
}

fn held_doing() -> Drawing {
    let says = Says {
        means: "What all held connections do, stacked.",
        bad: "Much yellow or orange: the pool is larger than its queries need, because it is held while nothing is asked \
              of the server.",
        cure: "See which operations do that, in the next panel.",
    };
    Drawing::lines(Panel::HeldDoing, "Held connections: by activity", says)
        .asks(sum_by(&["activity"], use_seconds().rate()), "{{activity}}")
        .stacked()
        .colours(&ACTIVITIES)
}

fn held_for_nothing() -> Drawing {
    let says = Says {
        means: "How many connections each operation holds on average while nothing is asked of the server.",
        bad: "Anything near a whole connection that is there all the time.",
        cure: "Look in that operation for a call to another service, a lock or a long computation between two queries; \
               do it before the checkout, or after the return.",
    };
    Drawing::lines(Panel::HeldForNothing, "Held without a query: by operation", says)
        .size(16, 8)
        .asks(
            unless_zero(sum_by(&["operation"], use_seconds().only(r#"activity!="executing""#).rate())),
            "{{operation}}",
        )
        .listed()
}

fn use_time() -> Drawing {
    let says = Says {
        means: "How long a connection is held, from checkout to return; counted at the return. Points are examples: a \
                click leads to the trace.",
        bad: "A p99 that is far above the median: few hold for long, and the others wait for them.",
        cure: "Follow an example to its trace, or see which operations hold most.",
    };
    let use_time = || metric!("db_client_connection_use_time_seconds");
    Drawing::lines(Panel::UseTime, "How long connections are held", says)
        .asks(use_time().quantile(0.5, &[]), "p50")
        .asks(use_time().quantile(0.9, &[]), "p90")
        .asks(use_time().quantile(0.99, &[]), "p99")
        .unit(Unit::Seconds)
        .colours(&super::QUANTILES)
}

fn queries() -> Drawing {
    let says = Says {
        means: "Queries, read off the wire whatever API sent them, and those that came to an end.",
        bad: "Sent that stays above finished: queries are stuck, or their connections are lost under way.",
        cure: "Look at the server's pg_stat_activity for what they wait for; see the life cycle for lost connections.",
    };
    Drawing::lines(Panel::Queries, "Queries", says)
        .asks(sum(metric!("poolscope_queries_total").rate()), "sent")
        .asks(sum(metric!("poolscope_queries_finished_total").rate()), "finished")
        .unit(Unit::PerSecond)
        .colours(&[("sent", "blue"), ("finished", "purple")])
}

fn query_time(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "Ninety-nine of a hundred queries of each kind took no longer, as the wire shows it; the ten slowest kinds. \
                Points are examples: a click leads to the trace. The dashed line is where a query counts as slow.",
        bad: "Kinds above the line, in a pool that serves requests.",
        cure: "EXPLAIN them; or give jobs a pool of their own, so that requests do not wait behind them.",
    };
    let time = metric!("db_client_operation_duration_seconds").quantile(0.99, &["db_query_summary"]);
    Drawing::lines(Panel::QueryTime, "Slowest queries, p99", says)
        .size(24, 8)
        .asks(format!("topk(10, {time})"), "{{db_query_summary}}")
        .unit(Unit::Seconds)
        .listed()
        .above(WARNING, &thresholds.slow_query_seconds)
}

fn wire_bytes() -> Drawing {
    let says = Says {
        means: "Bytes of PostgreSQL's protocol, before encryption.",
        bad: "Received that grows without more queries: somebody reads more rows than before.",
        cure: "See the slowest queries; add a LIMIT, or name the columns that are needed.",
    };
    Drawing::lines(Panel::WireBytes, "On the wire", says)
        .asks(sum_by(&["direction"], metric!("poolscope_wire_bytes_total").rate()), "{{direction}}")
        .unit(Unit::BytesPerSecond)
        .colours(&[("received", "blue"), ("sent", "purple")])
}
