//! What long-running commands share: the exporter as a task, shutdown, and notifications to the service manager.

mod error;
mod exporter_task;
mod file;
mod incidents;
mod notify;
mod quote;
mod runtime;
mod shutdown;
mod web_settings;

pub(crate) use self::error::{NotAPath, ServiceError};
pub(crate) use self::exporter_task::ExporterTask;
pub(crate) use self::file::without_line_break;
pub(crate) use self::incidents::{Incidents, RecordSettings};
pub(crate) use self::notify::ServiceManager;
pub(crate) use self::quote::{masked, may_be_url, quoted};
pub(crate) use self::runtime::{FLUSH_TIMEOUT, SHUTDOWN_TIMEOUT, run};
pub(crate) use self::shutdown::{ShutdownReason, Signals, request_shutdown, shutdown_requested, watch_signals};
pub(crate) use self::web_settings::{WebError, WebSettings};
