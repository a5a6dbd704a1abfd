//! The spans of a connection's holder, if the holder is part of a sampled trace.

use crate::telemetry::trace::{CurrentSpan, SampledSpan, TraceContext};

/// The maximum number of links from a holder's span to waiters, so that room remains for the span's own links.
const MAX_WAITER_LINKS: u8 = 16;

/// The spans of a connection's holder.
#[derive(Debug, Default)]
pub(super) struct HolderSpans {
    /// The span in which the connection was checked out.
    pub(super) checkout: Option<SampledSpan>,
    /// The span in which the connection was last used.
    pub(super) last_use: LastUse,
    /// The number of uses, counting those in the same span as the use before once, that no request followed yet.
    pending_uses: u32,
    /// The number of links from the holder's span to waiters.
    waiter_links: u8,
}

/// The parent of a query's span.
#[derive(Clone, Debug)]
pub(crate) struct QueryParent {
    pub(crate) span: SampledSpan,
    /// The span of the checkout, if it is part of another trace.
    pub(crate) checkout: Option<SampledSpan>,
}

/// Where a holder last used its connection.
#[derive(Debug, Default)]
pub(super) enum LastUse {
    /// In the span of the checkout, outside any trace, or in several spans at once.
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

    /// Records a use in the span `current`. Returns the previous one, to be dropped without the lock.
    ///
    /// Requests reach the wire later, where the span of each is unknown. If requests of another span may still follow,
    /// theirs and those of this use belong to the checkout's span. `is_exclusive` means that the connection is not borrowed
    /// otherwise, and `is_settled` that all requests were sent and answered.
    pub(super) fn record_use(
        &mut self,
        current: CurrentSpan,
        is_exclusive: bool,
        is_settled: impl FnOnce() -> bool,
    ) -> LastUse {
        let next = match current {
            CurrentSpan::Untraced => LastUse::AtCheckout,
            CurrentSpan::Unsampled => LastUse::Unsampled,
            CurrentSpan::Sampled(span) => LastUse::Within(span),
        };
        if self.is_same_span(&next) {
            self.pending_uses = self.pending_uses.max(1);
            return next;
        }
        let is_alone = is_exclusive || self.pending_uses == 0 || is_settled();
        self.pending_uses = if is_alone { 1 } else { self.pending_uses.saturating_add(1) };
        std::mem::replace(&mut self.last_use, if is_alone { next } else { LastUse::AtCheckout })
    }

    fn is_same_span(&self, next: &LastUse) -> bool {
        match (&self.last_use, next) {
            (LastUse::Within(last), LastUse::Within(next)) => last.ids() == next.ids(),
            (LastUse::Unsampled, LastUse::Unsampled) => true,
            // The span is the checkout's already.
            (LastUse::AtCheckout, LastUse::AtCheckout) => true,
            (LastUse::AtCheckout, LastUse::Within(next)) => {
                self.checkout.as_ref().is_some_and(|checkout| checkout.ids() == next.ids())
            }
            _ => false,
        }
    }

    /// Records that a request was sent. Returns the parent of its query's span.
    pub(super) fn begin_request(&mut self) -> Option<QueryParent> {
        self.pending_uses = self.pending_uses.saturating_sub(1);
        match &self.last_use {
            LastUse::AtCheckout => self.checkout.clone().map(|span| QueryParent { span, checkout: None }),
            LastUse::Within(span) => {
                let is_other = |checkout: &&SampledSpan| checkout.ids().trace_id != span.ids().trace_id;
                let checkout = self.checkout.as_ref().filter(is_other).cloned();
                Some(QueryParent { span: span.clone(), checkout })
            }
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
