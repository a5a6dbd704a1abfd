//! The flags of incident files.

use std::path::PathBuf;

use clap::Args;

use crate::service::RecordSettings;

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// Write a file to this directory whenever a verdict names a problem, with the minutes around it; docs/recording.md
    ///
    /// SIGUSR1 writes one, too.
    #[arg(long, value_name = "DIR", env = "POOLSCOPE_RECORD_DIR")]
    record_dir: Option<PathBuf>,

    /// Also write one when POST /api/v1/record is requested
    #[arg(long = "web.enable-record", env = "POOLSCOPE_WEB_ENABLE_RECORD", requires = "record_dir")]
    enable_record: bool,
}

impl RecordArgs {
    pub(super) fn settings(&self) -> RecordSettings {
        RecordSettings { directory: self.record_dir.clone(), is_requestable: self.enable_record }
    }
}
