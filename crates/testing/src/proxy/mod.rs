//! A fault-injecting TCP proxy: it delays, splits and merges data, refuses and redirects connections, makes them silent
//! or half-open, and cuts them at random or at chosen bytes.
//!
//! It forwards bytes unchanged, TLS included. It runs on a thread of its own, so that a blocked or paused runtime of
//! the test does not affect it. Every method has taken effect when it returns.

mod link;
mod shape;
mod traps;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

use self::link::{Shared, link, reset_when_dropped};
pub use self::shape::{Shape, Strike};
use self::traps::TrapAction;
use crate::ports::ReservedPort;

/// How many connections the kernel may accept before the proxy does.
const BACKLOG: u32 = 1_024;

/// A TCP proxy in front of a server. Dropping it resets all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// `None` while it is dropped.
    requests: Option<mpsc::UnboundedSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// A call for the proxy's thread.
type Request = Box<dyn FnOnce(&mut Relay) + Send>;

impl Proxy {
    /// Listens on a free port of 127.0.0.1, and connects to `target` for each accepted connection.
    ///
    /// If it cannot connect, the connection is reset.
    pub async fn to(target: SocketAddr) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let (address_sender, address_receiver) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let relay = Relay::open(target).expect("a free port");
                let _ = address_sender.send(relay.port.address());
                relay.run(received).await;
            });
        });
        let address = address_receiver.await.expect("a proxy");
        Self { address, requests: Some(requests), thread: Some(thread) }
    }

    /// Returns the address it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the server's URL, as of `Server::tcp_url`, with the port of the proxy.
    pub fn url(&self, server_tcp_url: &str) -> String {
        let (scheme, rest) = server_tcp_url.split_once("://").expect("a URL");
        let (server, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, _) = server.rsplit_once(':').expect("a URL with a port");
        format!("{scheme}://{host}:{}{rest}", self.address.port())
    }

    /// Delays each further chunk by `each_way`, and the end of a connection too.
    ///
    /// Throughput is not limited: chunks overlap. Connecting takes no longer, as the kernel does that alone; a real
    /// network would add a round trip.
    ///
    /// Tokio's timers have a resolution of 1 ms, and the system's are late by up to 0.1 ms. The last two milliseconds
    /// of a delay are therefore slept on a thread, and the last 150 µs spent spinning: a delay is some ten microseconds
    /// too long, and never too short.
    pub fn delay(&self, each_way: Duration) {
        self.shape(Shape { delay: each_way, ..Shape::default() });
    }

    /// Delays, splits and merges what is forwarded from now on.
    ///
    /// With jitter or limited bandwidth, delays have the resolution of tokio's timers.
    pub fn shape(&self, shape: Shape) {
        self.run_on_thread(move |relay| relay.shared.shape.set(shape));
    }

    /// Sets the seed of the random choices.
    pub fn seed(&self, seed: u64) {
        self.run_on_thread(move |relay| relay.shared.rng.borrow_mut().seed(seed));
    }

    /// Sets whether nothing is forwarded, not even the end of a connection. Connections stay open, further ones are
    /// accepted, and what is sent meanwhile is forwarded later.
    pub fn silence(&self, silent: bool) {
        self.run_on_thread(move |relay| relay.shared.silence(silent));
    }

    /// Strikes about `percent` of the open connections, chosen at random.
    pub fn strike(&self, strike: Strike, percent: u8) {
        self.run_on_thread(move |relay| relay.shared.strike(strike, percent));
    }

    /// Returns how many connections were struck so far.
    pub fn struck(&self) -> u64 {
        self.run_on_thread(|relay| relay.shared.struck())
    }

    /// Connects further connections to `target`. Open connections stay.
    pub fn retarget(&self, target: SocketAddr) {
        self.run_on_thread(move |relay| relay.target = target);
    }

    /// Returns how many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.run_on_thread(|relay| relay.accepted)
    }

    /// Stops listening, so that the kernel refuses connections. Open connections stay.
    pub fn refuse(&self) {
        self.run_on_thread(|relay| relay.refuse().expect("the port"));
    }

    /// Listens again, on the same port.
    pub fn accept(&self) {
        self.run_on_thread(|relay| relay.accept().expect("the port"));
    }

    /// Resets all open connections. Buffered data is lost.
    pub fn cut(&self) {
        self.run_on_thread(Relay::cut);
    }

    /// Sets a trap for the first client that sends `pattern`: the connection is reset on both sides, and the chunk in
    /// which the pattern ends is not forwarded. The server does not receive it.
    pub fn cut_before(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(TrapAction::Before, pattern);
    }

    /// Sets a trap for the first client that sends `pattern`: it is forwarded, but the server's answer is not, and the
    /// connection is reset on both sides instead. The server has executed it, and the client does not know.
    ///
    /// The next bytes of the server count as the answer, so nothing else may be in progress.
    pub fn cut_unanswered(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(TrapAction::Unanswered, pattern);
    }

    /// Sets a trap for the first server that sends `pattern`: the chunk in which it ends is forwarded, and then the
    /// connection is reset on both sides.
    pub fn cut_after(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(TrapAction::After, pattern);
    }

    /// Sets a trap for the first server that sends `pattern`: its last byte is changed.
    pub fn garble(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(TrapAction::Garble, pattern);
    }

    /// Removes all traps that have not sprung.
    pub fn disarm(&self) {
        self.run_on_thread(|relay| relay.shared.traps.disarm());
    }

    /// Returns how many traps have sprung. A trap counts once its pattern is found, before the connection is reset.
    pub fn sprung(&self) -> u64 {
        self.run_on_thread(|relay| relay.shared.traps.sprung())
    }

    fn arm(&self, action: TrapAction, pattern: impl Into<Vec<u8>>) {
        let pattern = pattern.into();
        assert!(!pattern.is_empty(), "the pattern is empty");
        self.run_on_thread(move |relay| relay.shared.traps.arm(action, pattern));
    }

    /// Runs `call` on the proxy's thread and waits for the result, which takes some microseconds.
    fn run_on_thread<T: Send + 'static>(&self, call: impl FnOnce(&mut Relay) -> T + Send + 'static) -> T {
        let (result_sender, result_receiver) = std::sync::mpsc::channel();
        let request: Request = Box::new(move |relay| drop(result_sender.send(call(relay))));
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok());
        assert!(sent, "the proxy's thread has ended");
        result_receiver.recv().expect("a result of the proxy's thread")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The state of the proxy's thread.
struct Relay {
    /// While nothing listens too.
    port: ReservedPort,
    target: SocketAddr,
    listener: Option<TcpListener>,
    links: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    shared: Rc<Shared>,
    accepted: u64,
}

impl Relay {
    fn open(target: SocketAddr) -> io::Result<Self> {
        let port = ReservedPort::new()?;
        Ok(Self {
            target,
            listener: Some(listen(port.address())?),
            port,
            links: FuturesUnordered::new(),
            shared: Rc::default(),
            accepted: 0,
        })
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => request(&mut self),
                    None => return,
                },
                client = next(self.listener.as_ref()) => self.admit(client),
                Some(()) = self.links.next() => {}
            }
        }
    }

    fn admit(&mut self, client: TcpStream) {
        self.accepted += 1;
        if client.set_nodelay(true).and(reset_when_dropped(&client)).is_ok() {
            self.links.push(link(client, self.target, Rc::clone(&self.shared)).boxed_local());
        }
    }

    /// Accepts all connections in the kernel's backlog, which the runtime may not have noticed yet.
    fn admit_all(&mut self) -> io::Result<()> {
        while let Some(Ok((client, _))) = self.listener.as_ref().map(|listener| SockRef::from(listener).accept()) {
            client.set_nonblocking(true)?;
            self.admit(TcpStream::from_std(client.into())?);
        }
        Ok(())
    }

    fn refuse(&mut self) -> io::Result<()> {
        self.admit_all()?;
        self.listener = None;
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            self.listener = Some(listen(self.port.address())?);
        }
        Ok(())
    }

    fn cut(&mut self) {
        let _ = self.admit_all();
        self.links.clear();
    }
}

/// Listens at a reserved port, also while open connections use it.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts the next connection.
async fn next(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return pending().await };
    loop {
        // The error is about a connection that is already closed.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}
