//! How the shop goes about its work: as it does in life, or with one fault that it has for a while.

/// A fault of the shop's code, or of those whom it calls, that shows in how it holds connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Flaw {
    /// Listing orders takes the server long, as without an index.
    SlowQueries,
    /// Listing orders calls another service while it holds its connection.
    CallsElsewhere,
    /// The payment service, which is called within a transaction, is slow.
    SlowPayment,
    /// Who counts customers never gives the connection back.
    Leaks,
    /// Checking out takes a second connection while it holds its first.
    Nests,
    /// Finding a product throws its connection away each time.
    Discards,
    /// Reserving stock does not wait for a row that somebody else has locked.
    WaitsForNobody,
    /// Connections come back in transactions, and at work.
    LeavesDirty,
}

/// How the shop goes about its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::demo) struct Manner {
    /// Whether what is wrong in every shop is wrong in this one: numbers that come twice, crates that are empty,
    /// connections that are held while a mail is sent.
    pub(in crate::demo) mishaps: bool,
    /// What is wrong with it for a while.
    pub(in crate::demo) flaw: Option<Flaw>,
}

impl Manner {
    /// With nothing wrong.
    pub(in crate::demo) const GOOD: Self = Self { mishaps: false, flaw: None };

    /// As it is in life.
    pub(in crate::demo) const USUAL: Self = Self { mishaps: true, flaw: None };

    /// With this fault, and nothing else wrong.
    pub(in crate::demo) const fn with(flaw: Flaw) -> Self {
        Self { mishaps: false, flaw: Some(flaw) }
    }
}
