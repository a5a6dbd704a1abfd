//! An HTTP server on a free port, and a client of it.

use std::net::SocketAddr;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::with_deadline;

/// An axum server, which is stopped when this is dropped.
pub(super) struct TestServer {
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl TestServer {
    pub(super) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, tasks }
    }

    /// Opens a connection, which is closed when it is dropped.
    pub(super) async fn connect(&mut self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Client { sender, _tasks: tasks }
    }

    /// Returns the whole response to a request on a new connection.
    pub(super) async fn get(&mut self, path: &str) -> Response<Bytes> {
        let request = Request::get(path).body(Full::default()).unwrap();
        self.connect().await.request(request).await
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

pub(super) struct Client {
    pub(super) sender: SendRequest<Full<Bytes>>,
    _tasks: JoinSet<()>,
}

impl Client {
    /// Returns the head of the response, with an unread body.
    pub(super) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Response<Incoming> {
        request.headers_mut().insert("host", "test".parse().unwrap());
        with_deadline("a response", self.sender.send_request(request)).await.unwrap()
    }

    pub(super) async fn request(&mut self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let (head, body) = self.send(request).await.into_parts();
        Response::from_parts(head, with_deadline("the end of the response", body.collect()).await.unwrap().to_bytes())
    }
}
