//! Incident files of a command, which SIGUSR1 begins, too.

use std::path::PathBuf;

use poolscope::Collector;
use poolscope::exporter::Exporter;
use poolscope::recording::{IncidentRecorder, IncidentSettings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::ServiceError;

/// Where incident files are written, and on whose request.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecordSettings {
    /// The directory; `None` if no files are written.
    pub(crate) directory: Option<PathBuf>,
    /// Whether the exporter's API begins files.
    pub(crate) is_requestable: bool,
}

/// The recorder, if there is a directory.
#[derive(Debug)]
pub(crate) struct Incidents {
    recording: Option<(IncidentRecorder, JoinHandle<()>)>,
    is_requestable: bool,
}

impl Incidents {
    /// Records the pools of `collector`.
    pub(crate) fn start(settings: RecordSettings, collector: &Collector) -> Result<Self, ServiceError> {
        let RecordSettings { directory, is_requestable } = settings;
        let Some(directory) = directory else { return Ok(Self { recording: None, is_requestable: false }) };
        let settings = IncidentSettings::new(directory);
        let recorder = IncidentRecorder::start(collector, settings).map_err(ServiceError::system)?;
        let mut requests = signal(SignalKind::user_defined1()).map_err(ServiceError::system)?;
        let requested = recorder.clone();
        let task = tokio::spawn(async move {
            while requests.recv().await.is_some() {
                requested.record(None);
            }
        });
        Ok(Self { recording: Some((recorder, task)), is_requestable })
    }

    /// Lets the exporter begin files, if that is enabled.
    pub(crate) fn enable(&self, exporter: Exporter) -> Exporter {
        match &self.recording {
            Some((recorder, _)) if self.is_requestable => exporter.record_on_request(recorder.clone()),
            _ => exporter,
        }
    }

    /// Completes the files, within seconds.
    pub(crate) async fn finish(self) {
        if let Some((recorder, task)) = self.recording {
            task.abort();
            // Does not panic.
            let _ = spawn_blocking(move || recorder.finish()).await;
        }
    }
}
