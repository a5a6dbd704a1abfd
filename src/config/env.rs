//! Settings from environment variables.

use std::ffi::OsString;

use super::assignment::Assignment;
use super::error::ConfigError;
use super::location::Location;
use super::table::{ENVIRONMENT_PREFIX, SETTINGS, Setting};
use crate::suggest::nearest;

/// Reads the settings among `variables`. Variables without the prefix are ignored.
pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Result<Vec<Assignment>, ConfigError> {
    let mut assignments = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else {
            continue;
        };
        match SETTINGS.iter().find(|setting| setting.name().to_ascii_uppercase() == name) {
            Some(setting) => assignments.push(Assignment::parse(setting, &value, &Location::variable(&variable))?),
            None if is_reserved(name, &value) => {}
            None => return Err(unknown(&variable)),
        }
    }
    Ok(assignments)
}

/// Returns the environment variables of this process that begin with `POOLSCOPE_`, for
/// [`Settings::apply_env`](super::Settings::apply_env) on settings with other defaults than
/// [`Settings::from_env`](super::Settings::from_env) has.
///
/// ```
/// use poolscope::Settings;
/// use poolscope::config::env_vars;
///
/// # fn main() -> Result<(), poolscope::ConfigError> {
/// let mut defaults = Settings::default();
/// defaults.pool_size = 2;
/// let settings = defaults.apply_env(env_vars()?)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns an error if the value of such a variable is not Unicode.
pub fn env_vars() -> Result<Vec<(String, String)>, ConfigError> {
    with_prefix(std::env::vars_os())
}

/// Returns the variables that begin with the prefix.
///
/// Takes `std::env::vars_os`, since `std::env::vars` panics if the value of any variable is not Unicode.
fn with_prefix(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut found = Vec::new();
    for (variable, value) in variables {
        let Ok(variable) = variable.into_string() else {
            continue;
        };
        if !variable.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        let value = value.into_string().map_err(|_| {
            ConfigError::conflict(&Location::variable(&variable), "the value is not Unicode: give it in UTF-8")
        })?;
        found.push((variable, value));
    }
    Ok(found)
}

/// Returns whether a variable with the prefix has another purpose: it belongs to the `poolscope` binary, or Kubernetes
/// sets it for a Service named `poolscope` or `poolscope-…`.
fn is_reserved(name: &str, value: &str) -> bool {
    let prefixes = ["WEB_", "LOG", "TRACES_", "SHOP_", "RECORD_"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || ["PG_BIN", "PYTHON", "REDIS_SERVER", "CONFIG_FILE"].contains(&name)
        || is_from_kubernetes(name, value)
}

fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let for_poolscope = ["SERVICE_", "PORT_"].iter().any(|prefix| name.starts_with(prefix)) || name == "PORT";
    // For a Service named `poolscope-web` the names are POOLSCOPE_WEB_SERVICE_HOST and so on.
    let for_another = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT") && is_port_variable(name, value));
    for_poolscope || for_another
}

/// Returns whether the variable is `…_PORT=tcp://10.0.0.1:9719`, or `…_PORT_9719_TCP` with an optional `_PROTO`, `_PORT`
/// or `_ADDR`.
fn is_port_variable(name: &str, value: &str) -> bool {
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
    let without_prefix = |name| str::strip_prefix(name, ENVIRONMENT_PREFIX);
    let name = without_prefix(variable).unwrap_or(variable);
    let suggestion = nearest(name, names.iter().filter_map(|name| without_prefix(name)));
    let suggestion = suggestion.map(|name| format!("{ENVIRONMENT_PREFIX}{name}"));
    ConfigError::unknown(&Location::ENVIRONMENT, variable, suggestion)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::OsString;

    use super::super::tests::{env, message};

    #[test]
    fn unknown_variable_has_a_suggestion() {
        assert_eq!(
            message(env(&[("POOLSCOPE_POOLSIZE", "5")])),
            "environment variables: unknown setting `POOLSCOPE_POOLSIZE`: did you mean `POOLSCOPE_POOL_SIZE`?"
        );
        assert_eq!(
            message(env(&[("POOLSCOPE_COLOUR", "red")])),
            "environment variables: unknown setting `POOLSCOPE_COLOUR`"
        );
    }

    #[test]
    fn kubernetes_service_variables_are_ignored() {
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
    fn variables_of_the_binary_are_ignored() {
        let settings = env(&[
            ("POOLSCOPE_WEB_LISTEN_ADDRESS", ":9719"),
            ("POOLSCOPE_WEB_CONFIG_FILE", "web.yml"),
            ("POOLSCOPE_LOG", "debug"),
            ("POOLSCOPE_SHOP_LISTEN_ADDRESS", ":8080"),
            ("POOLSCOPE_LOG_FORMAT", "json"),
            ("POOLSCOPE_RECORD_DIR", "/var/lib/poolscope"),
            ("POOLSCOPE_PG_BIN", "/usr/lib/postgresql/17/bin"),
            ("POOLSCOPE_REDIS_SERVER", "valkey-server"),
            ("POOLSCOPE_CONFIG_FILE", "/etc/poolscope/poolscope.toml"),
            ("PATH", "/bin"),
            ("poolscope_pool_size", "3"),
        ]);
        assert_eq!(settings.unwrap().pool_size, 10);
    }

    #[cfg(unix)]
    #[test]
    fn non_unicode_value_is_an_error_with_prefix_only() {
        use std::os::unix::ffi::OsStringExt;

        let not_unicode = || OsString::from_vec(vec![0xff]);
        let size = ("POOLSCOPE_POOL_SIZE".into(), "5".into());
        let found = super::with_prefix([("PATH".into(), not_unicode()), (not_unicode(), not_unicode()), size]).unwrap();
        assert_eq!(found, [("POOLSCOPE_POOL_SIZE".to_owned(), "5".to_owned())]);
        assert_eq!(
            message(super::with_prefix([("POOLSCOPE_NAME".into(), not_unicode())])),
            "environment variable POOLSCOPE_NAME: the value is not Unicode: give it in UTF-8"
        );
    }
}
