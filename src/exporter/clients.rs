//! The open connections, and which of them is closed to make room for another.
//!
//! When there is no room, the connection that waits longest without a request is closed, first among those that were never
//! authorized, whose request may wait for the verification of a password; then the one whose client has not read its
//! response for longest. A connection whose authorized request is being worked on is never closed. If nothing else is
//! left, a few more connections are admitted, for health checks only.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::limits::{FIRST_HEAD_TIMEOUT, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER, RESERVED_CONNECTIONS};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first request, or the rest of a request's head, is awaited since this moment.
    Head(Instant),
    /// The next request is awaited since this moment.
    Idle(Instant),
    /// A request has arrived, and it is being verified since this moment whether it is authorized.
    Verifying(Instant),
    /// An authorized request is being worked on.
    Working,
    /// The response is being written.
    Writing,
    /// A stream of events is open, and the client reads it.
    Streaming,
    /// The response is being written, and the client has not read it since this moment.
    Blocked(Instant),
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Client {
    peer: IpAddr,
    /// Whether it was admitted for health checks only.
    is_reserved: bool,
    is_authorized: AtomicBool,
    /// Whether the response is a stream of events.
    is_stream: AtomicBool,
    phase: watch::Sender<Phase>,
    evicted: Notify,
    /// Notified when the connection may be closed for another.
    room: Arc<Notify>,
}

impl Client {
    fn new(peer: IpAddr, is_reserved: bool, room: Arc<Notify>) -> Self {
        Self {
            peer,
            is_reserved,
            is_authorized: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
            phase: watch::Sender::new(Phase::Head(Instant::now())),
            evicted: Notify::new(),
            room,
        }
    }

    /// Returns whether the connection was admitted for health checks only.
    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved
    }

    /// Records that a part of a request has arrived.
    pub(super) fn received(&self) {
        self.enter(|phase| matches!(phase, Phase::Idle(_)).then(|| Phase::Head(Instant::now())));
    }

    /// Records that a request's head has arrived.
    pub(super) fn begin_request(&self) {
        self.enter(|_| Some(Phase::Verifying(Instant::now())));
    }

    /// Records that the request is authorized.
    pub(super) fn authorized(&self) {
        self.is_authorized.store(true, Relaxed);
        self.enter(|_| Some(Phase::Working));
    }

    /// Records that the response is about to be written.
    pub(super) fn begin_response(&self) {
        self.is_stream.store(false, Relaxed);
        self.enter(|_| Some(Phase::Writing));
    }

    /// Records that a stream of events is about to begin, after which the connection is closed.
    pub(super) fn begin_stream(&self) {
        self.is_stream.store(true, Relaxed);
        self.enter(|_| Some(Phase::Streaming));
    }

    /// Records that the client does not read.
    pub(super) fn blocked(&self) {
        let is_read = |phase| matches!(phase, Phase::Writing | Phase::Streaming);
        self.enter(|phase| is_read(phase).then(|| Phase::Blocked(Instant::now())));
    }

    /// Records that everything was written that there is to write.
    pub(super) fn flushed(&self) {
        let is_stream = self.is_stream.load(Relaxed);
        self.enter(|phase| match phase {
            Phase::Writing | Phase::Blocked(_) if !is_stream => Some(Phase::Idle(Instant::now())),
            Phase::Blocked(_) => Some(Phase::Streaming),
            _ => None,
        });
    }

    fn enter(&self, next: impl FnOnce(Phase) -> Option<Phase>) {
        let is_modified = self.phase.send_if_modified(|phase| match next(*phase) {
            Some(next) => {
                *phase = next;
                true
            }
            None => false,
        });
        if is_modified && self.rank().is_some() {
            self.room.notify_one();
        }
    }

    /// Waits until the connection is to be closed: it was evicted, or has not sent the head of a request in time.
    pub(super) async fn overdue(&self) -> CloseCause {
        let mut phases = self.phase.subscribe();
        let late = async {
            loop {
                let phase = *phases.borrow_and_update();
                let changed = phases.changed();
                match phase {
                    Phase::Head(since) => tokio::select! {
                        biased;
                        _ = changed => {}
                        () = sleep_until(since + FIRST_HEAD_TIMEOUT) => return,
                    },
                    // hyper has a timeout for idle connections. The sender outlives this future.
                    _ => drop(changed.await),
                }
            }
        };
        tokio::select! {
            () = self.evicted.notified() => CloseCause::Evicted,
            () = late => CloseCause::NoRequest,
        }
    }

    /// Returns how soon the connection is to be closed for another, lowest first; `None` for never.
    fn rank(&self) -> Option<(u8, Instant)> {
        let is_authorized = self.is_authorized.load(Relaxed);
        match *self.phase.borrow() {
            Phase::Head(since) | Phase::Idle(since) => Some((u8::from(is_authorized), since)),
            Phase::Verifying(since) if !is_authorized => Some((0, since)),
            Phase::Blocked(since) => Some((2, since)),
            Phase::Verifying(_) | Phase::Working | Phase::Writing | Phase::Streaming => None,
        }
    }
}

/// Why a connection is closed that its client keeps open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCause {
    /// To make room for another.
    Evicted,
    /// The head of a request did not arrive in time.
    NoRequest,
}

/// The open connections of one bound exporter.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<Vec<Arc<Client>>>,
    /// Notified when a connection was closed, or may be closed for another.
    room: Arc<Notify>,
}

/// A connection in the table, until this is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) client: Arc<Client>,
    /// Whether another connection is closed for it.
    pub(super) evicts: bool,
    clients: Clients,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.clients.remove(&self.client);
    }
}

impl Clients {
    fn open(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, client: &Arc<Client>) {
        self.open().retain(|open| !Arc::ptr_eq(open, client));
        self.0.room.notify_one();
    }

    /// Waits until a connection can be admitted.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the wait.
    pub(super) async fn has_room(&self) {
        loop {
            let has_room = {
                let open = self.open();
                !is_full(&open) || has_reserve(&open) || open.iter().any(|client| client.rank().is_some())
            };
            if has_room {
                return;
            }
            self.0.room.notified().await;
        }
    }

    /// Admits a connection, and closes another one if that is necessary. Returns `None` if it is to be closed: its peer has
    /// as many as it may have, each with a request under way, and those in reserve are in use.
    pub(super) fn admit(&self, peer: SocketAddr) -> Option<Admission> {
        let peer = network(peer.ip());
        let mut open = self.open();
        let of_peer = open.iter().filter(|client| client.peer == peer && !client.is_reserved).count();
        let is_peer_full = of_peer >= MAX_CONNECTIONS_PER_PEER;
        let is_full = is_peer_full || is_full(&open);
        let victim = if is_peer_full {
            first(open.iter().filter(|client| client.peer == peer))
        } else if is_full {
            first(open.iter())
        } else {
            None
        };
        let is_reserved = is_full && victim.as_ref().is_none_or(|victim| victim.is_reserved);
        if victim.is_none() && is_reserved && !has_reserve(&open) {
            return None;
        }
        if let Some(victim) = &victim {
            open.retain(|client| !Arc::ptr_eq(client, victim));
            victim.evicted.notify_one();
        }
        let client = Arc::new(Client::new(peer, is_reserved, Arc::clone(&self.0.room)));
        open.push(Arc::clone(&client));
        Some(Admission { client, evicts: victim.is_some(), clients: self.clone() })
    }
}

/// Returns whether there are as many connections as may be open, without those in reserve.
fn is_full(open: &[Arc<Client>]) -> bool {
    open.iter().filter(|client| !client.is_reserved).count() >= MAX_CONNECTIONS
}

/// Returns whether another connection can be admitted for health checks only.
fn has_reserve(open: &[Arc<Client>]) -> bool {
    open.iter().filter(|client| client.is_reserved).count() < RESERVED_CONNECTIONS
}

/// Returns the connection to close first.
fn first<'a>(clients: impl Iterator<Item = &'a Arc<Client>>) -> Option<Arc<Client>> {
    let ranked = clients.filter_map(|client| Some((client.rank()?, client)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, client)| Arc::clone(client))
}

/// Returns what counts as one peer: an IPv4 address, or a network of 64 bits, of which one host may have every address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;
