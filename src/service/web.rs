//! The exporter, as a task of its own.

use std::net::SocketAddr;

use prometheus::Registry;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::ending::{Ending, end};
use super::error::ServiceError;
use crate::Collector;
use crate::exporter::{Exporter, ExporterError, Readiness};

/// The exporter, which serves until [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct Web {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ExporterError>>,
}

impl Web {
    /// Listens at `address`. If serving fails later, that ends the service.
    pub(crate) async fn start(
        address: &str,
        registry: Registry,
        collector: Collector,
        readiness: Readiness,
        ending: watch::Sender<Option<Ending>>,
    ) -> Result<Self, ServiceError> {
        let exporter = Exporter::new(registry).collector(collector).readiness(readiness);
        let exporter = exporter.bind(address).await?;
        let address = exporter.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let served = exporter.serve(async { drop(stopped.await) }).await;
            if served.is_err() {
                end(&ending, Ending::Failure);
            }
            served
        });
        Ok(Self { address, stop, task })
    }

    /// Where a browser on this machine finds it.
    pub(crate) fn url(&self) -> String {
        match self.address {
            address if address.ip().is_unspecified() => format!("http://localhost:{}", address.port()),
            address => format!("http://{address}"),
        }
    }

    /// Lets the requests under way end, and says whether it served as it should.
    pub(crate) async fn stop(self) -> Result<(), ServiceError> {
        // It may have failed already: then nobody waits for this.
        let _ = self.stop.send(());
        Ok(self.task.await.map_err(ServiceError::system)??)
    }
}
