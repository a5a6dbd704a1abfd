//! Units by Grafana's names.

/// The unit of a panel's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A number of connections, checkouts and so on.
    Count,
    /// A share of a whole, from 0 to 1.
    Share,
    /// Seconds.
    Seconds,
    /// A rate per second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes per second.
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
