//! Answers `POST /api/v1/record`: begins incident files.
//!
//! A browser sends the password that it knows with every request, also with one that a foreign page makes it send. Such
//! requests are refused by what browsers report about their origin.

use std::sync::{Mutex, PoisonError};

use hyper::header::{HOST, HeaderMap, ORIGIN};
use thiserror::Error;
use tokio::time::Instant;

use super::limits::RECORD_INTERVAL;
use super::query;
use crate::diagnosis::recording::IncidentRecorder;
use crate::telemetry::Collector;
use crate::text::printable;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Why no file is begun.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum RecordError {
    #[error("the request comes from a page of another site")]
    OtherSite,
    #[error("{0}")]
    Query(String),
    #[error("there is no such pool")]
    NoPool,
    #[error("a file was requested less than {} s ago", RECORD_INTERVAL.as_secs())]
    TooSoon,
    #[error("the disk does not keep up; see the log of this process")]
    Busy,
}

/// Begins incident files.
#[derive(Debug)]
pub(super) struct RecordApi {
    collector: Collector,
    recorder: IncidentRecorder,
    last: Mutex<Option<Instant>>,
}

impl RecordApi {
    pub(super) fn new(collector: Collector, recorder: IncidentRecorder) -> Self {
        Self { collector, recorder, last: Mutex::default() }
    }

    /// Begins a file for each pool that `query` selects. Returns their names, as JSON.
    pub(super) fn record(&self, query: &str, headers: &HeaderMap) -> Result<String, RecordError> {
        if is_cross_site(headers) {
            return Err(RecordError::OtherSite);
        }
        let [pool] = query::parse(query, [query::POOL]).map_err(RecordError::Query)?;
        let mut ledgers = Vec::new();
        self.collector.ledgers(&mut ledgers);
        // By the name given to the pool, or as it is displayed.
        let only = pool.as_deref().map(printable);
        let names = ledgers.iter().map(|ledger| ledger.name());
        let selected: Vec<_> = names
            .filter(|name| only.as_deref().is_none_or(|only| ***name == *only || printable(name) == only))
            .collect();
        if selected.is_empty() {
            return Err(RecordError::NoPool);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < RECORD_INTERVAL) {
            return Err(RecordError::TooSoon);
        }
        let is_queued = match only {
            None => self.recorder.record(None),
            Some(_) => selected.iter().all(|name| self.recorder.record(Some(name))),
        };
        if !is_queued {
            return Err(RecordError::Busy);
        }
        *last = Some(now);
        let names: Vec<_> = selected.into_iter().map(|name| printable(name)).collect();
        Ok(serde_json::json!({ "pools": names }).to_string())
    }
}

/// Returns whether a page of another site caused the request. Clients that are no browsers send neither header.
fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    // Older browsers send it with each POST.
    headers.get(ORIGIN).is_some_and(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        !origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_other_sites_are_recognised() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let is_cross_site = |pairs: &[_]| is_cross_site(&headers(pairs));
        assert!(!is_cross_site(&[("host", "shop:9719")]), "no browser");
        for site in ["same-origin", "none"] {
            assert!(!is_cross_site(&[("sec-fetch-site", site)]), "{site}");
        }
        // A page on another port of the host is of the same site, but not trusted.
        for site in ["cross-site", "same-site", "", "SAME-ORIGIN"] {
            assert!(is_cross_site(&[("sec-fetch-site", site), ("origin", "http://shop:9719"), ("host", "shop:9719")]));
        }
        assert!(!is_cross_site(&[("origin", "http://Shop:9719"), ("host", "shop:9719")]));
        for origin in ["http://evil.example", "null", "", "http://shop", "http://shop:9719.evil.example"] {
            assert!(is_cross_site(&[("origin", origin), ("host", "shop:9719")]), "{origin}");
        }
        assert!(is_cross_site(&[("origin", "http://shop:9719")]), "without a host");
    }
}
