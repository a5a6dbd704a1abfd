//! Stands in for TLS in builds without it.

use std::error::Error;

use super::pool_name::PoolName;
use crate::config::{ClientCertificate, ConfigError, TlsMode};

pub(in crate::pool) struct ClientTls;

impl ClientTls {
    pub(in crate::pool) fn new(
        _: &TlsMode,
        _: Option<&ClientCertificate>,
        _: Option<&'static [u8]>,
        _: &PoolName,
    ) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    pub(in crate::pool) async fn current(&self) -> CurrentTls {
        CurrentTls
    }
}

pub(in crate::pool) struct CurrentTls;

impl CurrentTls {
    pub(in crate::pool) fn explanation(&self, _: &(dyn Error + 'static)) -> Option<String> {
        None
    }
}

pub(in crate::pool) fn tls_problem(_: &(dyn Error + 'static), _: &str) -> Option<String> {
    None
}
