//! The exporter over real sockets, one file a risk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};
use tokio::net::TcpStream;
use tokio::sync::{mpsc as async_mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Exporter, ExporterError};

mod bind;
mod endpoints;
mod formats;
mod hostile;
mod pools;
mod scrapes;
mod shutdown;
#[cfg(feature = "web-config")]
mod web;

/// Long enough for a busy machine: only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A limit that is meant to be met.
const SHORT: Duration = Duration::from_millis(50);

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("ends in time")
}

/// An exporter that serves, until this is dropped.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ExporterError>>,
}

impl Running {
    async fn start(exporter: &Exporter) -> Self {
        let bound = exporter.bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(bound.serve(async {
            let _ = stopped.await;
        }));
        Self { address, stop, served }
    }

    async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.connect().await.request("GET", path).await
    }

    /// Begins the shutdown, and answers with what ends when it has ended.
    fn stop(self) -> JoinHandle<Result<(), ExporterError>> {
        self.stop.send(()).unwrap();
        self.served
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    bytes: Vec<u8>,
    /// The same as text, if that is what it is.
    body: String,
}

impl Answer {
    /// The value of a sample, named with its labels as the text format writes them.
    fn sample(&self, series: &str) -> Option<f64> {
        self.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// A client that sends exactly what it is told to.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&self, mut text: &[u8]) {
        while !text.is_empty() {
            self.stream.writable().await.unwrap();
            match self.stream.try_write(text) {
                Ok(sent) => text = &text[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("cannot send: {error}"),
            }
        }
    }

    async fn ask(&self, method: &str, path: &str) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.send(head.as_bytes()).await;
    }

    async fn request(&mut self, method: &str, path: &str) -> Answer {
        self.ask(method, path).await;
        self.answer(method != "HEAD").await
    }

    /// Whether more arrived, rather than the end of the connection.
    async fn receive(&mut self) -> bool {
        let mut chunk = [0; 8192];
        loop {
            self.stream.readable().await.unwrap();
            match self.stream.try_read(&mut chunk) {
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("cannot receive: {error}"),
            }
        }
    }

    async fn answer(&mut self, has_body: bool) -> Answer {
        patiently(async {
            let head_len = loop {
                match self.received.windows(4).position(|end| end == b"\r\n\r\n") {
                    Some(at) => break at + 4,
                    None => assert!(self.receive().await, "an answer"),
                }
            };
            let head = String::from_utf8(self.received.drain(..head_len).collect()).unwrap();
            let mut lines = head.lines();
            let status = lines.next().unwrap().split(' ').nth(1).unwrap();
            let headers: HashMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let body_len = match headers.get("content-length") {
                Some(len) if has_body => len.parse().unwrap(),
                _ => 0,
            };
            while self.received.len() < body_len {
                assert!(self.receive().await, "a whole answer");
            }
            let bytes: Vec<u8> = self.received.drain(..body_len).collect();
            let body = if headers.contains_key("content-encoding") {
                String::new()
            } else {
                String::from_utf8(bytes.clone()).unwrap()
            };
            Answer { status: status.parse().unwrap(), headers, bytes, body }
        })
        .await
    }

    /// Waits for the server to close the connection, and answers with what came before that.
    async fn rest(mut self) -> String {
        patiently(async { while self.receive().await {} }).await;
        String::from_utf8(self.received).unwrap()
    }
}

/// A collector of one gauge that does as it is told whenever it is gathered.
struct Scripted<F> {
    gauge: IntGauge,
    script: F,
}

impl<F: Fn() + Send + Sync> Collector for Scripted<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.script)();
        self.gauge.collect()
    }
}

fn scripted(script: impl Fn() + Send + Sync + 'static) -> Registry {
    let registry = Registry::new();
    let gauge = IntGauge::new("scripted", "Gathered.").unwrap();
    registry.register(Box::new(Scripted { gauge, script })).unwrap();
    registry
}

/// Holds every scrape until it is told to let one go.
struct Gate {
    entered: async_mpsc::UnboundedReceiver<()>,
    release: mpsc::Sender<()>,
}

impl Gate {
    fn new() -> (Registry, Self) {
        let (entering, entered) = async_mpsc::unbounded_channel();
        let (release, released) = mpsc::channel();
        let released = Mutex::new(released);
        let registry = scripted(move || {
            let _ = entering.send(());
            // Also goes on when the test has ended, so that no thread outlives it.
            let _ = released.lock().unwrap().recv();
        });
        (registry, Self { entered, release })
    }

    /// Waits until one more scrape is being gathered.
    async fn entered(&mut self) {
        patiently(self.entered.recv()).await.unwrap();
    }

    fn release_one(&self) {
        self.release.send(()).unwrap();
    }

    /// From now on scrapes pass.
    fn open(self) {
        drop(self.release);
    }
}
