//! A fault-injecting TCP proxy: it delays data, refuses and redirects connections, and cuts them at chosen bytes.
//!
//! It forwards bytes unchanged, TLS included. It runs on a thread of its own, so that a blocked or paused runtime of
//! the test does not affect it. Every method has taken effect when it returns.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// How many connections the kernel may accept before the proxy does.
const BACKLOG: u32 = 1_024;

/// How many bytes are read at once.
const CHUNK_SIZE: usize = 64 * 1_024;

/// How many chunks may be buffered in one direction, which bounds memory if the peer does not read.
const MAX_BUFFERED_CHUNKS: usize = 1_024;

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
                let _ = address_sender.send(relay.address);
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
        self.run_on_thread(move |relay| relay.shared.delay.set(each_way));
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

    /// Returns how many traps have sprung. A trap counts once its pattern is found, before the connection is reset.
    pub fn sprung(&self) -> u64 {
        self.run_on_thread(|relay| relay.shared.sprung.get())
    }

    fn arm(&self, action: TrapAction, pattern: impl Into<Vec<u8>>) {
        let pattern = pattern.into();
        assert!(!pattern.is_empty(), "the pattern is empty");
        self.run_on_thread(move |relay| relay.shared.traps.borrow_mut().push(Trap { action, pattern }));
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
    address: SocketAddr,
    target: SocketAddr,
    listener: Option<TcpListener>,
    /// Reserves the port while the proxy does not listen.
    reserved_port: Option<TcpSocket>,
    links: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    shared: Rc<Shared>,
    accepted: u64,
}

impl Relay {
    fn open(target: SocketAddr) -> io::Result<Self> {
        let listener = bound((Ipv4Addr::LOCALHOST, 0).into())?.listen(BACKLOG)?;
        Ok(Self {
            address: listener.local_addr()?,
            target,
            listener: Some(listener),
            reserved_port: None,
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
        if self.listener.take().is_some() {
            self.reserved_port = Some(bound(self.address)?);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        if let Some(socket) = self.reserved_port.take() {
            self.listener = Some(socket.listen(BACKLOG)?);
        }
        Ok(())
    }

    fn cut(&mut self) {
        let _ = self.admit_all();
        self.links.clear();
    }
}

/// Binds a socket, also while open connections use its address. It refuses connections until it listens.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
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

/// State shared by all connections.
#[derive(Default)]
struct Shared {
    delay: Cell<Duration>,
    traps: RefCell<Vec<Trap>>,
    sprung: Cell<u64>,
}

struct Trap {
    action: TrapAction,
    pattern: Vec<u8>,
}

/// What a trap does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TrapAction {
    Before,
    Unanswered,
    After,
    /// Changes the pattern's last byte.
    Garble,
}

/// The sender of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

impl TrapAction {
    /// Returns whose bytes contain the pattern.
    fn sender(self) -> Sender {
        match self {
            Self::Before | Self::Unanswered => Sender::Client,
            Self::After | Self::Garble => Sender::Server,
        }
    }
}

impl Shared {
    /// Returns the trap that this chunk springs, and where in the chunk its pattern ends. `tail` is the end of the
    /// previous bytes, as a pattern may be split.
    fn spring(&self, sender: Sender, tail: &mut Vec<u8>, chunk: &[u8]) -> Option<(TrapAction, usize)> {
        let mut traps = self.traps.borrow_mut();
        let Some(longest) = traps.iter().map(|trap| trap.pattern.len()).max() else {
            tail.clear();
            return None;
        };
        let seen = tail.len();
        tail.extend_from_slice(chunk);
        let sprung = traps.iter().enumerate().find_map(|(index, trap)| {
            // A pattern that ends in the tail was sent before the trap was set.
            let begin = (seen + 1).saturating_sub(trap.pattern.len());
            let mut windows = tail[begin..].windows(trap.pattern.len());
            let at = windows.position(|at| trap.action.sender() == sender && at == trap.pattern)?;
            Some((index, begin + at + trap.pattern.len() - seen))
        });
        tail.drain(..(tail.len() + 1).saturating_sub(longest));
        let (index, end) = sprung?;
        let trap = traps.remove(index);
        self.sprung.set(self.sprung.get() + 1);
        Some((trap.action, end))
    }
}

/// Forwards both directions until both have ended. Dropping it before resets both sides.
async fn link(mut client: TcpStream, target: SocketAddr, shared: Rc<Shared>) {
    let Ok(mut server) = connect(target).await else { return };
    let muted = Cell::new(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let ended = tokio::try_join!(
        pass(&shared, Sender::Client, &muted, from_client, to_server),
        pass(&shared, Sender::Server, &muted, from_server, to_client),
    );
    if let Ok((End::Forwarded, End::Forwarded)) = ended {
        for stream in [client, server] {
            let _ = SockRef::from(&stream).set_linger(None);
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before connecting, as it may be dropped once the server has accepted it.
    reset_when_dropped(&socket)?;
    let server = socket.connect(target).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

fn reset_when_dropped(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// How one direction ended.
enum End {
    /// The end of the stream was forwarded.
    Forwarded,
    /// The receiver has closed. Its own data may still be in transit.
    PeerClosed,
}

/// Both sides must be reset now.
struct Reset;

/// A chunk to be delivered.
struct Delivery {
    due: Instant,
    bytes: Vec<u8>,
    then: Then,
}

/// What follows the chunk.
enum Then {
    More,
    /// More, but the server's bytes are discarded.
    Mute,
    End,
    Reset,
}

/// Forwards one direction.
async fn pass(
    shared: &Shared,
    sender: Sender,
    muted: &Cell<bool>,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<End, Reset> {
    let (deliveries, sent) = mpsc::channel(MAX_BUFFERED_CHUNKS);
    let mut deliver = std::pin::pin!(deliver(muted, sent, to));
    tokio::select! {
        ended = &mut deliver => ended,
        () = listen(shared, sender, muted, from, deliveries) => deliver.await,
    }
}

/// Reads chunks and queues them.
async fn listen(
    shared: &Shared,
    sender: Sender,
    muted: &Cell<bool>,
    mut from: ReadHalf<'_>,
    deliveries: mpsc::Sender<Delivery>,
) {
    let (mut buffer, mut tail) = (vec![0; CHUNK_SIZE], Vec::new());
    loop {
        let read = from.read(&mut buffer).await;
        let due = Instant::now() + shared.delay.get();
        let (bytes, then) = match read {
            _ if sender == Sender::Server && muted.get() => (&[][..], Then::Reset),
            Err(_) => (&[][..], Then::Reset),
            Ok(0) => (&[][..], Then::End),
            Ok(count) => {
                let chunk = &mut buffer[..count];
                match shared.spring(sender, &mut tail, chunk) {
                    None => (&*chunk, Then::More),
                    Some((TrapAction::Before, _)) => (&[][..], Then::Reset),
                    Some((TrapAction::Unanswered, _)) => (&*chunk, Then::Mute),
                    Some((TrapAction::After, _)) => (&*chunk, Then::Reset),
                    Some((TrapAction::Garble, end)) => {
                        chunk[end - 1] ^= 0x55;
                        (&*chunk, Then::More)
                    }
                }
            }
        };
        let goes_on = matches!(then, Then::More | Then::Mute);
        let sent = deliveries.send(Delivery { due, bytes: bytes.to_vec(), then }).await;
        if sent.is_err() || !goes_on {
            return;
        }
    }
}

/// Writes each chunk when it is due.
async fn deliver(
    muted: &Cell<bool>,
    mut deliveries: mpsc::Receiver<Delivery>,
    mut to: WriteHalf<'_>,
) -> Result<End, Reset> {
    while let Some(Delivery { due, bytes, then }) = deliveries.recv().await {
        until(due).await;
        if matches!(then, Then::Mute) {
            muted.set(true);
        }
        if to.write_all(&bytes).await.is_err() {
            return Ok(End::PeerClosed);
        }
        match then {
            Then::More | Then::Mute => {}
            Then::End if to.shutdown().await.is_ok() => return Ok(End::Forwarded),
            Then::End => return Ok(End::PeerClosed),
            Then::Reset => return Err(Reset),
        }
    }
    Ok(End::PeerClosed)
}

/// Waits until `due`: with tokio's timer, then by sleeping, and finally by spinning.
async fn until(due: Instant) {
    /// Tokio's timer is late by up to 1 ms, and by another if it is set within a millisecond.
    const TIMER_SLACK: Duration = Duration::from_millis(2);
    /// Sleeping is late by half of that, and more on a virtual machine.
    const SLEEP_SLACK: Duration = Duration::from_micros(150);
    let left = move || due.saturating_duration_since(Instant::now());
    if let Some(coarse) = left().checked_sub(TIMER_SLACK) {
        tokio::time::sleep(coarse).await;
    }
    if left().is_zero() {
        return;
    }
    let waited = tokio::task::spawn_blocking(move || {
        thread::sleep(left().saturating_sub(SLEEP_SLACK));
        while !left().is_zero() {
            std::hint::spin_loop();
        }
    });
    let _ = waited.await;
}
