//! Settings from environment variables.

use std::ffi::OsString;

use super::Settings;
use super::error::{ConfigError, Origin};
use super::table::{SETTINGS, Setting};
use crate::suggest::nearest;

/// What the variables' names begin with.
pub(crate) const PREFIX: &str = "POOLSCOPE_";

pub(super) fn apply(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let mut found: Vec<(&Setting, String, String)> = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        match SETTINGS.iter().find(|s| s.name().to_ascii_uppercase() == name) {
            Some(setting) => found.push((setting, variable, value)),
            None if is_not_ours(name, &value) => {}
            None => return Err(unknown(&variable)),
        }
    }
    // The URL first: a setting's own variable wins over the URL's query.
    found.sort_by_key(|(setting, ..)| !setting.is_url());
    for (setting, variable, value) in found {
        settings.assign(setting, &value, &Origin::environment(&variable))?;
    }
    Ok(())
}

/// Those variables of a process that begin with the prefix, as text.
///
/// For `std::env::vars_os`: `std::env::vars` panics on a value that is not Unicode, whosever it is.
pub(super) fn own(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut own = Vec::new();
    for (variable, value) in variables {
        let Ok(variable) = variable.into_string() else {
            continue;
        };
        if !variable.starts_with(PREFIX) {
            continue;
        }
        let value = value.into_string().map_err(|_| ConfigError::Conflict {
            origin: Origin::environment(&variable),
            problem: "the value is not Unicode: give it in UTF-8".to_owned(),
        })?;
        own.push((variable, value));
    }
    Ok(own)
}

/// Whether somebody else's purpose is served by a variable with our prefix: the binary's own flags, where the
/// private server's programs are, or what Kubernetes injects for a Service named `poolscope` or `poolscope-…`.
fn is_not_ours(name: &str, value: &str) -> bool {
    let flags = ["WEB_", "LOG", "TRACES_", "SHOP_"];
    flags.iter().any(|flag| name.starts_with(flag))
        || ["PG_BIN", "CONFIG_FILE"].contains(&name)
        || is_from_kubernetes(name, value)
}

fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let for_poolscope = ["SERVICE_", "PORT_"].iter().any(|p| name.starts_with(p)) || name == "PORT";
    // For a Service named `poolscope-web` the names are POOLSCOPE_WEB_SERVICE_HOST and so on.
    let for_another = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && is_protocol_part(name, value));
    for_poolscope || for_another
}

/// `…_PORT=tcp://10.0.0.1:9719`, or `…_PORT_9719_TCP`, perhaps with `_PROTO`, `_PORT` or `_ADDR`.
fn is_protocol_part(name: &str, value: &str) -> bool {
    let protocols = ["TCP", "UDP", "SCTP"];
    let is_address = name.ends_with("_PORT") && value.contains("://");
    let is_numbered = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|word| protocols.contains(&word))
    });
    is_address || is_numbered
}

fn unknown(variable: &str) -> ConfigError {
    let names: Vec<_> = SETTINGS.iter().map(Setting::environment_variable).collect();
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let suggestion =
        nearest(name, names.iter().filter_map(|n| n.strip_prefix(PREFIX))).map(|name| format!("{PREFIX}{name}"));
    ConfigError::unknown(Origin::ENVIRONMENT, variable, suggestion)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::OsString;

    use super::super::tests::{env, message};

    #[test]
    fn an_unknown_variable_is_an_error_with_a_suggestion() {
        assert_eq!(
            message(env(&[("POOLSCOPE_POOLSIZE", "5")])),
            "environment variables: there is no setting `POOLSCOPE_POOLSIZE`: did you mean `POOLSCOPE_POOL_SIZE`?"
        );
        assert_eq!(
            message(env(&[("POOLSCOPE_COLOUR", "red")])),
            "environment variables: there is no setting `POOLSCOPE_COLOUR`"
        );
    }

    #[test]
    fn what_kubernetes_injects_for_a_service_named_poolscope_is_ignored() {
        let settings = env(&[
            ("POOLSCOPE_SERVICE_HOST", "10.0.0.11"),
            ("POOLSCOPE_SERVICE_PORT", "9719"),
            ("POOLSCOPE_SERVICE_PORT_METRICS", "9719"),
            ("POOLSCOPE_PORT", "tcp://10.0.0.11:9719"),
            ("POOLSCOPE_PORT_9719_TCP", "tcp://10.0.0.11:9719"),
            ("POOLSCOPE_PORT_9719_TCP_PROTO", "tcp"),
            ("POOLSCOPE_PORT_9719_TCP_PORT", "9719"),
            ("POOLSCOPE_PORT_9719_TCP_ADDR", "10.0.0.11"),
            ("POOLSCOPE_EXPORTER_SERVICE_HOST", "10.0.0.12"),
            ("POOLSCOPE_EXPORTER_SERVICE_PORT", "9719"),
            ("POOLSCOPE_EXPORTER_PORT", "tcp://10.0.0.12:9719"),
            ("POOLSCOPE_EXPORTER_PORT_9719_TCP_ADDR", "10.0.0.12"),
        ]);
        assert_eq!(settings.unwrap().pool_size, 10);
        assert!(env(&[("POOLSCOPE_EXPORTER_PORT", "9719")]).is_err());
        assert!(env(&[("POOLSCOPE_POOL_PORT_SIZE", "9719")]).is_err());
    }

    #[test]
    fn the_binarys_own_flags_and_other_programs_variables_are_ignored() {
        let settings = env(&[
            ("POOLSCOPE_WEB_LISTEN_ADDRESS", ":9719"),
            ("POOLSCOPE_WEB_CONFIG_FILE", "web.yml"),
            ("POOLSCOPE_LOG", "debug"),
            ("POOLSCOPE_SHOP_LISTEN_ADDRESS", ":8080"),
            ("POOLSCOPE_LOG_FORMAT", "json"),
            ("POOLSCOPE_PG_BIN", "/usr/lib/postgresql/17/bin"),
            ("POOLSCOPE_CONFIG_FILE", "/etc/poolscope/poolscope.toml"),
            ("PATH", "/bin"),
            ("poolscope_pool_size", "3"),
        ]);
        assert_eq!(settings.unwrap().pool_size, 10);
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_unicode_is_an_error_only_where_it_is_ours() {
        use std::os::unix::ffi::OsStringExt;

        let odd = || OsString::from_vec(vec![0xff]);
        let size = ("POOLSCOPE_POOL_SIZE".into(), "5".into());
        let found = super::own([("PATH".into(), odd()), (odd(), odd()), size]).unwrap();
        assert_eq!(found, [("POOLSCOPE_POOL_SIZE".to_owned(), "5".to_owned())]);
        assert_eq!(
            message(super::own([("POOLSCOPE_NAME".into(), odd())])),
            "environment variable POOLSCOPE_NAME: the value is not Unicode: give it in UTF-8"
        );
    }
}
