//! How far has the code moved to the pool? Gone when nothing is left outside.

use super::super::drawing::{Drawing, Says};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{metric, sum, sum_by, unless_zero};
use super::super::unit::Unit;

pub(super) fn row() -> Row {
    Row { title: "What does not use the pool yet?", panels: vec![migration(), unpooled(), connecting()] }
}

fn migration() -> Drawing {
    let says = Says {
        means: "Connections that are in use from the pool, and those that are open outside it (`connect_unpooled`).",
        bad: "Outside that does not fall while code is moved; both together above the server's slots.",
        cure: "Move the call sites beside, the busiest first.",
    };
    let used = metric!("db_client_connection_count").only(r#"db_client_connection_state="used""#);
    Drawing::lines(Panel::Migration, "Pooled and unpooled connections", says)
        .asks(sum(used), "pooled")
        .asks(sum(metric!("poolscope_unpooled_connections_active")), "unpooled")
        .asks(sum(metric!("poolscope_unpooled_seconds_total").rate()), "unpooled, on average")
        .colours(&[("pooled", "blue"), ("unpooled", "orange"), ("unpooled, on average", "yellow")])
}

fn unpooled() -> Drawing {
    let says = Says {
        means: "Connections opened outside the pool, by call site.",
        bad: "A call site that opens many: each costs as much as some fifty queries.",
        cure: "Move it to the pool: docs/migration.md has both forms side by side.",
    };
    let opened = sum_by(&["operation"], metric!("poolscope_unpooled_connections_total").rate());
    Drawing::lines(Panel::Unpooled, "Opened outside the pool: by call site", says)
        .asks(unless_zero(opened), "{{operation}}")
        .unit(Unit::PerSecond)
        .listed()
}

fn connecting() -> Drawing {
    let says = Says {
        means: "How many are connecting outside the pool on average: what a pool would save, by call site.",
        bad: "Anything near one: there is always a request that waits for a connection to be made.",
        cure: "Move these call sites first.",
    };
    let connecting = sum_by(&["operation"], metric!("poolscope_unpooled_connect_seconds_total").rate());
    Drawing::lines(Panel::UnpooledConnecting, "Time spent connecting outside: by call site", says)
        .asks(unless_zero(connecting), "{{operation}}")
        .stacked()
        .listed()
}
