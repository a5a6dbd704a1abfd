//! The pool's settings in the demo: its own defaults, the environment, the URL on the command line.

use std::time::Duration;

use super::error::DemoError;
use super::scenario::Scenario;
use poolscope::config::Settings;

/// What the demo's pool has unless it is told otherwise: small enough to run out now and then.
#[must_use]
pub fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.name = Some("shop".to_owned());
    settings.pool_size = 5;
    settings.max_overflow = 5;
    settings.checkout_timeout = Duration::from_secs(2);
    settings.application_name = Some("poolscope-demo".to_owned());
    settings
}

/// The defaults, then the scenario's, then the environment, then `url` with the settings in its query: what is later wins. A URL on the
/// command line takes the place of the environment's with all that stands in it.
pub(super) fn resolve(
    scenario: &Scenario,
    environment: impl IntoIterator<Item = (String, String)>,
    url: Option<&str>,
) -> Result<Settings, DemoError> {
    let environment = environment.into_iter().filter(|(name, _)| url.is_none() || name != "POOLSCOPE_DATABASE_URL");
    let mut settings = defaults();
    for (name, value) in scenario.settings() {
        settings.set(name, value).map_err(DemoError::Settings)?;
    }
    let mut settings = settings.apply_env(environment).map_err(DemoError::Settings)?;
    if let Some(url) = url {
        settings.set("database_url", url).map_err(DemoError::DatabaseUrl)?;
    }
    settings.validate().map_err(DemoError::Settings)?;
    if let (Some(does), Some(_)) = (scenario.needs_private_server(), &settings.database_url) {
        return Err(DemoError::NotPrivate { scenario: scenario.name(), does });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(environment: &[(&str, &str)], url: Option<&str>) -> Result<Settings, DemoError> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        resolve(&Scenario::all()[0], environment, url)
    }

    #[test]
    fn a_scenarios_settings_are_no_more_than_defaults() {
        let leak = Scenario::named("leak").unwrap();
        let settings = resolve(leak, [], None).unwrap();
        assert_eq!(settings.leak_threshold, Some(Duration::from_secs(5)));
        let environment = [("POOLSCOPE_LEAK_THRESHOLD".to_owned(), "7s".to_owned())];
        assert_eq!(resolve(leak, environment, None).unwrap().leak_threshold, Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_done_to_a_server_is_not_done_to_somebodys_own() {
        for scenario in Scenario::all() {
            let refused = resolve(scenario, [], Some("postgres://h/d")).is_err_and(|error| error.is_usage());
            assert_eq!(refused, scenario.needs_private_server().is_some(), "{}", scenario.name());
        }
    }

    #[test]
    fn the_environment_overrides_the_defaults_and_the_command_line_the_environment() {
        let settings = resolved(&[], None).unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow, settings.name.as_deref()), (5, 5, Some("shop")));
        let environment = [("POOLSCOPE_POOL_SIZE", "7"), ("POOLSCOPE_CHECKOUT_TIMEOUT", "1s")];
        let settings = resolved(&environment, Some("postgres://h/d?pool_size=9&name=mine")).unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow, settings.name.as_deref()), (9, 5, Some("mine")));
        assert_eq!(settings.checkout_timeout, Duration::from_secs(1));
    }

    #[test]
    fn a_url_in_the_environment_counts_unless_the_command_line_has_one() {
        let environment = [("POOLSCOPE_DATABASE_URL", "postgres://here/d?pool_size=9")];
        let settings = resolved(&environment, None).unwrap();
        assert_eq!((settings.pool_size, settings.database_url.unwrap().default_pool_name()), (9, "here:5432/d".into()));
        let settings = resolved(&environment, Some("postgres://there/d")).unwrap();
        assert_eq!(
            (settings.pool_size, settings.database_url.unwrap().default_pool_name()),
            (5, "there:5432/d".into())
        );
        assert!(resolved(&[("POOLSCOPE_DATABASE_URL", "nonsense")], Some("postgres://there/d")).is_ok());
    }
}
