//! What a command that runs until it is told to end is made of: the exporter as a task, what ends it, and whoever manages
//! the service.

mod ending;
mod error;
mod notify;
mod quote;
mod web;
mod web_settings;

pub(crate) use self::ending::{Ending, end, ended, watch_signals};
pub use self::error::{NotAPath, ServiceError};
pub(crate) use self::notify::Manager;
pub(crate) use self::quote::{masked, may_be_url, quoted};
pub(crate) use self::web::Web;
pub use self::web_settings::{Listen, WebError, WebSettings};
