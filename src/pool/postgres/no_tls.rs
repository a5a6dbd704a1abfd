//! Stands in for TLS in builds without it.

use tokio_postgres::config::SslNegotiation;
use tokio_postgres::{Error, NoTls};

use crate::config::{ConfigError, TlsMode};

pub(super) struct ClientTls;

impl ClientTls {
    pub(super) fn new(_: &TlsMode, _: SslNegotiation) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    pub(super) fn for_host(&self, _: &str) -> Option<NoTls> {
        None
    }
}

pub(super) fn tls_problem(_: &Error, _: &str) -> Option<String> {
    None
}
