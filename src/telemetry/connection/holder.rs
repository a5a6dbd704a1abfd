//! The spans of a connection's holder, if the holder is part of a sampled trace.

use crate::telemetry::trace::{SampledSpan, TraceContext};

/// The maximum number of links from a holder's span to waiters, so that room remains for the span's own links.
const MAX_WAITER_LINKS: u8 = 16;

/// The spans of a connection's holder.
#[derive(Debug, Default)]
pub(super) struct HolderSpans {
    /// The span in which the connection was checked out.
    pub(super) checkout: Option<SampledSpan>,
    /// The span in which the connection was last used.
    pub(super) last_use: LastUse,
    /// The number of links from the holder's span to waiters.
    waiter_links: u8,
}

/// Where a holder last used its connection.
#[derive(Debug, Default)]
pub(super) enum LastUse {
    /// In the span of the checkout, or outside any trace.
    #[default]
    AtCheckout,
    /// In another span of a sampled trace.
    Within(SampledSpan),
    /// In a trace that is not sampled.
    Unsampled,
}

impl HolderSpans {
    pub(super) fn new(checkout: Option<SampledSpan>) -> Self {
        Self { checkout, ..Self::default() }
    }

    /// Returns the span in which the connection was last used, which becomes the parent of query spans.
    pub(super) fn last_used_in(&self) -> Option<SampledSpan> {
        match &self.last_use {
            LastUse::AtCheckout => self.checkout.clone(),
            LastUse::Within(span) => Some(span.clone()),
            LastUse::Unsampled => None,
        }
    }

    /// Counts one more link to a waiter, if the holder's span is still `holder` and may have one more. Returns whether
    /// it may.
    pub(super) fn count_waiter_link(&mut self, holder: TraceContext) -> bool {
        let is_current = self.checkout.as_ref().is_some_and(|span| span.ids() == holder);
        let may_link = is_current && self.waiter_links < MAX_WAITER_LINKS;
        self.waiter_links += u8::from(may_link);
        may_link
    }
}
