//! The transaction status of a session.

/// The transaction status that a `ReadyForQuery` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    Open,
    /// In a failed transaction block: the server rejects everything until the block ends.
    Failed,
}

impl TransactionStatus {
    /// Returns the status in the body of a `ReadyForQuery`, if it is known.
    #[inline]
    pub(super) fn of_ready(body: &[u8]) -> Option<Self> {
        match body {
            b"I" => Some(Self::Idle),
            b"T" => Some(Self::Open),
            b"E" => Some(Self::Failed),
            _ => None,
        }
    }
}
