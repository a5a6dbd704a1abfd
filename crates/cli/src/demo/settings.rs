//! The settings of the demo's pool.

use std::time::Duration;

use poolscope::Settings;

use super::error::DemoError;
use super::scenario::Scenario;

/// Returns the default settings of the demo's pool. It is small enough to be exhausted from time to time.
#[must_use]
pub(crate) fn defaults() -> Settings {
    let mut settings = Settings::default();
    settings.name = Some("shop".to_owned());
    settings.pool_size = 5;
    settings.max_overflow = 5;
    settings.checkout_timeout = Duration::from_secs(2);
    settings.application_name = Some("poolscope-demo".to_owned());
    // More than any of the shop's queries returns, so that a server that misbehaves cannot fill the memory.
    settings.max_answer_kib = 1024;
    settings
}

/// Merges the defaults, the scenario's settings, the environment, and `url` with its query; the last one takes precedence.
/// A URL on the command line replaces the environment's URL including its query.
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
    if let (Some(disruption), Some(_)) = (scenario.disruption(), &settings.database_url) {
        return Err(DemoError::NotPrivate { scenario: scenario.name(), disruption });
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
    fn environment_overrides_settings_of_a_scenario() {
        let leak = Scenario::named("leak").unwrap();
        let settings = resolve(leak, [], None).unwrap();
        assert_eq!(settings.leak_threshold, Some(Duration::from_secs(5)));
        let environment = [("POOLSCOPE_LEAK_THRESHOLD".to_owned(), "7s".to_owned())];
        assert_eq!(resolve(leak, environment, None).unwrap().leak_threshold, Some(Duration::from_secs(7)));
    }

    #[test]
    fn disruptive_scenarios_require_a_private_server() {
        for scenario in Scenario::all() {
            let refused = resolve(scenario, [], Some("postgres://h/d")).is_err_and(|error| error.is_usage());
            assert_eq!(refused, scenario.disruption().is_some(), "{}", scenario.name());
        }
    }

    #[test]
    fn command_line_overrides_environment_overrides_defaults() {
        let settings = resolved(&[], None).unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow, settings.name.as_deref()), (5, 5, Some("shop")));
        let environment = [("POOLSCOPE_POOL_SIZE", "7"), ("POOLSCOPE_CHECKOUT_TIMEOUT", "1s")];
        let settings = resolved(&environment, Some("postgres://h/d?pool_size=9&name=mine")).unwrap();
        assert_eq!((settings.pool_size, settings.max_overflow, settings.name.as_deref()), (9, 5, Some("mine")));
        assert_eq!(settings.checkout_timeout, Duration::from_secs(1));
    }

    #[test]
    fn url_flag_replaces_url_of_the_environment() {
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
