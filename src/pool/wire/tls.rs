//! Puts what lies around a socket around the TLS that is made of it instead.

use std::pin::Pin;

use tokio_postgres::tls::TlsConnect;

use super::patient::Patient;
use super::tap::Tap;

/// Makes TLS over the bare socket, and moves what lay around the socket above it.
///
/// tokio-postgres takes a socket and makes TLS of it within: what is around the socket only would see nothing but
/// ciphertext. Until then it sees what precedes TLS: the request for it, and the server's one byte in answer.
///
/// Not for [`NoTls`](tokio_postgres::NoTls): that one tells tokio-postgres by a hidden method not to try, which a
/// wrapper cannot hand on, as the method's argument has no name outside. It makes no TLS, so nothing need be moved.
#[derive(Debug)]
pub(crate) struct Above<T>(pub(crate) T);

type Connecting<S, E> = Pin<Box<dyn Future<Output = Result<S, E>> + Send>>;

impl<S, T> TlsConnect<Tap<S>> for Above<T>
where
    T: TlsConnect<S, Future: Send + 'static>,
{
    type Stream = Tap<T::Stream>;
    type Error = T::Error;
    type Future = Connecting<Self::Stream, T::Error>;

    fn connect(self, tap: Tap<S>) -> Self::Future {
        let (stream, eyes) = tap.into_parts();
        let connecting = self.0.connect(stream);
        Box::pin(async move { Ok(Tap::new(connecting.await?, eyes)) })
    }
}

impl<S, T> TlsConnect<Patient<S>> for Above<T>
where
    T: TlsConnect<S, Future: Send + 'static>,
{
    type Stream = Patient<T::Stream>;
    type Error = T::Error;
    type Future = Connecting<Self::Stream, T::Error>;

    fn connect(self, patient: Patient<S>) -> Self::Future {
        let connecting = self.0.connect(patient.into_inner());
        Box::pin(async move { Ok(Patient::new(connecting.await?)) })
    }
}
