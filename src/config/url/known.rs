//! The names of the query's parameters.

use super::super::table::{Setting, settings};

/// The parameters other than settings.
const PARAMETERS: &[&str] = &[
    "channel_binding",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "require_auth",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// Returns the names of all parameters.
pub(super) fn known() -> impl Iterator<Item = &'static str> {
    let settings = settings().filter(|setting| !setting.is_url());
    settings.map(Setting::name).chain(PARAMETERS.iter().copied())
}

pub(super) fn is_known(name: &str) -> bool {
    known().any(|known| known == name)
}
