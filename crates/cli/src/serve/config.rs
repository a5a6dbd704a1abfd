//! The configuration of `poolscope serve`: the databases, and how each is watched.

use std::path::Path;
use std::time::Duration;

use poolscope::Settings;
use poolscope::config::{self, Setting, env_vars};
use poolscope::text::Printable;
use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::error::ServeError;
use super::keys::{DATABASE_URL_FILE, DEFAULT_PROBE_INTERVAL, KEYS, PROBE_INTERVAL, SERVER_VIEW};
use super::pool_settings::{apply, check_name, setting};
use crate::document::{self, Entry, InvalidEntry};
use crate::service::{NotAPath, masked, may_be_url, without_line_break};

/// The databases to watch.
#[derive(Debug)]
pub(crate) struct Config {
    pub(super) databases: Vec<Database>,
}

/// A database to watch.
#[derive(Debug)]
pub(super) struct Database {
    /// The settings of its pool, with a name and a URL.
    pub(super) settings: Settings,
    /// The time between two probes, and between two queries of the server's view.
    pub(super) probe_interval: Duration,
    /// Whether the server's view is queried.
    pub(super) server_view: bool,
}

impl Database {
    /// Returns the name of its pool.
    pub(super) fn name(&self) -> &str {
        self.settings.name.as_deref().unwrap_or_default()
    }

    /// Returns a line with the name, the URL without its password, and how it is watched.
    pub(super) fn describe(&self) -> String {
        let url = self.settings.database_url.as_ref().map_or_else(String::new, ToString::to_string);
        let view = if self.server_view { "with" } else { "without" };
        let interval = humantime::format_duration(self.probe_interval);
        format!("{}: {url} every {interval}, {view} the server's view", Printable(self.name()))
    }
}

/// Returns the default settings of a watched database's pool. It has one connection, to leave the slots to the clients.
#[must_use]
pub(super) fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.pool_size = 1;
    settings.max_overflow = 0;
    settings.checkout_timeout = Duration::from_secs(5);
    // A probe's answer has some 70 bytes.
    settings.max_answer_kib = 64;
    settings.application_name = Some("poolscope".to_owned());
    settings
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read or is invalid, or if the environment has a pool setting.
    pub(crate) fn from_file(path: &Path) -> Result<Self, ServeError> {
        Self::from_file_and_variables(path, env_vars()?)
    }

    /// Reads one database from the environment.
    ///
    /// # Errors
    ///
    /// Returns an error if a variable is invalid, or none has the URL.
    pub(crate) fn from_env() -> Result<Self, ServeError> {
        Self::from_variables(env_vars()?)
    }

    pub(super) fn from_file_and_variables(
        path: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ServeError> {
        let variables: Vec<_> = variables.into_iter().collect();
        // Unknown variables are errors, as they are without a file.
        defaults().apply_env(variables.iter().cloned())?;
        let is_setting = |name: &str| config::settings().any(|setting| setting.environment_variable() == name);
        if let Some((variable, _)) = variables.into_iter().find(|(name, _)| is_setting(name)) {
            return Err(ServeError::Environment { variable });
        }
        let remedy = "give the file that has a table [databases.NAME] with a database_url";
        let text = read(path, "--config", remedy)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|error| match error {
            ServeError::Config(source) => ServeError::File { path: path.to_owned(), source },
            ServeError::Entry(source) => ServeError::File { path: path.to_owned(), source: Box::new(source) },
            error => error,
        })
    }

    pub(super) fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ServeError> {
        let mut settings = defaults().apply_env(variables)?;
        let Some(url) = &settings.database_url else { return Err(ServeError::NoDatabase) };
        settings.name = Some(settings.name.clone().unwrap_or_else(|| url.default_pool_name()));
        let database = Database { settings, probe_interval: DEFAULT_PROBE_INTERVAL, server_view: true };
        database.settings.validate()?;
        Ok(Self { databases: vec![database] })
    }

    /// Parses the text of a file. Relative paths in it are resolved against `directory`.
    pub(super) fn parse(text: &str, directory: &Path) -> Result<Self, ServeError> {
        let document = document::parse(text)?;
        let (mut probe_interval, mut common, mut databases) = (DEFAULT_PROBE_INTERVAL, Vec::new(), Vec::new());
        for (key, value) in document::entries(&document) {
            match &**key.get_ref() {
                "probe_interval" => probe_interval = PROBE_INTERVAL.duration(text, value)?,
                "defaults" => common = document::entries(document::table("defaults", DEFAULTS_TABLE, text, value)?),
                "databases" => {
                    databases = document::entries(document::table("databases", DATABASE_TABLE, text, value)?);
                }
                name => {
                    let known = ["probe_interval", "defaults", "databases"];
                    if setting(name).is_some() || KEYS.iter().any(|key| key.name() == name) {
                        let problem = format!("{name} is outside of any table: move it to [databases.NAME]");
                        return Err(invalid(text, key, problem));
                    }
                    return Err(InvalidEntry::unknown(text, key, known).into());
                }
            }
        }
        if databases.is_empty() {
            return Err(ServeError::NoDatabase);
        }
        for (key, _) in &common {
            let name = &**key.get_ref();
            let problem = match name {
                "name" | "database_url" | "database_url_file" | "server_view" => {
                    format!("{name} applies to one database: move it to [databases.NAME]")
                }
                "probe_interval" => "probe_interval for all databases belongs before any table".to_owned(),
                _ => continue,
            };
            return Err(invalid(text, key, problem));
        }
        let defaults = apply(defaults(), text, common)?;
        let parser = DatabaseParser { text, directory, defaults, probe_interval };
        let databases = databases.into_iter().map(|(name, value)| parser.parse(name.get_ref(), name, value));
        Ok(Self { databases: databases.collect::<Result<_, _>>()? })
    }
}

/// Reads the file that is the value of `option`.
fn read(path: &Path, option: &'static str, remedy: &'static str) -> Result<String, ServeError> {
    NotAPath::check(path, option, remedy)?;
    config::read_file(path).map_err(|source| ServeError::Read { option, path: path.to_owned(), source })
}

/// Parses the tables under `[databases]`.
struct DatabaseParser<'a> {
    text: &'a str,
    directory: &'a Path,
    defaults: Settings,
    probe_interval: Duration,
}

impl DatabaseParser<'_> {
    fn parse(
        &self,
        name: &str,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Database, ServeError> {
        let Self { text, directory, defaults, probe_interval } = self;
        if may_be_url(name) {
            let problem = "a URL in place of a database's name, which every metric has: give it as database_url";
            return Err(invalid(text, key, problem));
        }
        check_name(text, key, name)?;
        let mut settings = defaults.clone();
        let (mut probe_interval, mut server_view, mut file) = (*probe_interval, true, None);
        let mut others: Vec<Entry<'_, '_>> = Vec::new();
        for (key, value) in document::entries(document::table("databases", DATABASE_TABLE, text, value)?) {
            match &**key.get_ref() {
                "probe_interval" => probe_interval = PROBE_INTERVAL.duration(text, value)?,
                "server_view" => server_view = SERVER_VIEW.switch(text, value)?,
                "database_url_file" => file = Some(directory.join(DATABASE_URL_FILE.text(text, value)?)),
                "name" => {
                    let problem = format!("the name is given in the table's header, as [databases.{name}]");
                    return Err(invalid(text, key, problem));
                }
                "url" => return Err(invalid(text, key, "unknown setting `url`: did you mean `database_url`?")),
                other if setting(other).is_none() && matches!(value.get_ref(), DeValue::Table(_)) => {
                    let full = format!("{name}.{other}");
                    let full = masked(&full);
                    let problem =
                        format!("unknown table [databases.{full}]: quote a name with a dot, as [databases.\"{full}\"]");
                    return Err(invalid(text, key, problem));
                }
                other if setting(other).is_none() => {
                    let known = config::settings().map(Setting::name).chain(KEYS.iter().map(|key| key.name()));
                    return Err(InvalidEntry::unknown(text, key, known).into());
                }
                _ => others.push((key, value)),
            }
        }
        let has_url = others.iter().any(|(key, _)| &**key.get_ref() == "database_url");
        match file {
            Some(_) if has_url => {
                return Err(invalid(text, key, "both database_url and database_url_file are given: remove one"));
            }
            None if !has_url => {
                let problem = format!("databases.{name} has neither database_url nor database_url_file");
                return Err(invalid(text, key, problem));
            }
            None => {}
            Some(path) => {
                let url = read(&path, DATABASE_URL_FILE.name(), "give the URL itself as database_url")?;
                let in_file = |source| ServeError::File { path: path.clone(), source: Box::new(source) };
                settings.set("database_url", without_line_break(&url)).map_err(in_file)?;
            }
        }
        settings = apply(settings, text, others)?;
        for path in [&mut settings.password_file, &mut settings.passfile].into_iter().flatten() {
            *path = directory.join(&*path).display().to_string();
        }
        settings.database_url = settings.database_url.map(|url| url.with_files_in(directory));
        // The table's name replaces one in the URL's query.
        settings.name = Some(name.to_owned());
        settings
            .validate()
            .map_err(|source| ServeError::Database { name: name.to_owned(), source: Box::new(source) })?;
        Ok(Database { settings, probe_interval, server_view })
    }
}

const DEFAULTS_TABLE: &str = "a table, headed [defaults]";
const DATABASE_TABLE: &str = "a table for each database, headed [databases.NAME]";

/// Returns the error for the entry at `key`.
fn invalid<T>(text: &str, key: &Spanned<T>, problem: impl Into<String>) -> ServeError {
    InvalidEntry::at(text, key.span().start, problem).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use poolscope::config::{DatabaseUrl, Roots, TlsMode, Verify};
    use poolscope::text::ErrorChain;

    fn parse(text: &str) -> Result<Config, ServeError> {
        Config::parse(text, Path::new("/etc/poolscope"))
    }

    /// Returns the error as it is printed.
    fn message(config: Result<Config, ServeError>) -> String {
        let error = config.unwrap_err();
        assert!(error.is_usage());
        ErrorChain(&error).to_string()
    }

    #[test]
    fn nearest_value_takes_precedence() {
        let config = parse(
            "probe_interval = '30s'\n[defaults]\npool_size = 2\nconnect_timeout = '1s'\n\
             [databases.one]\ndatabase_url = 'postgres://h/d?pool_size=3&name=x'\nmax_overflow = 4\n\
             [databases.'two.b']\ndatabase_url = 'postgres://h/e'\nprobe_interval = '5s'\nserver_view = false\n",
        )
        .unwrap();
        let [one, two] = &config.databases[..] else { panic!("{config:?}") };
        let Settings { pool_size, max_overflow, connect_timeout, checkout_timeout, .. } = &one.settings;
        assert_eq!((one.name(), *pool_size, *max_overflow), ("one", 3, 4));
        assert_eq!((*connect_timeout, *checkout_timeout), (Duration::from_secs(1), Duration::from_secs(5)));
        assert_eq!((one.probe_interval, one.server_view), (Duration::from_secs(30), true));
        assert_eq!((two.name(), two.settings.pool_size, two.settings.max_overflow), ("two.b", 2, 0));
        assert_eq!((two.probe_interval, two.server_view), (Duration::from_secs(5), false));
    }

    #[test]
    fn errors_have_a_place_and_a_remedy() {
        for (text, problem) in [
            ("", "no database is configured: give --config a file with a table [databases.NAME]"),
            ("[databases]", "no database is configured"),
            ("databases = 5", "line 1, column 13: invalid databases: a number, expected a table for each database"),
            (
                "[databases]\nshop = 'postgres://h/d'",
                "line 2, column 8: invalid databases: text, expected a table for each",
            ),
            ("defaults = 5", "line 1, column 12: invalid defaults: a number, expected a table, headed [defaults]"),
            (
                "probe_intervall = '5s'",
                "line 1, column 1: unknown setting `probe_intervall`: did you mean `probe_interval`?",
            ),
            (
                "probe_interval = 5",
                "line 1, column 18: invalid probe_interval: 5, expected a duration with its unit, 1s to 1h",
            ),
            ("probe_interval = ' 5s'", "invalid probe_interval: \" 5s\", expected a duration with its unit"),
            (
                "[databases.a]\ndatabase_url_file = '/dev/zero'",
                "cannot read database_url_file /dev/zero: neither a regular",
            ),
            ("probe_interval = '1ms'", "invalid probe_interval: \"1ms\", expected a duration with its unit"),
            ("[databases.a]", "line 1, column 12: databases.a has neither database_url nor database_url_file"),
            (
                "[databases.a]\nserver_view = 'maybe'",
                "line 2, column 15: invalid server_view: \"maybe\", expected on or off",
            ),
            ("[databases.a]\ndatabase_urll = ''", "did you mean `database_url`?"),
            ("[databases.a]\nserver_veiw = true", "did you mean `server_view`?"),
            (
                "[databases.a.pool_size]\nx = 1\n[databases.a]\ndatabase_url = 'postgres://h/d'",
                "line 1, column 1: invalid pool_size: a table, expected 1 to 10000",
            ),
            (
                "databases.a = { database_url = 'postgres://h/d', pool_size = 0 }",
                "line 1, column 62: invalid pool_size: \"0\", expected a whole number",
            ),
            (
                "databases.a.database_url = 'postgres://h/d'\ndatabases.a.pool_size = 1.5",
                "line 2, column 25: invalid pool_size: a fractional number",
            ),
            (
                "[databases.a]\nname = 'b'",
                "line 2, column 1: the name is given in the table's header, as [databases.a]",
            ),
            (
                "[databases.a]\ndatabase_url = 'postgres://h/d'\ndatabase_url_file = 'f'",
                "both database_url and database_url_file are given: remove one",
            ),
            ("[databases.a]\ndatabase_url = 'mysql://h/d'", "line 2, column 16: begins with neither postgres://"),
            ("[databases.'']\ndatabase_url = 'postgres://h/d'", "line 1, column 12: invalid name: \"\""),
            (
                "[databases.a]\ndatabase_url = 'postgres://h/d'\nwait_target = '50s'",
                "database a: settings: wait_target (50s) is above checkout_timeout (5s)",
            ),
            ("[defaults]\ndatabase_url = 'x'\n[databases.a]", "line 2, column 1: database_url applies to one database"),
            ("[defaults]\nserver_view = true\n[databases.a]", "line 2, column 1: server_view applies to one database"),
            (
                "[defaults]\nprobe_interval = '1s'\n[databases.a]",
                "line 2, column 1: probe_interval for all databases belongs",
            ),
            ("[defaults]\nname = 'x'\n[databases.a]", "line 2, column 1: name applies to one database"),
            ("pool_size = 3\n[databases.a]", "line 1, column 1: pool_size is outside of any table"),
            (
                "[databases.a]\nurl = 'postgres://h/d'",
                "line 2, column 1: unknown setting `url`: did you mean `database_url`?",
            ),
            (
                "[databases.db.example]\ndatabase_url = 'postgres://h/d'",
                "unknown table [databases.db.example]: quote a name with a dot, as [databases.\"db.example\"]",
            ),
            (
                "[databases.a]\ndatabase_url_file = 'not/there'",
                "cannot read database_url_file /etc/poolscope/not/there: No such file",
            ),
            ("[databases.a", "line 1, column"),
        ] {
            let error = message(parse(text));
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn misplaced_url_is_never_printed() {
        let url = "postgres://app:hunter2@h/d";
        for (text, problem) in [
            (
                format!("[databases.a]\ndatabase_url_file = '{url}'"),
                "database_url_file expects the path of a file, not a URL",
            ),
            (
                format!("[databases.a]\nprobe_interval = '{url}'"),
                "invalid probe_interval: \"postgres://…\", expected a duration",
            ),
            (
                format!("[databases.a]\nserver_view = '{url}'"),
                "invalid server_view: \"postgres://…\", expected on or off",
            ),
            (
                format!("[databases.a]\ndatabase_url = '{url}'\npool_size = '{url}'"),
                "invalid pool_size: the text \"postgres://…\"",
            ),
            (format!("[databases.a]\n'{url}' = 1"), "unknown setting `postgres://…`"),
            (format!("'{url}' = 1"), "unknown setting `postgres://…`"),
            (format!("[databases.'{url}']\npool_size = 1"), "a URL in place of a database's name"),
            (format!("[databases.a.'{url}']\npool_size = 1"), "quote a name with a dot"),
        ] {
            let error = parse(&text).unwrap_err();
            let debug = format!("{error:?}");
            let printed = message(Err(error));
            assert!(printed.contains(problem), "{printed}");
            assert!(!printed.contains("hunter2") && !debug.contains("hunter2"), "{printed} {debug}");
        }
        let printed = message(Config::from_file_and_variables(Path::new(url), []));
        assert!(
            printed.contains("--config expects the path of a file, not a URL") && !printed.contains("hunter2"),
            "{printed}"
        );
    }

    #[test]
    fn url_is_read_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("url"), "postgres://app:hunter2@h/d?pool_size=7\n").unwrap();
        let text = "[databases.a]\ndatabase_url_file = 'url'\nmax_overflow = 3";
        let config = Config::parse(text, directory.path()).unwrap();
        let settings = &config.databases[0].settings;
        assert_eq!((settings.pool_size, settings.max_overflow), (7, 3));
        assert!(!format!("{config:?} {}", config.databases[0].describe()).contains("hunter2"));

        fs::write(directory.path().join("url"), "mysql://app:hunter2@h/d").unwrap();
        let error = message(Config::parse(text, directory.path()));
        assert!(error.contains("/url: database URL: begins with neither") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn relative_paths_start_at_the_directory_of_the_file() {
        let config = parse(
            "[databases.a]\ndatabase_url = 'postgres://h/d?passfile=pass&sslrootcert=ca.pem&sslmode=verify-ca\
             &sslcert=tls/c.pem&sslkey=/run/k.pem'\n[databases.b]\ndatabase_url = 'postgres://h/d?sslrootcert=system'\n",
        )
        .unwrap();
        let [a, b] = &config.databases[..] else { panic!("{config:?}") };
        assert_eq!(a.settings.passfile.as_deref(), Some("/etc/poolscope/pass"));
        let url = a.settings.database_url.as_ref().unwrap();
        let roots = |url: &DatabaseUrl| match url.tls() {
            TlsMode::Require(Verify::Chain(roots) | Verify::ChainAndName(roots)) => roots.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(roots(url), Roots::File("/etc/poolscope/ca.pem".into()));
        let certificate = url.client_certificate().unwrap();
        let (file, key) = (Path::new("/etc/poolscope/tls/c.pem"), Path::new("/run/k.pem"));
        assert_eq!((&*certificate.certificate, &*certificate.key), (file, key));
        assert_eq!(roots(b.settings.database_url.as_ref().unwrap()), Roots::System);
    }

    #[test]
    fn environment_configures_one_database() {
        let variables = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let url = ("POOLSCOPE_DATABASE_URL", "postgres://h/d");
        let config = Config::from_variables(variables(&[url, ("POOLSCOPE_POOL_SIZE", "3")])).unwrap();
        assert_eq!((config.databases[0].name(), config.databases[0].settings.pool_size), ("h:5432/d", 3));
        assert!(message(Config::from_variables([])).contains("or set POOLSCOPE_DATABASE_URL"));

        // With a file, settings in the environment are refused.
        let both = Config::from_file_and_variables(Path::new("/not/there"), variables(&[("POOLSCOPE_POOL_SIZE", "3")]));
        assert!(
            message(both)
                .starts_with("environment variable POOLSCOPE_POOL_SIZE: the configuration file sets the pools")
        );
        let both = Config::from_file_and_variables(Path::new("/not/there"), variables(&[("POOLSCOPE_POOL_SIZ", "3")]));
        assert!(message(both).contains("unknown setting `POOLSCOPE_POOL_SIZ`: did you mean"));
        let both =
            Config::from_file_and_variables(Path::new("/not/there"), variables(&[("POOLSCOPE_LOG_FORMAT", "json")]));
        assert!(message(both).starts_with("cannot read --config /not/there: No such file"));
    }

    /// With a step per database that costs as much as the whole text, this takes minutes.
    #[test]
    fn ten_thousand_databases_are_read_in_linear_time() {
        let began = std::time::Instant::now();
        let mut text = String::new();
        for number in 0..10_000 {
            text += &format!(
                "[databases.d{number}]\ndatabase_url = 'postgres://h/d{number}'\npool_size = 2\nprobe_interval = '5s'\n"
            );
        }
        assert_eq!(parse(&text).unwrap().databases.len(), 10_000);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
