//! The behavior of the shop: typical, or with one fault.

/// A fault in the shop's code, or in a service that it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum CodeFault {
    /// Queries of the order list take long, as without an index.
    SlowQueries,
    /// The order list calls another service while it holds a connection.
    ExternalCall,
    /// The payment service, called in a transaction, is slow.
    SlowPayment,
    /// The customer count never returns its connection.
    Leak,
    /// The checkout acquires a second connection while it holds its first.
    NestedCheckout,
    /// The product page discards its connection each time.
    Discard,
    /// Reservations fail if a row is locked, instead of waiting.
    LockNoWait,
    /// Connections are returned in a transaction or while busy.
    DirtyReturn,
}

/// The behavior of the shop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::demo) struct Behavior {
    /// Whether typical errors occur: duplicate keys, divisions by zero, connections held while an email is sent.
    pub(in crate::demo) typical_errors: bool,
    /// The fault, if there is one.
    pub(in crate::demo) fault: Option<CodeFault>,
}

impl Behavior {
    /// Without any error.
    pub(in crate::demo) const GOOD: Self = Self { typical_errors: false, fault: None };

    /// With typical errors.
    pub(in crate::demo) const USUAL: Self = Self { typical_errors: true, fault: None };

    /// With this fault only.
    pub(in crate::demo) const fn with(fault: CodeFault) -> Self {
        Self { typical_errors: false, fault: Some(fault) }
    }
}
