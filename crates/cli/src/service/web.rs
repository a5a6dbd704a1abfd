//! The exporter, as a task of its own.

use std::net::SocketAddr;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::ending::{Ending, end};
use super::error::ServiceError;
use super::web_settings::WebSettings;
use poolscope::Collector;
use poolscope::exporter::{Exporter, ExporterError, Readiness};

/// The exporter, which serves until [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct Web {
    address: SocketAddr,
    scheme: &'static str,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ExporterError>>,
}

impl Web {
    /// Listens as `settings` say. If serving fails later, that ends the service.
    pub(crate) async fn start(
        settings: WebSettings,
        collector: Collector,
        readiness: Readiness,
        ending: watch::Sender<Option<Ending>>,
    ) -> Result<Self, ServiceError> {
        let exporter = Exporter::new(collector).readiness(readiness);
        let exporter = settings.bind(exporter).await?;
        let (address, scheme) = (exporter.local_addr(), exporter.scheme());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let served = exporter.serve(async { drop(stopped.await) }).await;
            if served.is_err() {
                end(&ending, Ending::Failure);
            }
            served
        });
        Ok(Self { address, scheme, stop, task })
    }

    /// Where a browser on this machine finds it.
    pub(crate) fn url(&self) -> String {
        match self.address {
            address if address.ip().is_unspecified() => format!("{}://localhost:{}", self.scheme, address.port()),
            address => format!("{}://{address}", self.scheme),
        }
    }

    /// Lets the requests under way end, and says whether it served as it should.
    pub(crate) async fn stop(self) -> Result<(), ServiceError> {
        // It may have failed already: then nobody waits for this.
        let _ = self.stop.send(());
        Ok(self.task.await.map_err(ServiceError::system)??)
    }
}
