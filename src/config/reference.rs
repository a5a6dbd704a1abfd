//! The reference page, written from the table.

use super::table::SETTINGS;

const INTRODUCTION: &str = "\
# Settings

<!-- Generated from the table in src/config/table.rs. Regenerate it with
     POOLSCOPE_BLESS=1 cargo test --lib the_settings_page_is_up_to_date -->

Each setting can be given in code (a public field of `Settings`), as an environment variable, as a key in TOML and as
a parameter in the query of the database URL. Within one source a setting given by its own name wins over the same
setting in the URL's query; of two sources the one that is applied later wins.

A time is written with its unit, as in `500ms`, `30s` or `1h`; a number alone is an error. A switch is `on` or `off`
(or `true` and `false`). An unknown name is an error, also among the environment variables that begin with
`POOLSCOPE_`, except for the binary's own (`POOLSCOPE_WEB_*`, `POOLSCOPE_SHOP_*`, `POOLSCOPE_LOG*`, `POOLSCOPE_CONFIG_FILE`, `POOLSCOPE_PG_BIN`) and those that
Kubernetes sets for a Service whose name begins with `poolscope`.

| setting | environment variable | default | range | meaning |
|---|---|---|---|---|
";

const URL: &str = "
## The database URL

`postgres://` or `postgresql://`, with one or more hosts, ports, IPv6 addresses in brackets and the percent-encoded
directories of Unix sockets, as libpq and tokio-postgres read it. A `@`, `/` or `?` that is part of a user name, a
password or a database name is best percent-encoded (`%40`, `%2F`, `%3F`); where leaving it out makes the URL
ambiguous, the URL is refused. Beside the settings above the query takes:

| parameter | values | meaning |
|---|---|---|
| `sslmode` | `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full` | As libpq has it; `allow` is read as `prefer`. `prefer` (the default) and `require` encrypt without verifying the server, unless `sslrootcert` is given: then its certificate must come from that authority, and with `prefer` too a certificate that does not verify is an error rather than a reason to go on in plaintext. `verify-ca` needs `sslrootcert`; `verify-full` without it trusts the system's authorities. Nothing is encrypted on a Unix socket. |
| `sslrootcert` | a file, or `system` | The authorities to trust, as PEM. `system` needs `verify-full`, and implies it. |
| `sslnegotiation` | `postgres`, `direct` | `direct` starts with TLS at once (PostgreSQL 17), and needs `require` or more. |
| `connect_timeout` | seconds, or a time with its unit | The setting above. |
| `tcp_user_timeout` | a time with its unit, or 0 | The setting above; 0 is off. A bare number is refused because libpq reads milliseconds and tokio-postgres seconds. |
| `keepalives`, `keepalives_idle` | 0 or 1; seconds | Both stand for `tcp_keepalive`; 0 is off, or for `keepalives_idle` the default. |
| `keepalives_interval`, `keepalives_retries` or `keepalives_count` | seconds; a number | The time between probes (default 10) and how many may be lost (default 3). |
| `user`, `password`, `dbname`, `host`, `hostaddr`, `port`, `options`, `target_session_attrs`, `channel_binding`, `load_balance_hosts` | | As in tokio-postgres. |
";

/// The reference of all settings, in Markdown: what `docs/settings.md` holds.
#[must_use]
pub fn reference() -> String {
    let rows: String = SETTINGS
        .iter()
        .map(|setting| {
            format!(
                "| `{}` | `{}` | {} | {} | {} |\n",
                setting.name(),
                setting.environment_variable(),
                setting.default_text(),
                setting.range(),
                setting.help(),
            )
        })
        .collect();
    [INTRODUCTION, &rows, URL].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_settings_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        if std::env::var_os("POOLSCOPE_BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference(),
            "docs/settings.md differs from the table of settings: \
             rewrite it with POOLSCOPE_BLESS=1 cargo test --lib the_settings_page_is_up_to_date"
        );
    }

    #[test]
    fn no_cell_of_the_reference_breaks_its_table() {
        let page = reference();
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert!(rows.len() > SETTINGS.len());
        for setting in SETTINGS {
            let row = rows.iter().find(|row| row.contains(&setting.environment_variable()));
            assert_eq!(row.map(|row| row.matches('|').count()), Some(6), "{}", setting.name());
        }
    }
}
