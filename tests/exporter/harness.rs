//! A running exporter, its clients, and its surroundings.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use poolscope::Collector;
use poolscope::exporter::{Exporter, ExporterError};
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};
use tokio::net::TcpStream;
use tokio::sync::{mpsc as async_mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, advance, timeout};

/// Long enough for a busy machine: only a failing test waits for it.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The exporter's limits of open connections: of all clients, and of one.
pub(crate) const MAX_CONNECTIONS: usize = 128;
pub(crate) const MAX_CONNECTIONS_PER_PEER: usize = 64;

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("ends in time")
}

/// Tokio's clock, which stands still until it is advanced, so that the exporter's timeouts are met exactly.
///
/// A paused clock would advance automatically whenever all tasks wait for a socket. It does not while a blocking task
/// runs, so this spawns one, which ends with the clock or, in a failing test, after a limit.
pub(crate) struct FrozenClock {
    _blocking: mpsc::Sender<()>,
}

impl FrozenClock {
    pub(crate) fn new() -> Self {
        tokio::time::pause();
        let (blocking, blocked) = mpsc::channel();
        spawn_blocking(move || blocked.recv_timeout(TEST_TIMEOUT));
        Self { _blocking: blocking }
    }

    pub(crate) async fn advance(&self, time: Duration) {
        advance(time).await;
    }

    /// Lets other tasks run for this real time, while the clock stands still.
    pub(crate) async fn settle(&self, time: Duration) {
        let begun = std::time::Instant::now();
        while begun.elapsed() < time {
            tokio::task::yield_now().await;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Advances the clock in steps of 0.1 s until `future` completes, and returns the time that passed.
    pub(crate) async fn advance_until<T>(&self, future: impl Future<Output = T>) -> (T, Duration) {
        let begun = Instant::now();
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return (output, begun.elapsed()),
                () = tokio::task::yield_now() => {
                    // Sockets and threads take real time.
                    thread::sleep(Duration::from_millis(1));
                    advance(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Asserts that `elapsed` is a timeout of `expected`, within a tolerance: one step of [`FrozenClock::advance_until`],
/// and some time for the work before and after.
#[track_caller]
pub(crate) fn assert_timed_out(elapsed: Duration, expected: Duration) {
    let tolerance = Duration::from_millis(1500);
    assert!((expected - Duration::from_millis(100)..expected + tolerance).contains(&elapsed), "{elapsed:?}");
}

/// An exporter of an empty collector.
pub(crate) fn exporter() -> Exporter {
    Exporter::new(Collector::new())
}

/// An exporter that serves, until this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    pub(crate) served: JoinHandle<Result<(), ExporterError>>,
}

impl Running {
    pub(crate) async fn start(exporter: &Exporter) -> Self {
        let bound = exporter.bind("127.0.0.1:0").await.unwrap();
        let address = bound.local_addr();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(bound.serve(async {
            let _ = stopped.await;
        }));
        Self { address, stop, served }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.connect().await.request("GET", path).await
    }

    /// Sends a request, and returns the status of its response without reading that.
    pub(crate) async fn status(&self, path: &str) -> u16 {
        let mut client = self.connect().await;
        client.send_request("GET", path).await;
        client.head().await.status
    }

    /// Opens idle connections, each of which was served a request.
    pub(crate) async fn idle_connections(&self, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = self.connect().await;
            assert_eq!(client.request("GET", "/-/healthy").await.status, 200);
            clients.push(client);
        }
        clients
    }

    /// Begins the shutdown, and returns the task that serves.
    pub(crate) fn stop(self) -> JoinHandle<Result<(), ExporterError>> {
        self.stop.send(()).unwrap();
        self.served
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) bytes: Vec<u8>,
    /// The same as text; empty if it is compressed.
    pub(crate) body: String,
}

impl Response {
    /// Returns the value of a sample, named with its labels as in the text format.
    pub(crate) fn sample(&self, series: &str) -> Option<f64> {
        self.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }
}

/// A client that sends exactly what it is given.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn send(&self, mut text: &[u8]) {
        while !text.is_empty() {
            self.stream.writable().await.unwrap();
            match self.stream.try_write(text) {
                Ok(sent) => text = &text[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("cannot send: {error}"),
            }
        }
    }

    pub(crate) async fn send_request(&self, method: &str, path: &str) {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.send(head.as_bytes()).await;
    }

    pub(crate) async fn request(&mut self, method: &str, path: &str) -> Response {
        self.send_request(method, path).await;
        self.response(method != "HEAD").await
    }

    pub(crate) async fn get_with(&mut self, path: &str, headers: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes()).await;
        self.response(true).await
    }

    /// Waits until more arrives, and returns `false` if that is the end of the connection.
    pub(crate) async fn receive(&mut self) -> bool {
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

    /// Waits for the head of a response, and leaves its body unread.
    pub(crate) async fn head(&mut self) -> Response {
        in_time(async {
            let head_len = loop {
                match self.received.windows(4).position(|end| end == b"\r\n\r\n") {
                    Some(at) => break at + 4,
                    None => assert!(self.receive().await, "a response"),
                }
            };
            let head = String::from_utf8(self.received.drain(..head_len).collect()).unwrap();
            let mut lines = head.lines();
            let status = lines.next().unwrap().split(' ').nth(1).unwrap();
            let headers: HashMap<_, _> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            Response { status: status.parse().unwrap(), headers, bytes: Vec::new(), body: String::new() }
        })
        .await
    }

    /// Takes what has been received and not been consumed.
    pub(crate) fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.received)
    }

    pub(crate) async fn response(&mut self, has_body: bool) -> Response {
        let Response { status, headers, .. } = self.head().await;
        in_time(async {
            let body_len = match headers.get("content-length") {
                Some(len) if has_body => len.parse().unwrap(),
                _ => 0,
            };
            while self.received.len() < body_len {
                assert!(self.receive().await, "a whole response");
            }
            let bytes: Vec<u8> = self.received.drain(..body_len).collect();
            let body = if headers.contains_key("content-encoding") {
                String::new()
            } else {
                String::from_utf8(bytes.clone()).unwrap()
            };
            Response { status, headers, bytes, body }
        })
        .await
    }

    /// Waits for the server to close the connection, and returns what arrived before.
    pub(crate) async fn rest(mut self) -> String {
        in_time(async { while self.receive().await {} }).await;
        String::from_utf8(self.received).unwrap()
    }
}

/// A collector of one gauge that calls a function whenever it is gathered.
struct Scripted<F> {
    gauge: IntGauge,
    script: F,
}

impl<F: Fn() + Send + Sync> prometheus::core::Collector for Scripted<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.script)();
        self.gauge.collect()
    }
}

/// A registry that calls `script` whenever it is gathered.
pub(crate) fn scripted(script: impl Fn() + Send + Sync + 'static) -> Registry {
    let registry = Registry::new();
    let gauge = IntGauge::new("scripted", "Gathered.").unwrap();
    registry.register(Box::new(Scripted { gauge, script })).unwrap();
    registry
}

/// Blocks each scrape until it is released.
pub(crate) struct Gate {
    entered: async_mpsc::UnboundedReceiver<()>,
    release: mpsc::Sender<()>,
}

impl Gate {
    pub(crate) fn new() -> (Registry, Self) {
        let (entering, entered) = async_mpsc::unbounded_channel();
        let (release, released) = mpsc::channel();
        let released = Mutex::new(released);
        let registry = scripted(move || {
            let _ = entering.send(());
            // Also continues at the end of the test, so that no thread outlives it.
            let _ = released.lock().unwrap().recv();
        });
        (registry, Self { entered, release })
    }

    /// Waits until another scrape is blocked.
    pub(crate) async fn entered(&mut self) {
        in_time(self.entered.recv()).await.unwrap();
    }

    pub(crate) fn release_one(&self) {
        self.release.send(()).unwrap();
    }

    /// Releases the scrapes, and later ones.
    pub(crate) fn open(self) {
        drop(self.release);
    }
}
