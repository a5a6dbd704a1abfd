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

/// The recorder, if there is a directory, and the task that waits for the signal.
#[derive(Debug)]
pub(crate) struct Incidents {
    recorder: Option<IncidentRecorder>,
    is_requestable: bool,
    signals: JoinHandle<()>,
}

impl Incidents {
    /// Records the pools of `collector`. Without a directory, the signal is only logged: its default would end the process.
    pub(crate) fn start(settings: RecordSettings, collector: &Collector) -> Result<Self, ServiceError> {
        let RecordSettings { directory, is_requestable } = settings;
        let start = |directory| IncidentRecorder::start(collector, IncidentSettings::new(directory));
        let recorder = directory.map(start).transpose().map_err(ServiceError::system)?;
        let mut requests = signal(SignalKind::user_defined1()).map_err(ServiceError::system)?;
        let requested = recorder.clone();
        let signals = tokio::spawn(async move {
            while requests.recv().await.is_some() {
                match &requested {
                    Some(recorder) => {
                        recorder.record(None);
                    }
                    None => tracing::warn!("received SIGUSR1, but no incident file is written: give --record-dir"),
                }
            }
        });
        Ok(Self { recorder, is_requestable, signals })
    }

    /// Lets the exporter begin files, if that is enabled.
    pub(crate) fn enable(&self, exporter: Exporter) -> Exporter {
        match &self.recorder {
            Some(recorder) if self.is_requestable => exporter.record_on_request(recorder.clone()),
            _ => exporter,
        }
    }

    /// Completes the files, within seconds.
    pub(crate) async fn finish(self) {
        self.signals.abort();
        if let Some(recorder) = self.recorder {
            // Does not panic.
            let _ = spawn_blocking(move || recorder.finish()).await;
        }
    }
}
