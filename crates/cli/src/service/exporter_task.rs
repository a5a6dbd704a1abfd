//! The exporter in a task of its own.

use std::net::SocketAddr;

use poolscope::exporter::{Exporter, ExporterError};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::error::ServiceError;
use super::shutdown::{ShutdownReason, request_shutdown};
use super::web_settings::WebSettings;

/// An exporter that serves until [`stop`](Self::stop).
#[derive(Debug)]
pub(crate) struct ExporterTask {
    address: SocketAddr,
    scheme: &'static str,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ExporterError>>,
}

impl ExporterTask {
    /// Listens as configured by `settings`, and serves in a new task. Requests shutdown if serving fails later.
    pub(crate) async fn start(
        settings: WebSettings,
        exporter: Exporter,
        shutdown: watch::Sender<Option<ShutdownReason>>,
    ) -> Result<Self, ServiceError> {
        let exporter = settings.bind(exporter).await?;
        let (address, scheme) = (exporter.local_addr(), exporter.scheme());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let served = exporter.serve(async { drop(stopped.await) }).await;
            if served.is_err() {
                request_shutdown(&shutdown, ShutdownReason::Failure);
            }
            served
        });
        Ok(Self { address, scheme, stop, task })
    }

    /// Returns the base URL for a browser on this machine.
    pub(crate) fn url(&self) -> String {
        match self.address {
            address if address.ip().is_unspecified() => format!("{}://localhost:{}", self.scheme, address.port()),
            address => format!("{}://{address}", self.scheme),
        }
    }

    /// Stops gracefully. Returns the error if serving has failed.
    pub(crate) async fn stop(self) -> Result<(), ServiceError> {
        // Fails if the task has already ended.
        let _ = self.stop.send(());
        Ok(self.task.await.map_err(ServiceError::system)??)
    }
}
