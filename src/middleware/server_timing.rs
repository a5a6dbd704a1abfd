//! The `Server-Timing` header of a response.

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderName;

use crate::labels::Activity;
use crate::telemetry::request_usage::RequestUsage;

pub(super) const NAME: HeaderName = HeaderName::from_static("server-timing");

/// Returns `pool-wait;dur=12.345;desc="3 checkouts", pool-use;dur=45.678`, in milliseconds as in
/// [the specification](https://www.w3.org/TR/server-timing/).
pub(super) fn header(account: &RequestUsage) -> HeaderValue {
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let used = Activity::ALL.iter().map(|activity| account.used(*activity)).sum();
    let mut timing = String::with_capacity(64);
    let checkouts = account.checkouts();
    let s = if checkouts == 1 { "" } else { "s" };
    let _ = write!(
        timing,
        "pool-wait;dur={:.3};desc=\"{checkouts} checkout{s}\", pool-use;dur={:.3}",
        millis(account.waited()),
        millis(used)
    );
    HeaderValue::try_from(timing).unwrap_or_else(|_| HeaderValue::from_static("pool"))
}
