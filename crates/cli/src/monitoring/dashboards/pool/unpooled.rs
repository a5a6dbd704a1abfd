//! The row with connections outside the pool, for the time of a migration.

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{metric, sum, sum_by, unless_zero};
use crate::monitoring::dashboards::unit::Unit;

pub(super) fn row() -> Row {
    Row::open("Unpooled connections", vec![pooled_and_unpooled(), unpooled_connects(), unpooled_connect_time()])
}

fn pooled_and_unpooled() -> PanelBuilder {
    let description = Description {
        shows: "Connections in use from the pool, and connections open outside it (`connect_unpooled`).",
        normal: "Unpooled falls while code is migrated, and the sum stays below the server's slots.",
        action: "Migrate the call sites shown beside, the busiest first.",
    };
    let used = metric!("db_client_connection_count").only(r#"db_client_connection_state="used""#);
    PanelBuilder::lines(PanelId::PooledAndUnpooled, "Pooled and unpooled connections", description)
        .query(sum(used), "pooled")
        .query(sum(metric!("poolscope_unpooled_connections_active")), "unpooled")
        .query(sum(metric!("poolscope_unpooled_seconds_total").rate()), "unpooled, on average")
        .colors(&[("pooled", "blue"), ("unpooled", "orange"), ("unpooled, on average", "yellow")])
}

fn unpooled_connects() -> PanelBuilder {
    let description = Description {
        shows: "Connections opened outside the pool per second, by call site.",
        normal: "0 after the migration. Each one costs as much as about fifty queries.",
        action: "Migrate the call site to the pool; docs/migration.md has both forms side by side.",
    };
    let opened = sum_by(&["operation"], metric!("poolscope_unpooled_connections_total").rate());
    PanelBuilder::lines(PanelId::UnpooledConnects, "Unpooled connections opened, by call site", description)
        .query(unless_zero(opened), "{{operation}}")
        .unit(Unit::PerSecond)
        .legend_table()
}

fn unpooled_connect_time() -> PanelBuilder {
    let description = Description {
        shows: "Average number of connection attempts in progress outside the pool, by call site: the time that the \
                pool would save.",
        normal: "Near 0. At one, there is practically always a request that waits for a new connection.",
        action: "Migrate these call sites first.",
    };
    let connecting = sum_by(&["operation"], metric!("poolscope_unpooled_connect_seconds_total").rate());
    PanelBuilder::lines(PanelId::UnpooledConnectTime, "Connecting outside the pool, by call site", description)
        .query(unless_zero(connecting), "{{operation}}")
        .stacked()
        .legend_table()
}
