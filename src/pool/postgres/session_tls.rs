//! TLS below the protocol observer: moves a wrapper of the socket from below TLS to above it.

use std::pin::Pin;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::socket::Socket;
use super::tls::CurrentTls;
use crate::wire::{AwaitPeerClose, Tap};

/// Connects TLS over the inner stream of a [`Tap`] or [`AwaitPeerClose`], and wraps the TLS stream again.
///
/// tokio-postgres is given a socket and connects TLS over it, so a wrapper of the socket would only see ciphertext.
/// Before TLS, the wrapper sees the request for it and the server's answer of one byte.
///
/// Not for [`NoTls`](tokio_postgres::NoTls): that one opts out through a hidden method which a wrapper cannot
/// implement, since the type of its argument is not public. Without TLS there is nothing to move.
#[derive(Debug)]
pub(super) struct RewrapTls<T>(T);

/// Returns what connects TLS to the server of this name, below a wrapper of the socket; `None` for plaintext.
pub(super) fn for_host(
    tls: &CurrentTls,
    hostname: &str,
) -> Option<RewrapTls<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect>> {
    let mut tls = MakeRustlsConnect::new((**tls.config()?).clone());
    let Ok(tls) = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, hostname);
    Some(RewrapTls(tls))
}

type Connecting<S, E> = Pin<Box<dyn Future<Output = Result<S, E>> + Send>>;

impl<S, T> TlsConnect<Tap<S>> for RewrapTls<T>
where
    T: TlsConnect<S, Future: Send + 'static>,
{
    type Stream = Tap<T::Stream>;
    type Error = T::Error;
    type Future = Connecting<Self::Stream, T::Error>;

    fn connect(self, tap: Tap<S>) -> Self::Future {
        let Tap { stream, observer, mut guard } = tap;
        let connecting = self.0.connect(stream);
        Box::pin(async move {
            let stream = connecting.await?;
            if let Some(guard) = &mut guard {
                guard.begin_tls();
            }
            Ok(Tap { stream, observer, guard })
        })
    }
}

impl<S, T> TlsConnect<AwaitPeerClose<S>> for RewrapTls<T>
where
    T: TlsConnect<S, Future: Send + 'static>,
{
    type Stream = AwaitPeerClose<T::Stream>;
    type Error = T::Error;
    type Future = Connecting<Self::Stream, T::Error>;

    fn connect(self, AwaitPeerClose(stream): AwaitPeerClose<S>) -> Self::Future {
        let connecting = self.0.connect(stream);
        Box::pin(async move { Ok(AwaitPeerClose(connecting.await?)) })
    }
}
