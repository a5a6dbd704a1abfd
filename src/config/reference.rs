//! Generates `docs/settings.md` from the table of settings.

use super::table::SETTINGS;
use crate::generated::assert_current;

const INTRODUCTION: &str = "\
# Settings

<!-- Generated from src/config/table.rs. Regenerate it with
     POOLSCOPE_BLESS=1 cargo test -p poolscope --lib settings_page_is_current -->

A setting can be given in code (a public field of `Settings`), as an environment variable, as a key in TOML, and as a
parameter in the query of the database URL. Within one source, a setting's own value takes precedence over the URL's
query. Of several sources, the one that is applied last takes precedence.

Durations have a unit: `500ms`, `30s`, `1h`. A bare number is an error. A switch is `on` or `off` (or `true` or
`false`). An unknown name is an error, including environment variables that begin with `POOLSCOPE_`, except for those
of the `poolscope` binary (`POOLSCOPE_WEB_*`, `POOLSCOPE_SHOP_*`, `POOLSCOPE_LOG*`, `POOLSCOPE_TRACES_*`,
`POOLSCOPE_RECORD_*`, `POOLSCOPE_CONFIG_FILE`, `POOLSCOPE_PG_BIN`, `POOLSCOPE_PYTHON`, `POOLSCOPE_REDIS_SERVER`) and
those that Kubernetes sets for a Service whose name begins with `poolscope`.

| setting | environment variable | default | range | meaning |
|---|---|---|---|---|
";

const URL: &str = "
## The database URL

`postgres://` or `postgresql://`, with one or more hosts and ports, IPv6 addresses in brackets, and percent-encoded
directories of Unix sockets, as in libpq and tokio-postgres. A `@`, `/` or `?` in the user name or the password must be
percent-encoded (`%40`, `%2F`, `%3F`); a URL that seems to contain one unescaped is refused. In addition to the settings
above, the query accepts:

| parameter | values | meaning |
|---|---|---|
| `sslmode` | `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full` | As in libpq, but `allow` means `prefer`. `prefer` (the default) and `require` encrypt without verifying the server, unless `sslrootcert` is given: then the server's certificate must be issued by that authority, and an invalid certificate is an error with `prefer` too, instead of a fallback to plaintext. `verify-ca` requires `sslrootcert`; `verify-full` without it trusts the system's authorities. Connections over a Unix socket are not encrypted. |
| `sslrootcert` | a file, or `system` | The trusted authorities, as PEM. The file is read again after it has changed. `system` implies `verify-full`, and no other mode is accepted with it. |
| `sslcert`, `sslkey` | files | The client's certificate (with those of intermediate authorities) and its private key, both PEM, for servers that require one. The key must not be encrypted, and readable by its owner only, or by a group if it belongs to root, as in libpq. Both are read again after they have changed. |
| `require_auth` | `none`, `password`, `md5`, `gss`, `sspi`, `scram-sha-256`, `oauth`; several with commas, or each after `!` | The authentication methods that the server may request, or those that it must not, as in libpq; default: all that tokio-postgres supports (`none`, `password`, `md5`, `scram-sha-256`). With `sslmode=prefer`, a password is not sent in clear text without TLS, except over a Unix socket or to a loopback address, unless `require_auth` lists `password` as allowed. |
| `sslnegotiation` | `postgres`, `direct` | `direct` starts with TLS immediately (PostgreSQL 17), and requires `require` or a stricter mode. |
| `connect_timeout` | seconds, or a duration with its unit | The setting above. |
| `tcp_user_timeout` | a duration with its unit, or 0 | The setting above; 0 is off. Other bare numbers are errors, as libpq reads milliseconds and tokio-postgres seconds. |
| `keepalives`, `keepalives_idle` | 0 or 1; seconds | Both set `tcp_keepalive`: `keepalives=0` is off, `keepalives_idle=0` the default. |
| `keepalives_interval`, `keepalives_retries` or `keepalives_count` | seconds; a number | The time between probes (default 10), and the number of unanswered probes that closes the connection (default 3). |
| `user`, `password`, `dbname`, `host`, `hostaddr`, `port`, `options`, `target_session_attrs`, `channel_binding`, `load_balance_hosts` | | As in tokio-postgres. |
";

/// Returns the content of `docs/settings.md`.
fn reference() -> String {
    let rows: String = SETTINGS
        .iter()
        .map(|setting| {
            format!(
                "| `{}` | `{}` | {} | {} | {} |\n",
                setting.name(),
                setting.environment_variable(),
                setting.default(),
                setting.range(),
                setting.description(),
            )
        })
        .collect();
    [INTRODUCTION, &rows, URL].concat()
}

#[test]
fn settings_page_is_current() {
    assert_current("docs/settings.md", &reference(), "the table of settings");
}

#[test]
fn reference_rows_have_five_cells() {
    let page = reference();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > SETTINGS.len());
    for setting in SETTINGS {
        let row = rows.iter().find(|row| row.contains(&setting.environment_variable()));
        assert_eq!(row.map(|row| row.matches('|').count()), Some(6), "{}", setting.name());
    }
}
