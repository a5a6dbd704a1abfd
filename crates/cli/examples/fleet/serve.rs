//! The HTTP server of the fleet: metrics of each instance, and the list of targets.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::page::Model;

/// The state of the server.
struct Fleet {
    listen: SocketAddr,
    instances: usize,
    model: Model,
    started: Instant,
}

/// Serves until the listener fails.
pub(crate) async fn serve(listen: SocketAddr, instances: usize, model: Model) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen).await?;
    let fleet = Arc::new(Fleet { listen: listener.local_addr()?, instances, model, started: Instant::now() });
    loop {
        let (stream, _) = listener.accept().await?;
        let fleet = Arc::clone(&fleet);
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(fleet.respond(&request))));
            // Errors of one client do not affect the others.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Fleet {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/targets" {
            return response(StatusCode::OK, "application/json", self.targets().into_bytes());
        }
        let number = path.strip_prefix("/instances/").and_then(|rest| rest.strip_suffix("/metrics"));
        let Some(instance) = number.and_then(|number| number.parse().ok()).filter(|number| *number < self.instances)
        else {
            return response(StatusCode::NOT_FOUND, "text/plain", b"/targets, /instances/NUMBER/metrics\n".to_vec());
        };
        let mut page = String::new();
        self.model.write(instance, self.started.elapsed(), &mut page);
        let gzip = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let text = "text/plain; version=0.0.4; charset=utf-8";
        if !gzip.is_some_and(|value| value.contains("gzip")) {
            return response(StatusCode::OK, text, page.into_bytes());
        }
        // The compression level of the exporter.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let compressed = gzip.write_all(page.as_bytes()).and_then(|()| gzip.finish()).unwrap_or_default();
        let mut response = response(StatusCode::OK, text, compressed);
        response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().expect("a value"));
        response
    }

    /// Returns the targets in the format of `http_sd_configs`.
    fn targets(&self) -> String {
        let target = |number| {
            serde_json::json!({
                "targets": [self.listen.to_string()],
                "labels": {
                    "__metrics_path__": format!("/instances/{number}/metrics"),
                    "instance": format!("shop-{number:04}"),
                },
            })
        };
        serde_json::Value::Array((0..self.instances).map(target).collect()).to_string()
    }
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a value"));
    response
}
