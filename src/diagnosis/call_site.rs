//! Where the code of a service uses a pool.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// A place in the code of the service, shown as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallSite {
    /// In this process.
    Code(&'static Location<'static>),
    /// In the process that was recorded.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only a recording has them"))]
    Recorded(Arc<str>),
}

impl From<&'static Location<'static>> for CallSite {
    fn from(location: &'static Location<'static>) -> Self {
        Self::Code(location)
    }
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(location) => write!(f, "{}:{}", location.file(), location.line()),
            Self::Recorded(text) => f.write_str(text),
        }
    }
}
