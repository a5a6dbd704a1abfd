//! Stands in for TLS in builds without it.

use tokio_postgres::NoTls;

use super::tls::CurrentTls;

pub(super) fn for_host(_: &CurrentTls, _: &str) -> Option<NoTls> {
    None
}
