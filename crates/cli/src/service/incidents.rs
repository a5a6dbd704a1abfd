//! Incident files of a command, which SIGUSR1 begins, too.

use std::path::PathBuf;

use poolscope::Collector;
use poolscope::recording::{IncidentRecorder, IncidentSettings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::ServiceError;

/// The recorder, if there is a directory.
#[derive(Debug)]
pub(crate) struct Incidents(Option<(IncidentRecorder, JoinHandle<()>)>);

impl Incidents {
    /// Records the pools of `collector`.
    pub(crate) fn start(directory: Option<PathBuf>, collector: &Collector) -> Result<Self, ServiceError> {
        let Some(directory) = directory else { return Ok(Self(None)) };
        let settings = IncidentSettings::new(directory);
        let recorder = IncidentRecorder::start(collector, settings).map_err(ServiceError::system)?;
        let mut requests = signal(SignalKind::user_defined1()).map_err(ServiceError::system)?;
        let requested = recorder.clone();
        let task = tokio::spawn(async move {
            while requests.recv().await.is_some() {
                requested.record(None);
            }
        });
        Ok(Self(Some((recorder, task))))
    }

    /// Completes the files, within seconds.
    pub(crate) async fn finish(self) {
        if let Some((recorder, task)) = self.0 {
            task.abort();
            // Does not panic.
            let _ = spawn_blocking(move || recorder.finish()).await;
        }
    }
}
