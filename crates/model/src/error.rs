//! Stands for `src/error.rs`.

use std::sync::Arc;
use std::time::Duration;

use crate::labels::{ConnectFailure, ErrorCode};

/// An outage, as it is reported.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "reported only")]
pub(crate) struct ConnectBackoff {
    pub(crate) failing_for: Duration,
    pub(crate) failure: ConnectFailure,
    pub(crate) code: ErrorCode,
    pub(crate) message: Arc<str>,
    pub(crate) attempted: bool,
}
