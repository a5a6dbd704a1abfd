//! Stands in for TLS in builds without it.

use std::error::Error;

use super::pool_name::PoolName;
use crate::config::{ClientCertificate, ConfigError, TlsMode};

pub(crate) struct ClientTls;

impl ClientTls {
    pub(crate) fn new(
        _: &TlsMode,
        _: Option<&ClientCertificate>,
        _: Option<&'static [u8]>,
        _: &PoolName,
    ) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    pub(crate) async fn current(&self) -> CurrentTls {
        CurrentTls
    }
}

pub(crate) struct CurrentTls;

impl CurrentTls {
    pub(crate) fn explanation(&self, _: &(dyn Error + 'static)) -> Option<String> {
        None
    }
}

pub(crate) fn tls_problem(_: &(dyn Error + 'static), _: &str) -> Option<String> {
    None
}
