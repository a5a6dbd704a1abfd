//! Durations in flags.

use std::time::Duration;

/// Parses a duration above zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("give a duration with its unit, above zero, such as 30s, 5m or 1h30m".to_owned()),
    }
}
