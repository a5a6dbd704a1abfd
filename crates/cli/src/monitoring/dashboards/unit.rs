//! Units, by the names that Grafana has for them.

/// What a panel's numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Connections, checkouts and other things.
    Count,
    /// A share; 1 is all.
    Share,
    /// Seconds.
    Seconds,
    /// Things in a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
}

impl Unit {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Share => "percentunit",
            Self::Seconds => "s",
            Self::PerSecond => "suffix:/s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "binBps",
        }
    }
}
