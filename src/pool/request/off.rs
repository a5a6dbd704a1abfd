//! Stands for the module `request` without the feature `middleware`: there are no requests.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::requests::RouteKey;

pub(super) fn operation(_: &Arc<Ledger>) -> Option<OperationId> {
    None
}

pub(super) fn route_key(_: &Arc<Ledger>) -> Option<RouteKey> {
    None
}

pub(super) fn begin_checkout(_: &Arc<Ledger>, _: SiteId) -> Option<RequestCheckout> {
    None
}

pub(crate) fn count_retry(_: &Arc<Ledger>) {}

#[derive(Debug)]
pub(super) struct RequestCheckout(Infallible);

#[derive(Debug)]
pub(super) struct RoutePermits(Infallible);

#[derive(Debug)]
#[allow(dead_code, reason = "never constructed, but matched")]
pub(super) enum Entry {
    Admitted,
    Full(Arc<RoutePermits>),
    Closed,
}

impl RequestCheckout {
    pub(super) fn enter(&mut self) -> Entry {
        match self.0 {}
    }

    pub(super) fn admit(&mut self, _: OwnedSemaphorePermit) {
        match self.0 {}
    }

    pub(super) fn into_permit(self) -> Option<OwnedSemaphorePermit> {
        match self.0 {}
    }

    pub(super) fn route(&self) -> Arc<str> {
        match self.0 {}
    }

    pub(super) fn end_wait(&self, _: u64) {
        match self.0 {}
    }

    pub(super) fn begin_use(&mut self, _: &ConnectionStats, _: OperationId, _: u64, _: Nanos) {
        match self.0 {}
    }

    pub(super) fn end_use(&self, _: &ConnectionStats, _: OperationId, _: Nanos, _: Nanos) {
        match self.0 {}
    }
}

impl RoutePermits {
    pub(super) async fn wait(self: Arc<Self>, _: Recorder) -> Option<OwnedSemaphorePermit> {
        match self.0 {}
    }
}

#[derive(Debug, Default)]
pub(crate) struct LayerLimits {}

impl LayerLimits {
    pub(super) fn close(&self) {}
}
