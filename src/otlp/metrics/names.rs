//! OpenTelemetry's names of the catalogue's metrics and labels.

#[cfg(test)]
use crate::telemetry::catalogue::Kind;
use crate::telemetry::catalogue::Metric;

/// The metrics that the semantic conventions define: the catalogue's name, OpenTelemetry's and its unit.
const CONVENTIONS: &[(&str, &str, &str)] = &[
    ("db_client_connection_count", "db.client.connection.count", "{connection}"),
    ("db_client_connection_create_time_seconds", "db.client.connection.create_time", "s"),
    ("db_client_connection_idle_max", "db.client.connection.idle.max", "{connection}"),
    ("db_client_connection_idle_min", "db.client.connection.idle.min", "{connection}"),
    ("db_client_connection_max", "db.client.connection.max", "{connection}"),
    ("db_client_connection_pending_requests", "db.client.connection.pending_requests", "{request}"),
    ("db_client_connection_timeouts_total", "db.client.connection.timeouts", "{timeout}"),
    ("db_client_connection_use_time_seconds", "db.client.connection.use_time", "s"),
    ("db_client_connection_wait_time_seconds", "db.client.connection.wait_time", "s"),
    ("db_client_operation_duration_seconds", "db.client.operation.duration", "s"),
];

/// The labels that are attributes of the semantic conventions.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("db_client_connection_pool_name", "db.client.connection.pool.name"),
    ("db_client_connection_state", "db.client.connection.state"),
    ("db_query_summary", "db.query.summary"),
    ("error_type", "error.type"),
];

/// Returns the name and the unit of a metric. One that the conventions do not define keeps its name, which contains the
/// unit.
pub(super) fn of_metric(metric: &Metric) -> (&'static str, &'static str) {
    let found = CONVENTIONS.iter().find(|(name, ..)| *name == metric.name);
    found.map_or((metric.name, ""), |(_, name, unit)| (name, unit))
}

/// Returns the attribute of a label.
pub(super) fn of_label(label: &'static str) -> &'static str {
    ATTRIBUTES.iter().find(|(name, _)| *name == label).map_or(label, |(_, attribute)| attribute)
}

/// Returns the name that a translation to Prometheus gives a metric.
#[cfg(test)]
pub(super) fn in_prometheus(name: &str, unit: &str, kind: Kind) -> String {
    let mut translated = name.replace('.', "_");
    if unit == "s" {
        translated += "_seconds";
    }
    if kind == Kind::Counter && !translated.ends_with("_total") {
        translated += "_total";
    }
    translated
}
