//! Nobody traces.

use std::convert::Infallible;
use std::time::SystemTime;

use tracing::Span;

use super::{Attributes, Surroundings, TraceContext};

/// A span of a trace that is sampled: there is none.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Infallible);

#[inline(always)]
pub(crate) const fn current() -> Option<TraceContext> {
    None
}

#[inline(always)]
pub(crate) const fn entered() -> Option<Trace> {
    None
}

#[inline(always)]
pub(crate) const fn surroundings() -> Surroundings {
    Surroundings::Untraced
}

impl Trace {
    pub(crate) fn released(&self) -> Self {
        match self.0 {}
    }

    pub(crate) fn ids(&self) -> TraceContext {
        match self.0 {}
    }

    #[cfg(feature = "middleware")]
    pub(crate) fn describe(&self, _: &[(&'static str, u64)], _: &[(&'static str, std::time::Duration)]) {
        match self.0 {}
    }

    pub(super) fn adopt(&self, _: &Span) {
        match self.0 {}
    }

    pub(super) fn tell(&self, _: &'static str, _: Attributes) {
        match self.0 {}
    }

    pub(super) fn point_to(&self, _: TraceContext, _: Attributes) {
        match self.0 {}
    }
}

pub(super) fn link(_: &Span, to: &Trace, _: Attributes) {
    match to.0 {}
}

pub(super) fn tell_at(_: &Span, _: &'static str, _: SystemTime) {}

pub(super) fn ids_of(_: &Span) -> Option<TraceContext> {
    None
}
