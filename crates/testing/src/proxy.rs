//! A proxy that does to connections what networks do: it delays, refuses, leads elsewhere, and breaks at the worst moment.
//!
//! It passes bytes on as they are, TLS too, and lives on a thread of its own: whatever keeps a test's runtime from running,
//! its clock being paused included, does not touch it. What is asked of it is done when the call returns.

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

/// How many connections the kernel may let in before the proxy has taken them.
const BACKLOG: u32 = 1_024;

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1_024;

/// How many chunks may be on their way in one direction: whoever does not read must not fill the memory.
const UNDER_WAY: usize = 1_024;

/// A TCP proxy in front of a server. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// There until it is dropped.
    requests: Option<mpsc::UnboundedSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// What the proxy's thread is to do.
type Request = Box<dyn FnOnce(&mut Relay) + Send>;

impl Proxy {
    /// Listens on a free port of 127.0.0.1, and connects to `target` for each that connects there.
    ///
    /// If it cannot connect, the connection is reset.
    pub async fn to(target: SocketAddr) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let (tell, told) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let relay = Relay::open(target).expect("a free port");
                let _ = tell.send(relay.address);
                relay.run(received).await;
            });
        });
        let address = told.await.expect("a proxy");
        Self { address, requests: Some(requests), thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of the server's, as `Server::tcp_url` gives it, with the proxy's port in place of the server's.
    pub fn url(&self, server_tcp_url: &str) -> String {
        let (scheme, rest) = server_tcp_url.split_once("://").expect("a URL");
        let (server, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, _) = server.rsplit_once(':').expect("a URL with a port");
        format!("{scheme}://{host}:{}{rest}", self.address.port())
    }

    /// From now on, delivers each chunk that much later than it arrived, and the end of a connection too.
    ///
    /// It delays, and does not throttle: what arrives meanwhile is on its way as well. To connect takes no longer, for the
    /// kernel does that alone; a real network would take another round trip.
    ///
    /// Tokio's timers know whole milliseconds only, and the system's wake too late by a tenth of one. So of each delay the
    /// last two milliseconds are slept on a thread, and the last 150 µs not slept: it is some ten microseconds longer than
    /// it should be, and never shorter.
    pub fn delay(&self, each_way: Duration) {
        self.ask(move |relay| relay.shared.delay.set(each_way));
    }

    /// From now on, new connections lead to `target`. Those that are open stay.
    pub fn retarget(&self, target: SocketAddr) {
        self.ask(move |relay| relay.target = target);
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.ask(|relay| relay.accepted)
    }

    /// Stops listening: the kernel refuses who wants to connect. Connections that are open stay.
    pub fn refuse(&self) {
        self.ask(|relay| relay.refuse().expect("the port"));
    }

    /// Listens again, on the same port.
    pub fn accept(&self) {
        self.ask(|relay| relay.accept().expect("the port"));
    }

    /// Resets every connection that is open now. What was on its way is lost.
    pub fn cut(&self) {
        self.ask(Relay::cut);
    }

    /// Sets a trap for the first client that says `pattern`: the connection is reset on both sides, and nothing of the
    /// chunk in which the pattern ends is passed on. The server never got it.
    pub fn cut_before(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(Cut::Before, pattern);
    }

    /// Sets a trap for the first client that says `pattern`: it is passed on, but the client hears nothing of what the
    /// server says from then on, and when it says something the connection is reset on both sides. The server did it, and
    /// the client does not know.
    ///
    /// What the server says first is taken for the answer, so nothing else should be under way.
    pub fn cut_unanswered(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(Cut::Unanswered, pattern);
    }

    /// Sets a trap for the first server that says `pattern`: the chunk in which it ends is delivered to the client, and then
    /// the connection is reset on both sides.
    pub fn cut_after(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(Cut::After, pattern);
    }

    /// Sets a trap for the first server that says `pattern`: its last byte is another when it is passed on.
    pub fn garble(&self, pattern: impl Into<Vec<u8>>) {
        self.arm(Cut::Garble, pattern);
    }

    /// How many traps have sprung. One counts as soon as its pattern is seen, before anybody is cut off.
    pub fn sprung(&self) -> u64 {
        self.ask(|relay| relay.shared.sprung.get())
    }

    fn arm(&self, cut: Cut, pattern: impl Into<Vec<u8>>) {
        let pattern = pattern.into();
        assert!(!pattern.is_empty(), "a pattern that is always there");
        self.ask(move |relay| relay.shared.traps.borrow_mut().push(Trap { cut, pattern }));
    }

    /// Has the proxy's thread do it, and waits for that, which takes some microseconds.
    fn ask<T: Send + 'static>(&self, what: impl FnOnce(&mut Relay) -> T + Send + 'static) -> T {
        let (answer, answered) = std::sync::mpsc::channel();
        let request: Request = Box::new(move |relay| drop(answer.send(what(relay))));
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok());
        assert!(sent, "the proxy's thread has ended");
        answered.recv().expect("an answer of the proxy's thread")
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

/// What lives on the proxy's thread.
struct Relay {
    address: SocketAddr,
    target: SocketAddr,
    listener: Option<TcpListener>,
    /// Holds the port while nobody listens there, so that nobody else gets it.
    place: Option<TcpSocket>,
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
            place: None,
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

    /// Admits all whom the kernel has let in. The runtime may not have heard of them yet.
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
            self.place = Some(bound(self.address)?);
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        if let Some(place) = self.place.take() {
            self.listener = Some(place.listen(BACKLOG)?);
        }
        Ok(())
    }

    fn cut(&mut self) {
        let _ = self.admit_all();
        self.links.clear();
    }
}

/// A socket that has an address, even one that connections which are open have too. It refuses until it listens.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The next that connects.
async fn next(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return pending().await };
    loop {
        // An error is about one that has left again.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

/// What all connections have in common.
#[derive(Default)]
struct Shared {
    delay: Cell<Duration>,
    traps: RefCell<Vec<Trap>>,
    sprung: Cell<u64>,
}

struct Trap {
    cut: Cut,
    pattern: Vec<u8>,
}

/// Where a trap cuts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Before,
    Unanswered,
    After,
    /// Nowhere: the pattern's last byte is changed.
    Garble,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Client,
    Server,
}

impl Cut {
    /// Whose bytes have the pattern.
    fn speaker(self) -> Speaker {
        match self {
            Self::Before | Self::Unanswered => Speaker::Client,
            Self::After | Self::Garble => Speaker::Server,
        }
    }
}

impl Shared {
    /// The trap that this chunk springs, and where in the chunk its pattern ends. `tail` is the end of what came before,
    /// for a pattern may come in pieces.
    fn spring(&self, speaker: Speaker, tail: &mut Vec<u8>, chunk: &[u8]) -> Option<(Cut, usize)> {
        let mut traps = self.traps.borrow_mut();
        let Some(longest) = traps.iter().map(|trap| trap.pattern.len()).max() else {
            tail.clear();
            return None;
        };
        let seen = tail.len();
        tail.extend_from_slice(chunk);
        let sprung = traps.iter().enumerate().find_map(|(place, trap)| {
            // One that ends in the tail was there before the trap.
            let begin = (seen + 1).saturating_sub(trap.pattern.len());
            let mut windows = tail[begin..].windows(trap.pattern.len());
            let at = windows.position(|at| trap.cut.speaker() == speaker && at == trap.pattern)?;
            Some((place, begin + at + trap.pattern.len() - seen))
        });
        tail.drain(..(tail.len() + 1).saturating_sub(longest));
        let (place, end) = sprung?;
        let trap = traps.remove(place);
        self.sprung.set(self.sprung.get() + 1);
        Some((trap.cut, end))
    }
}

/// Both ways of a connection, until both have ended. To drop this before resets it on both sides.
async fn link(mut client: TcpStream, target: SocketAddr, shared: Rc<Shared>) {
    let Ok(mut server) = connect(target).await else { return };
    let silenced = Cell::new(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let ended = tokio::try_join!(
        pass(&shared, Speaker::Client, &silenced, from_client, to_server),
        pass(&shared, Speaker::Server, &silenced, from_server, to_client),
    );
    if let Ok((End::Passed, End::Passed)) = ended {
        for stream in [client, server] {
            let _ = SockRef::from(&stream).set_linger(None);
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before it connects: it may be dropped when the server has accepted it already.
    reset_when_dropped(&socket)?;
    let server = socket.connect(target).await?;
    server.set_nodelay(true)?;
    Ok(server)
}

fn reset_when_dropped(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// How one way ended of its own.
enum End {
    /// The end was passed on.
    Passed,
    /// The other side does not listen any more. What it has said may still be on its way.
    Unheard,
}

/// The connection is to be reset on both sides, now.
struct Reset;

/// What was said, until it is delivered.
struct Parcel {
    due: Instant,
    bytes: Vec<u8>,
    then: Then,
}

/// What comes after it.
enum Then {
    More,
    /// More, but the server is not heard any more.
    Silence,
    End,
    Reset,
}

/// One way of a connection.
async fn pass(
    shared: &Shared,
    speaker: Speaker,
    silenced: &Cell<bool>,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<End, Reset> {
    let (parcels, sent) = mpsc::channel(UNDER_WAY);
    let mut deliver = std::pin::pin!(deliver(silenced, sent, to));
    tokio::select! {
        ended = &mut deliver => ended,
        () = listen(shared, speaker, silenced, from, parcels) => deliver.await,
    }
}

/// Sends what is said on its way, to its end.
async fn listen(
    shared: &Shared,
    speaker: Speaker,
    silenced: &Cell<bool>,
    mut from: ReadHalf<'_>,
    parcels: mpsc::Sender<Parcel>,
) {
    let (mut buffer, mut tail) = (vec![0; CHUNK], Vec::new());
    loop {
        let read = from.read(&mut buffer).await;
        let due = Instant::now() + shared.delay.get();
        let (bytes, then) = match read {
            _ if speaker == Speaker::Server && silenced.get() => (&[][..], Then::Reset),
            Err(_) => (&[][..], Then::Reset),
            Ok(0) => (&[][..], Then::End),
            Ok(count) => {
                let chunk = &mut buffer[..count];
                match shared.spring(speaker, &mut tail, chunk) {
                    None => (&*chunk, Then::More),
                    Some((Cut::Before, _)) => (&[][..], Then::Reset),
                    Some((Cut::Unanswered, _)) => (&*chunk, Then::Silence),
                    Some((Cut::After, _)) => (&*chunk, Then::Reset),
                    Some((Cut::Garble, end)) => {
                        chunk[end - 1] ^= 0x55;
                        (&*chunk, Then::More)
                    }
                }
            }
        };
        let goes_on = matches!(then, Then::More | Then::Silence);
        let sent = parcels.send(Parcel { due, bytes: bytes.to_vec(), then }).await;
        if sent.is_err() || !goes_on {
            return;
        }
    }
}

/// Delivers each parcel when it is due.
async fn deliver(
    silenced: &Cell<bool>,
    mut parcels: mpsc::Receiver<Parcel>,
    mut to: WriteHalf<'_>,
) -> Result<End, Reset> {
    while let Some(Parcel { due, bytes, then }) = parcels.recv().await {
        until(due).await;
        if matches!(then, Then::Silence) {
            silenced.set(true);
        }
        if to.write_all(&bytes).await.is_err() {
            return Ok(End::Unheard);
        }
        match then {
            Then::More | Then::Silence => {}
            Then::End if to.shutdown().await.is_ok() => return Ok(End::Passed),
            Then::End => return Ok(End::Unheard),
            Then::Reset => return Err(Reset),
        }
    }
    Ok(End::Unheard)
}

/// Waits until `due`: by tokio's timer while there is time, then by the system's, and at last by looking at the clock.
async fn until(due: Instant) {
    /// Tokio's timer is late by one millisecond, and one more if it is set in the midst of one.
    const COARSE: Duration = Duration::from_millis(2);
    /// The system's is late by half as much, and more on a virtual machine.
    const FINE: Duration = Duration::from_micros(150);
    let left = move || due.saturating_duration_since(Instant::now());
    if let Some(coarse) = left().checked_sub(COARSE) {
        tokio::time::sleep(coarse).await;
    }
    if left().is_zero() {
        return;
    }
    let waited = tokio::task::spawn_blocking(move || {
        thread::sleep(left().saturating_sub(FINE));
        while !left().is_zero() {
            std::hint::spin_loop();
        }
    });
    let _ = waited.await;
}
