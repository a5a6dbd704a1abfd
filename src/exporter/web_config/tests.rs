//! What the exporter's tests see of a web configuration at work.

use std::sync::{Arc, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use super::{http, read, tls};
use crate::exporter::Exporter;

/// Every key that there is.
pub(in crate::exporter) fn keys() -> impl Iterator<Item = &'static str> {
    let headers = http::HEADERS.iter().map(|(name, ..)| *name);
    read::KEYS.iter().chain(tls::KEYS).chain(http::KEYS).copied().chain(headers)
}

/// How many passwords bcrypt had to verify since the file was read last.
pub(in crate::exporter) fn verified(exporter: &Exporter) -> usize {
    verified_on(exporter).len()
}

/// The threads on which it did.
pub(in crate::exporter) fn verified_on(exporter: &Exporter) -> Vec<ThreadId> {
    let live = exporter.web.as_ref().unwrap_or_else(|| panic!("a web configuration"));
    let loaded = live.loaded();
    let users = loaded.users.as_ref().unwrap_or_else(|| panic!("users"));
    users.verified.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Has requests look at the files so often, at the most.
pub(in crate::exporter) fn look_every(exporter: &mut Exporter, time: Duration) {
    let live = exporter.web.as_mut().and_then(Arc::get_mut);
    live.unwrap_or_else(|| panic!("a web configuration of its own")).look_every = time;
}

/// Has it be as if what is there now could not be used when it was read.
pub(in crate::exporter) fn complain(exporter: &Exporter) {
    let live = exporter.web.as_ref().unwrap_or_else(|| panic!("a web configuration"));
    live.complained();
}

/// The reading that holds, as a number that no other has while it is kept.
pub(in crate::exporter) fn reading(exporter: &Exporter) -> Arc<super::Loaded> {
    exporter.web.as_ref().unwrap_or_else(|| panic!("a web configuration")).loaded()
}
