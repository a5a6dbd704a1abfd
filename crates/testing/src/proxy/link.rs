//! Forwards the bytes of one connection.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::shape::{Shape, Strike};
use super::traps::{Sender, TrapAction, Traps};

/// How many bytes are read at once.
const CHUNK_SIZE: usize = 64 * 1_024;

/// How many chunks may be buffered in one direction, which bounds memory if the peer does not read.
const MAX_BUFFERED_CHUNKS: usize = 1_024;

/// State shared by all connections.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) shape: Cell<Shape>,
    pub(super) traps: Traps,
    pub(super) rng: RefCell<fastrand::Rng>,
    /// Whether nothing is forwarded, not even the end of a connection.
    silent: Cell<bool>,
    /// The last strike: its number, and the share of the connections that it affects, in percent.
    strike: Cell<Option<(u64, Strike, u8)>>,
    struck: Cell<u64>,
    changed: Notify,
}

impl Shared {
    pub(super) fn silence(&self, silent: bool) {
        self.silent.set(silent);
        self.changed.notify_waiters();
    }

    pub(super) fn strike(&self, strike: Strike, percent: u8) {
        let number = self.strike.get().map_or(0, |(number, ..)| number) + 1;
        self.strike.set(Some((number, strike, percent)));
        self.changed.notify_waiters();
    }

    /// Returns how many connections were struck.
    pub(super) fn struck(&self) -> u64 {
        self.struck.get()
    }

    async fn until_not_silent(&self) {
        while self.silent.get() {
            self.changed.notified().await;
        }
    }

    /// Waits until a strike after `seen` affects this connection, and returns it.
    async fn until_struck(&self, mut seen: u64) -> Strike {
        loop {
            let changed = self.changed.notified();
            if let Some((number, strike, percent)) = self.strike.get()
                && number > seen
            {
                seen = number;
                if self.rng.borrow_mut().u8(..100) < percent {
                    self.struck.set(self.struck.get() + 1);
                    return strike;
                }
            }
            changed.await;
        }
    }
}

/// Forwards both directions until both have ended. Dropping it before resets both sides.
pub(super) async fn link(mut client: TcpStream, target: SocketAddr, shared: Rc<Shared>) {
    let Ok(mut server) = connect(target).await else { return };
    let seen = shared.strike.get().map_or(0, |(number, ..)| number);
    let side = Side::default();
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let forwarded = async {
        tokio::try_join!(
            pass(&shared, Sender::Client, &side, from_client, to_server),
            pass(&shared, Sender::Server, &side, from_server, to_client),
        )
    };
    let struck = async {
        match shared.until_struck(seen).await {
            Strike::Truncate => {
                side.truncated.set(true);
                std::future::pending().await
            }
            strike => strike,
        }
    };
    let ended = tokio::select! {
        ended = forwarded => Ok(ended),
        strike = struck => Err(strike),
    };
    let ended = match ended {
        Ok(ended) => ended,
        Err(Strike::HalfOpen) => {
            drop(server);
            let mut lost = [0; 1_024];
            while matches!(client.read(&mut lost).await, Ok(1..)) {}
            return;
        }
        Err(_) => return,
    };
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

pub(super) fn reset_when_dropped(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// What both directions of a connection share.
#[derive(Default)]
struct Side {
    /// Whether the server's bytes are discarded.
    muted: Cell<bool>,
    /// Whether the server's next chunk is cut.
    truncated: Cell<bool>,
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
    side: &Side,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<End, Reset> {
    let (deliveries, sent) = mpsc::channel(MAX_BUFFERED_CHUNKS);
    let mut deliver = std::pin::pin!(deliver(shared, side, sent, to));
    tokio::select! {
        ended = &mut deliver => ended,
        () = listen(shared, sender, side, from, deliveries) => deliver.await,
    }
}

/// Reads chunks and queues them.
async fn listen(
    shared: &Shared,
    sender: Sender,
    side: &Side,
    mut from: ReadHalf<'_>,
    deliveries: mpsc::Sender<Delivery>,
) {
    let (mut buffer, mut tail) = (vec![0; CHUNK_SIZE], Vec::new());
    let mut due = Instant::now();
    loop {
        let read = from.read(&mut buffer).await;
        let len = read.as_ref().copied().unwrap_or_default();
        due = shared.shape.get().due(due, len, &mut shared.rng.borrow_mut());
        let (bytes, then) = match read {
            _ if sender == Sender::Server && side.muted.get() => (&[][..], Then::Reset),
            Err(_) => (&[][..], Then::Reset),
            Ok(0) => (&[][..], Then::End),
            Ok(count) if sender == Sender::Server && side.truncated.get() => {
                (&buffer[..shared.rng.borrow_mut().usize(..count)], Then::Reset)
            }
            Ok(count) => {
                let chunk = &mut buffer[..count];
                match shared.traps.spring(sender, &mut tail, chunk) {
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
    shared: &Shared,
    side: &Side,
    mut deliveries: mpsc::Receiver<Delivery>,
    mut to: WriteHalf<'_>,
) -> Result<End, Reset> {
    while let Some(Delivery { due, mut bytes, mut then }) = deliveries.recv().await {
        let shape = shared.shape.get();
        if shape.is_exact() {
            until(due).await;
        } else {
            tokio::time::sleep_until(due.into()).await;
        }
        if shape.fragments && matches!(then, Then::More) && shared.rng.borrow_mut().bool() {
            then = merge(shared, &mut deliveries, &mut bytes).await;
        }
        shared.until_not_silent().await;
        if matches!(then, Then::Mute) {
            side.muted.set(true);
        }
        let written =
            if shape.fragments { write_split(shared, &mut to, &bytes).await } else { to.write_all(&bytes).await };
        if written.is_err() {
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

/// The longest time for which a chunk waits for the next, to be merged.
const MAX_MERGE_WAIT: Duration = Duration::from_millis(3);

/// The largest number of parts that a chunk is split into.
const MAX_PARTS: usize = 8;

/// Appends the chunks that follow within a random time. Returns what follows the last.
async fn merge(shared: &Shared, deliveries: &mut mpsc::Receiver<Delivery>, bytes: &mut Vec<u8>) -> Then {
    let wait = MAX_MERGE_WAIT.mul_f64(shared.rng.borrow_mut().f64());
    tokio::time::sleep(wait).await;
    while bytes.len() < CHUNK_SIZE
        && let Ok(next) = deliveries.try_recv()
    {
        bytes.extend_from_slice(&next.bytes);
        if !matches!(next.then, Then::More) {
            return next.then;
        }
    }
    Then::More
}

/// Writes a chunk in parts of random lengths, each in a segment of its own.
async fn write_split(shared: &Shared, to: &mut WriteHalf<'_>, mut bytes: &[u8]) -> io::Result<()> {
    for _ in 1..MAX_PARTS {
        if bytes.len() < 2 {
            break;
        }
        let len = shared.rng.borrow_mut().usize(1..bytes.len());
        let (part, rest) = bytes.split_at(len);
        to.write_all(part).await?;
        tokio::task::yield_now().await;
        bytes = rest;
    }
    to.write_all(bytes).await
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
