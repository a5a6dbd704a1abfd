//! Nobody traces.

use std::time::SystemTime;

use tracing::Span;

use super::{Attributes, TraceContext};

/// A span of a trace that is sampled: there is none.
#[derive(Clone, Debug)]
pub(crate) enum Trace {}

#[inline(always)]
pub(crate) const fn current() -> Option<TraceContext> {
    None
}

#[inline(always)]
pub(crate) const fn entered() -> Option<Trace> {
    None
}

impl Trace {
    pub(crate) fn ids(&self) -> TraceContext {
        match *self {}
    }

    pub(super) fn adopt(&self, _: &Span) {
        match *self {}
    }

    pub(super) fn tell(&self, _: &'static str, _: Attributes) {
        match *self {}
    }

    pub(super) fn point_to(&self, _: TraceContext, _: Attributes) {
        match *self {}
    }
}

pub(super) fn link(_: &Span, to: &Trace, _: Attributes) {
    match *to {}
}

pub(super) fn tell_at(_: &Span, _: &'static str, _: SystemTime) {}

pub(super) fn ids_of(_: &Span) -> Option<TraceContext> {
    None
}
