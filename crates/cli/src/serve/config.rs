//! What `poolscope serve` is told: which databases, and how each is watched.

use std::fs;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::document::{self, Entry, InvalidEntry, setting};
use super::error::ServeError;
use super::keys::{DATABASE_URL_FILE, KEYS, PROBE_EVERY, PROBE_INTERVAL, SERVER_VIEW};
use crate::service::{NotAPath, masked, may_be_url};
use poolscope::Settings;
use poolscope::config::{self, Setting, env_vars};

/// The databases that are watched.
#[derive(Debug)]
pub struct Config {
    pub(super) databases: Vec<Database>,
}

/// A database that is watched.
#[derive(Debug)]
pub(super) struct Database {
    /// Of its pool; they have a name and a URL.
    pub(super) settings: Settings,
    /// How often it is probed, and the server asked for its view.
    pub(super) every: Duration,
    /// Whether the server is asked for its view.
    pub(super) server_view: bool,
}

impl Database {
    /// The name of its pool.
    pub(super) fn name(&self) -> &str {
        self.settings.name.as_deref().unwrap_or_default()
    }

    /// A line that says what is watched, and how; without the password.
    pub(super) fn describe(&self) -> String {
        let url = self.settings.database_url.as_ref().map_or_else(String::new, ToString::to_string);
        let view = if self.server_view { "with" } else { "without" };
        let every = humantime::format_duration(self.every);
        format!("{}: {url} every {every}, {view} the server's view", self.name())
    }
}

/// What a watched database's pool has unless it is told otherwise: one connection, since the slots are others'.
#[must_use]
pub fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.pool_size = 1;
    settings.max_overflow = 0;
    settings.checkout_timeout = Duration::from_secs(5);
    settings.application_name = Some("poolscope".to_owned());
    settings
}

impl Config {
    /// Reads a file. What the environment says of pools has no place beside it.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or something in it cannot be; if this process' environment has a setting.
    pub fn from_file(path: &Path) -> Result<Self, ServeError> {
        Self::from_file_beside(path, env_vars()?)
    }

    /// One database, as this process' environment says.
    ///
    /// # Errors
    ///
    /// If a variable cannot be, or there is none for the URL.
    pub fn from_env() -> Result<Self, ServeError> {
        Self::from_variables(env_vars()?)
    }

    pub(super) fn from_file_beside(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ServeError> {
        let environment: Vec<_> = environment.into_iter().collect();
        // What is no setting is a slip, beside a file too.
        defaults().apply_env(environment.iter().cloned())?;
        let setting = |name: &str| config::settings().any(|setting| setting.environment_variable() == name);
        if let Some((variable, _)) = environment.into_iter().find(|(name, _)| setting(name)) {
            return Err(ServeError::Environment { variable });
        }
        let remedy = "name the file that has a table [databases.NAME] with a database_url";
        let text = read(path, "--config", remedy)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|error| match error {
            ServeError::Config(source) => ServeError::File { path: path.to_owned(), source },
            ServeError::Entry(source) => ServeError::File { path: path.to_owned(), source: Box::new(source) },
            error => error,
        })
    }

    pub(super) fn from_variables(environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, ServeError> {
        let mut settings = defaults().apply_env(environment)?;
        let Some(url) = &settings.database_url else { return Err(ServeError::Nothing) };
        settings.name = Some(settings.name.clone().unwrap_or_else(|| url.default_pool_name()));
        let database = Database { settings, every: PROBE_EVERY, server_view: true };
        database.settings.validate()?;
        Ok(Self { databases: vec![database] })
    }

    /// Reads a text; files that it names are relative to `directory`.
    pub(super) fn parse(text: &str, directory: &Path) -> Result<Self, ServeError> {
        let document = document::parse(text)?;
        let (mut every, mut common, mut databases) = (PROBE_EVERY, Vec::new(), Vec::new());
        for (key, value) in document::entries(&document) {
            match &**key.get_ref() {
                "probe_interval" => every = PROBE_INTERVAL.duration(text, value)?,
                "defaults" => common = document::entries(document::table("defaults", DEFAULTS_TABLE, text, value)?),
                "databases" => {
                    databases = document::entries(document::table("databases", DATABASE_TABLE, text, value)?)
                }
                name => {
                    let known = ["probe_interval", "defaults", "databases"];
                    if setting(name).is_some() || KEYS.iter().any(|key| key.name() == name) {
                        let problem = format!("{name} stands outside of any table: give it under [databases.NAME]");
                        return Err(conflict(text, key, problem));
                    }
                    return Err(InvalidEntry::unknown(text, key, known).into());
                }
            }
        }
        if databases.is_empty() {
            return Err(ServeError::Nothing);
        }
        for (key, _) in &common {
            let name = &**key.get_ref();
            let problem = match name {
                "name" | "database_url" | "database_url_file" | "server_view" => {
                    format!("{name} is each database's own: give it under [databases.NAME]")
                }
                "probe_interval" => "probe_interval for all databases stands at the top, before any table".to_owned(),
                _ => continue,
            };
            return Err(conflict(text, key, problem));
        }
        let defaults = document::apply(defaults(), text, common)?;
        let reader = Reader { text, directory, defaults, every };
        let databases = databases.into_iter().map(|(name, value)| reader.database(name.get_ref(), name, value));
        Ok(Self { databases: databases.collect::<Result<_, _>>()? })
    }
}

/// What stands in the file that `what` names.
fn read(path: &Path, what: &'static str, remedy: &'static str) -> Result<String, ServeError> {
    NotAPath::check(path, what, remedy)?;
    fs::read_to_string(path).map_err(|source| ServeError::Read { path: path.to_owned(), source })
}

/// Reads databases.
struct Reader<'a> {
    text: &'a str,
    directory: &'a Path,
    defaults: Settings,
    every: Duration,
}

impl Reader<'_> {
    fn database(
        &self,
        name: &str,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Database, ServeError> {
        let Self { text, directory, defaults, every } = self;
        if may_be_url(name) {
            let problem = "a database's name stands in every metric, and here is a URL: give it as its database_url";
            return Err(conflict(text, key, problem.to_owned()));
        }
        // As any other name: neither empty nor too long.
        document::check_name(text, key, name)?;
        let mut settings = defaults.clone();
        let (mut every, mut server_view, mut file) = (*every, true, None);
        let mut others: Vec<Entry<'_, '_>> = Vec::new();
        for (key, value) in document::entries(document::table("databases", DATABASE_TABLE, text, value)?) {
            match &**key.get_ref() {
                "probe_interval" => every = PROBE_INTERVAL.duration(text, value)?,
                "server_view" => server_view = SERVER_VIEW.switch(text, value)?,
                "database_url_file" => file = Some(directory.join(DATABASE_URL_FILE.text(text, value)?)),
                "name" => {
                    let problem = format!("the name stands in the table's head, as [databases.{name}]");
                    return Err(conflict(text, key, problem));
                }
                "url" => {
                    let problem = "unknown setting `url`: did you mean `database_url`?".to_owned();
                    return Err(conflict(text, key, problem));
                }
                other if setting(other).is_none() && matches!(value.get_ref(), DeValue::Table(_)) => {
                    let whole = format!("{name}.{other}");
                    let whole = masked(&whole);
                    let problem = format!(
                        "there is no table [databases.{whole}]: a name with a dot is quoted, as [databases.\"{whole}\"]"
                    );
                    return Err(conflict(text, key, problem));
                }
                other if setting(other).is_none() => {
                    let own = KEYS.iter().map(|key| key.name());
                    let known = config::settings().map(Setting::name).chain(own);
                    return Err(InvalidEntry::unknown(text, key, known).into());
                }
                _ => others.push((key, value)),
            }
        }
        let url_given = others.iter().any(|(key, _)| &**key.get_ref() == "database_url");
        match file {
            Some(_) if url_given => {
                return Err(conflict(
                    text,
                    key,
                    "database_url and database_url_file are both given: give one".to_owned(),
                ));
            }
            None if !url_given => {
                return Err(conflict(
                    text,
                    key,
                    format!("databases.{name} has neither database_url nor database_url_file"),
                ));
            }
            None => {}
            Some(path) => {
                let url = read(&path, DATABASE_URL_FILE.name(), "give the URL itself as database_url")?;
                let refused = |source| ServeError::File { path: path.clone(), source: Box::new(source) };
                settings.set("database_url", url.trim_start_matches('\u{feff}').trim()).map_err(refused)?;
            }
        }
        settings = document::apply(settings, text, others)?;
        // A name in the URL's query would be one more place for it.
        settings.name = Some(name.to_owned());
        settings
            .validate()
            .map_err(|source| ServeError::Database { name: name.to_owned(), source: Box::new(source) })?;
        Ok(Database { settings, every, server_view })
    }
}

const DEFAULTS_TABLE: &str = "a table, headed [defaults]";
const DATABASE_TABLE: &str = "a table for each database, headed [databases.NAME]";

fn conflict<T>(text: &str, key: &Spanned<T>, problem: impl Into<String>) -> ServeError {
    InvalidEntry::at(text, key.span().start, problem).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;

    fn parse(text: &str) -> Result<Config, ServeError> {
        Config::parse(text, Path::new("/etc/poolscope"))
    }

    /// The error as it is printed.
    fn refused(config: Result<Config, ServeError>) -> String {
        let error = config.unwrap_err();
        assert!(error.is_usage());
        Chain(&error).to_string()
    }

    #[test]
    fn what_stands_closer_to_a_database_wins() {
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
        assert_eq!((one.every, one.server_view), (Duration::from_secs(30), true));
        assert_eq!((two.name(), two.settings.pool_size, two.settings.max_overflow), ("two.b", 2, 0));
        assert_eq!((two.every, two.server_view), (Duration::from_secs(5), false));
    }

    #[test]
    fn what_cannot_be_is_said_with_its_place_and_what_would_do() {
        for (text, problem) in [
            ("", "no database is named: give --config a file with a table [databases.NAME]"),
            ("[databases]", "no database is named"),
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
            ("[databases.a]\nname = 'b'", "line 2, column 1: the name stands in the table's head, as [databases.a]"),
            (
                "[databases.a]\ndatabase_url = 'postgres://h/d'\ndatabase_url_file = 'f'",
                "database_url and database_url_file are both given: give one",
            ),
            ("[databases.a]\ndatabase_url = 'mysql://h/d'", "line 2, column 16: begins with neither postgres://"),
            ("[databases.'']\ndatabase_url = 'postgres://h/d'", "line 1, column 12: invalid name: \"\""),
            (
                "[databases.a]\ndatabase_url = 'postgres://h/d'\nwait_target = '50s'",
                "database a: settings: wait_target (50s) is above checkout_timeout (5s)",
            ),
            ("[defaults]\ndatabase_url = 'x'\n[databases.a]", "line 2, column 1: database_url is each database's own"),
            ("[defaults]\nserver_view = true\n[databases.a]", "line 2, column 1: server_view is each database's own"),
            (
                "[defaults]\nprobe_interval = '1s'\n[databases.a]",
                "line 2, column 1: probe_interval for all databases stands",
            ),
            ("[defaults]\nname = 'x'\n[databases.a]", "line 2, column 1: name is each database's own"),
            ("pool_size = 3\n[databases.a]", "line 1, column 1: pool_size stands outside of any table"),
            (
                "[databases.a]\nurl = 'postgres://h/d'",
                "line 2, column 1: unknown setting `url`: did you mean `database_url`?",
            ),
            (
                "[databases.db.example]\ndatabase_url = 'postgres://h/d'",
                "there is no table [databases.db.example]: a name with a dot is quoted, as [databases.\"db.example\"]",
            ),
            ("[databases.a]\ndatabase_url_file = 'not/there'", "/etc/poolscope/not/there cannot be read: No such file"),
            ("[databases.a", "line 1, column"),
        ] {
            let error = refused(parse(text));
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn no_error_shows_a_url_that_stands_where_something_else_belongs() {
        let url = "postgres://app:hunter2@h/d";
        for (text, problem) in [
            (
                format!("[databases.a]\ndatabase_url_file = '{url}'"),
                "database_url_file takes the path of a file, and was given a URL",
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
            (format!("[databases.'{url}']\npool_size = 1"), "a database's name stands in every metric"),
            (format!("[databases.a.'{url}']\npool_size = 1"), "a name with a dot is quoted"),
        ] {
            let error = parse(&text).unwrap_err();
            let shown = format!("{error:?}");
            let said = refused(Err(error));
            assert!(said.contains(problem), "{said}");
            assert!(!said.contains("hunter2") && !shown.contains("hunter2"), "{said} {shown}");
        }
        let said = refused(Config::from_file_beside(Path::new(url), []));
        assert!(
            said.contains("--config takes the path of a file, and was given a URL") && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn a_url_may_stand_in_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("url"), "postgres://app:hunter2@h/d?pool_size=7\n").unwrap();
        let text = "[databases.a]\ndatabase_url_file = 'url'\nmax_overflow = 3";
        let config = Config::parse(text, directory.path()).unwrap();
        let settings = &config.databases[0].settings;
        assert_eq!((settings.pool_size, settings.max_overflow), (7, 3));
        assert!(!format!("{config:?} {}", config.databases[0].describe()).contains("hunter2"));

        fs::write(directory.path().join("url"), "mysql://app:hunter2@h/d").unwrap();
        let error = refused(Config::parse(text, directory.path()));
        assert!(error.contains("/url: database URL: begins with neither") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn without_a_file_the_environment_names_one_database() {
        let variables = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let url = ("POOLSCOPE_DATABASE_URL", "postgres://h/d");
        let config = Config::from_variables(variables(&[url, ("POOLSCOPE_POOL_SIZE", "3")])).unwrap();
        assert_eq!((config.databases[0].name(), config.databases[0].settings.pool_size), ("h:5432/d", 3));
        assert!(refused(Config::from_variables([])).contains("or set POOLSCOPE_DATABASE_URL"));

        // Beside a file it would be a second place for the same.
        let beside = Config::from_file_beside(Path::new("/not/there"), variables(&[("POOLSCOPE_POOL_SIZE", "3")]));
        assert!(refused(beside).starts_with("environment variable POOLSCOPE_POOL_SIZE: the configuration's file says"));
        let beside = Config::from_file_beside(Path::new("/not/there"), variables(&[("POOLSCOPE_POOL_SIZ", "3")]));
        assert!(refused(beside).contains("unknown setting `POOLSCOPE_POOL_SIZ`: did you mean"));
        let beside = Config::from_file_beside(Path::new("/not/there"), variables(&[("POOLSCOPE_LOG_FORMAT", "json")]));
        assert!(refused(beside).starts_with("/not/there cannot be read: No such file"));
    }
}
