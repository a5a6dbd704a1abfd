//! The name of a pool in its log.

use std::sync::{Arc, OnceLock};

/// The name of a pool. A collector may give it another one than was wanted, after its files have been read.
#[derive(Clone, Debug)]
pub(crate) struct PoolName(Arc<Names>);

#[derive(Debug)]
struct Names {
    wanted: Box<str>,
    given: OnceLock<Box<str>>,
}

impl PoolName {
    pub(crate) fn wanted(name: &str) -> Self {
        Self(Arc::new(Names { wanted: name.into(), given: OnceLock::new() }))
    }

    /// Sets the final name; the first one counts.
    pub(crate) fn give(&self, name: &str) {
        self.0.given.get_or_init(|| name.into());
    }

    /// Returns the final name, or the wanted one while there is none.
    pub(crate) fn as_str(&self) -> &str {
        self.0.given.get().unwrap_or(&self.0.wanted)
    }
}
