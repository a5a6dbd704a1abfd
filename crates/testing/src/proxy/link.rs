//! Forwards the bytes of one connection.

use std::cell::Cell;
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
use tokio::sync::mpsc;

use super::traps::{Sender, TrapAction, Traps};

/// How many bytes are read at once.
const CHUNK_SIZE: usize = 64 * 1_024;

/// How many chunks may be buffered in one direction, which bounds memory if the peer does not read.
const MAX_BUFFERED_CHUNKS: usize = 1_024;

/// State shared by all connections.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) delay: Cell<Duration>,
    pub(super) traps: Traps,
}

/// Forwards both directions until both have ended. Dropping it before resets both sides.
pub(super) async fn link(mut client: TcpStream, target: SocketAddr, shared: Rc<Shared>) {
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

pub(super) fn reset_when_dropped(socket: &impl AsFd) -> io::Result<()> {
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
