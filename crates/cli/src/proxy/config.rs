//! Reads the proxy's configuration from a file and flags.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use poolscope::config;
use poolscope::proxy::{ListenAddress, Settings};
use toml::Spanned;
use toml::de::DeValue;

use super::error::ProxyCommandError;
use super::keys::{KEYS, Key};
use crate::document::{self, InvalidEntry, type_name};
use crate::service::{NotAPath, quoted};

/// The flags that configure the proxy. They take precedence over the file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags<'a> {
    pub(crate) listen: &'a [String],
    pub(crate) upstream: Option<&'a str>,
    pub(crate) config: Option<&'a Path>,
}

/// Returns the settings of the proxy.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or a value in it or a flag is invalid.
pub(crate) fn settings(flags: Flags<'_>) -> Result<Settings, ProxyCommandError> {
    let text = match flags.config {
        Some(path) => {
            NotAPath::check(path, "--config", "give the URL as --upstream")?;
            config::read_file(path).map_err(|source| ProxyCommandError::Read { path: path.to_owned(), source })?
        }
        None => String::new(),
    };
    let path = flags.config.unwrap_or(Path::new(""));
    let in_file = |source| ProxyCommandError::File { path: path.to_owned(), source };
    let document = document::parse(&text).map_err(in_file)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let entries = document::entries(&document);
    let upstream = entries.iter().find(|(key, _)| &**key.get_ref() == "upstream").map(|(_, value)| *value);
    let mut settings = match (flags.upstream, upstream) {
        (Some(url), _) => Settings::new(url)?,
        (None, Some(value)) => {
            let reader = Reader { text: &text, key: key("upstream"), value };
            let url = reader.text().map_err(in_file)?;
            Settings::new(&url)?
        }
        (None, None) => return Err(ProxyCommandError::NoUpstream),
    };
    for (key, value) in entries {
        let Some(known) = KEYS.iter().find(|known| known.name == &**key.get_ref()) else {
            return Err(in_file(InvalidEntry::unknown(&text, key, KEYS.iter().map(|key| key.name))));
        };
        apply(&mut settings, &Reader { text: &text, key: known, value }, directory).map_err(in_file)?;
    }
    if !flags.listen.is_empty() {
        let parse = |address: &String| {
            ListenAddress::from_str(address).map_err(|problem| ProxyCommandError::Flag { flag: "listen", problem })
        };
        settings.listen = flags.listen.iter().map(parse).collect::<Result<_, _>>()?;
    }
    settings.validate()?;
    Ok(settings)
}

fn key(name: &str) -> &'static Key {
    KEYS.iter().find(|key| key.name == name).unwrap_or(&KEYS[0])
}

/// Applies an entry of the file.
fn apply(settings: &mut Settings, value: &Reader<'_>, directory: &Path) -> Result<(), InvalidEntry> {
    match value.key.name {
        "listen" => settings.listen = value.parsed_list()?,
        "tls_certificate" => settings.tls_certificate = Some(value.path(directory)?),
        "tls_key" => settings.tls_key = Some(value.path(directory)?),
        "group_by" => settings.group_by = value.parsed_list()?,
        "max_pools" => settings.max_pools = value.number(1, 1000)?,
        "pool_size" => settings.pool_size = value.number(0, 100_000)?,
        "max_connections" => settings.max_connections = value.number(0, 100_000)?,
        "startup_timeout" => settings.startup_timeout = value.time()?,
        "connect_timeout" => settings.connect_timeout = value.time()?,
        "drain_timeout" => settings.drain_timeout = value.time()?,
        "leak_threshold" => settings.leak_threshold = value.time_or_off()?,
        "slow_query_threshold" => settings.slow_query_threshold = value.time_or_off()?,
        "operation_keys" => settings.operation_keys = value.list()?,
        _ => {}
    }
    Ok(())
}

/// Reads the value of a key.
struct Reader<'a> {
    text: &'a str,
    key: &'static Key,
    value: &'a Spanned<DeValue<'a>>,
}

impl Reader<'_> {
    fn invalid(&self, value: &Spanned<DeValue<'_>>) -> InvalidEntry {
        let found = match value.get_ref() {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => number.to_string(),
            other => type_name(other).to_owned(),
        };
        InvalidEntry::value(self.text, value, self.key.name, found, self.key.range)
    }

    fn text_of(&self, value: &Spanned<DeValue<'_>>) -> Result<String, InvalidEntry> {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(text.to_string()),
            _ => Err(self.invalid(value)),
        }
    }

    fn text(&self) -> Result<String, InvalidEntry> {
        self.text_of(self.value)
    }

    fn path(&self, directory: &Path) -> Result<PathBuf, InvalidEntry> {
        Ok(directory.join(self.text()?))
    }

    /// Reads a list of texts, or a single one.
    fn list(&self) -> Result<Vec<String>, InvalidEntry> {
        match self.value.get_ref() {
            DeValue::Array(values) => values.iter().map(|value| self.text_of(value)).collect(),
            _ => Ok(vec![self.text()?]),
        }
    }

    fn parsed_list<T: FromStr>(&self) -> Result<Vec<T>, InvalidEntry> {
        let parsed = self.list()?.iter().map(|text| text.parse()).collect::<Result<Vec<T>, _>>();
        parsed.ok().filter(|list| !list.is_empty()).ok_or_else(|| self.invalid(self.value))
    }

    fn number(&self, min: usize, max: usize) -> Result<usize, InvalidEntry> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => number.to_string().parse().ok(),
            _ => None,
        };
        number.filter(|number| (min..=max).contains(number)).ok_or_else(|| self.invalid(self.value))
    }

    fn duration(&self, min: Duration, max: Duration) -> Option<Duration> {
        let DeValue::String(text) = self.value.get_ref() else { return None };
        humantime::parse_duration(text).ok().filter(|time| (min..=max).contains(time))
    }

    fn time(&self) -> Result<Duration, InvalidEntry> {
        let time = self.duration(Duration::from_secs(1), Duration::from_secs(3600));
        time.ok_or_else(|| self.invalid(self.value))
    }

    fn time_or_off(&self) -> Result<Option<Duration>, InvalidEntry> {
        match self.value.get_ref() {
            DeValue::String(text) if text == "off" => Ok(None),
            _ => {
                let time = self.duration(Duration::from_millis(1), Duration::from_secs(86_400));
                time.map(Some).ok_or_else(|| self.invalid(self.value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poolscope::proxy::GroupKey;
    use poolscope::text::ErrorChain;

    fn read(text: &str) -> Result<Settings, ProxyCommandError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        settings(Flags { config: Some(&path), ..Flags::default() })
    }

    #[test]
    fn every_key_is_applied() {
        let text = "listen = [':6432', '/run/p/.s.PGSQL.6432']\nupstream = 'postgres://db:5433?sslmode=disable'\n\
                    tls_certificate = 'tls.crt'\ntls_key = '/etc/tls.key'\ngroup_by = ['user', 'client']\nmax_pools = 7\n\
                    pool_size = 15\nmax_connections = 100\nstartup_timeout = '10s'\nconnect_timeout = '2s'\n\
                    drain_timeout = '1m'\nleak_threshold = 'off'\nslow_query_threshold = '250ms'\noperation_keys = 'job'\n";
        assert_eq!(text.lines().count(), KEYS.len());
        let read = read(text).unwrap();
        assert_eq!(read.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), [":6432", "/run/p/.s.PGSQL.6432"]);
        assert_eq!(read.group_by, [GroupKey::User, GroupKey::Client]);
        assert!(read.tls_certificate.is_some_and(|path| path.ends_with("tls.crt") && path.is_absolute()));
        assert_eq!((read.max_pools, read.pool_size, read.max_connections), (7, 15, 100));
        assert_eq!((read.startup_timeout, read.connect_timeout), (Duration::from_secs(10), Duration::from_secs(2)));
        assert_eq!((read.drain_timeout, read.leak_threshold), (Duration::from_secs(60), None));
        assert_eq!(read.slow_query_threshold, Some(Duration::from_millis(250)));
        assert_eq!(read.operation_keys, ["job"]);
    }

    #[test]
    fn flags_take_precedence() {
        let flags = Flags { listen: &["127.0.0.1:1".to_owned()], upstream: Some("postgres://h"), config: None };
        let read = settings(flags).unwrap();
        assert_eq!(read.listen[0].to_string(), "127.0.0.1:1");
        assert!(matches!(settings(Flags::default()), Err(ProxyCommandError::NoUpstream)));
    }

    #[test]
    fn errors_have_a_place_and_no_secret() {
        for (text, problem) in [
            ("upstream = 5", "line 1, column 12: invalid upstream: 5, expected a URL"),
            ("upstream = 'postgres://app:hunter2@h'", "the upstream's URL has a password"),
            ("upstream = 'postgres://app@h'", "the upstream's URL has a user or a database"),
            ("upstream = 'postgres://a,b'", "the upstream's URL names several hosts"),
            ("upstream = 'mysql://app:hunter2@h'", "the upstream's URL"),
            (
                "upstream = 'postgres://h'\nmax_pool = 1",
                "line 2, column 1: unknown setting `max_pool`: did you mean `max_pools`?",
            ),
            ("upstream = 'postgres://h'\nmax_pools = 0", "line 2, column 13: invalid max_pools: 0, expected 1 to 1000"),
            ("upstream = 'postgres://h'\ngroup_by = ['app']", "expected a list of application, user, database, client"),
            ("upstream = 'postgres://h'\nlisten = []", "invalid listen: a list, expected an address or a list"),
            ("upstream = 'postgres://h'\ndrain_timeout = '5'", "invalid drain_timeout: \"5\", expected a duration"),
            ("upstream = 'postgres://h'\ntls_key = 'k'", "tls_certificate and tls_key belong together"),
            ("", "no server is configured"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.is_usage());
            let printed = ErrorChain(&error).to_string();
            assert!(printed.contains(problem), "{text}: {printed}");
            assert!(!format!("{printed} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
