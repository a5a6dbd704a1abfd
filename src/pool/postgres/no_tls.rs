//! Stands in for TLS in builds without it.

use tokio_postgres::{Error, NoTls};

use super::error::ConnectError;
use super::pool_name::PoolName;
use crate::config::{ConfigError, DatabaseUrl};

pub(super) struct ClientTls;

impl ClientTls {
    pub(super) fn new(_: &DatabaseUrl, _: &PoolName) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    pub(super) async fn current(&self) -> CurrentTls {
        CurrentTls
    }
}

pub(super) struct CurrentTls;

impl CurrentTls {
    pub(super) fn for_host(&self, _: &str) -> Option<NoTls> {
        None
    }

    pub(super) fn explain(&self, error: ConnectError) -> ConnectError {
        error
    }
}

pub(super) fn tls_problem(_: &Error, _: &str) -> Option<String> {
    None
}
