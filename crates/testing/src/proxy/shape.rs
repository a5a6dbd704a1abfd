//! How the bytes of a connection are delayed, split and merged.

use std::time::{Duration, Instant};

/// The delays and boundaries of everything that is forwarded. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The delay of each chunk, in each direction.
    pub delay: Duration,
    /// The maximum of a random delay in addition. Chunks are not reordered.
    pub jitter: Duration,
    /// Bytes per second in each direction of a connection; zero for no limit.
    pub bandwidth: u32,
    /// Whether chunks are split and merged at random.
    pub fragments: bool,
}

impl Shape {
    /// Returns when a chunk of `len` bytes that was read now is due; `last` is when the one before was.
    pub(super) fn due(&self, last: Instant, len: usize, rng: &mut fastrand::Rng) -> Instant {
        let mut due = Instant::now() + self.delay;
        if !self.jitter.is_zero() {
            due += self.jitter.mul_f64(rng.f64());
        }
        let due = due.max(last);
        if self.bandwidth == 0 {
            return due;
        }
        due + Duration::from_secs(len as u64) / self.bandwidth
    }

    /// Returns whether chunks have to be delivered on time, rather than after at least some time.
    pub(super) fn is_exact(&self) -> bool {
        self.jitter.is_zero() && self.bandwidth == 0
    }
}

/// What happens to some of the open connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Both sides are reset. Buffered data is lost.
    Reset,
    /// The server's side is reset, and the client is not told: what it sends is lost, until it closes.
    HalfOpen,
    /// The next chunk of the server is cut at a random byte, and both sides are reset then.
    Truncate,
}
