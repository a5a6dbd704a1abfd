//! The arrivals and use times of the last half hour, in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::owned::{BUCKETS, UseTimes};
use crate::telemetry::sizing::LoadReading;

/// The time within which arrivals are not told apart.
pub(super) const SLOT: Duration = Duration::from_millis(100);
pub(super) const SLOT_NANOS: u64 = 100_000_000;

/// The number of slots of a chunk: use times are told apart by chunk, and a fault excludes whole chunks.
pub(super) const SLOTS: usize = 100;

/// The number of chunks: half an hour. A chunk has 432 bytes, so that a pool's recording has at most
/// [`MAX_BYTES`].
const MAX_CHUNKS: usize = 180;

/// The memory of a recording, with the addresses of its chunks.
#[cfg(test)]
pub(super) const MAX_BYTES: usize = 80_000;

/// A reading that follows the last one this closely is ignored, so that the readings of scrapes between those of a
/// sampler do not shift arrivals into other slots.
const MIN_INTERVAL: Duration = Duration::from_millis(80);

/// After a longer pause, such as that of a suspended process, what arrived meanwhile is left out.
const MAX_INTERVAL: Duration = Duration::from_secs(90);

/// At most this many corrections wait for the next reading.
const MAX_CORRECTIONS: usize = 1000;

/// Ten seconds of load.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    arrivals: [u16; SLOTS],
    /// A bit for each slot that was read.
    observed: u128,
    counts: [u32; BUCKETS],
    nanos: [u64; BUCKETS],
    /// Use time that is left out of `nanos`.
    left_out: u64,
    readings: u16,
    /// A fault inflated the demand.
    excluded: bool,
}

impl Chunk {
    const EMPTY: Self = Self {
        arrivals: [0; SLOTS],
        observed: 0,
        counts: [0; BUCKETS],
        nanos: [0; BUCKETS],
        left_out: 0,
        readings: 0,
        excluded: false,
    };

    fn add(&mut self, uses: &UseTimes) {
        for index in 0..BUCKETS {
            let count = u32::try_from(uses.counts[index]).unwrap_or(u32::MAX);
            self.counts[index] = self.counts[index].saturating_add(count);
            self.nanos[index] = self.nanos[index].saturating_add(uses.nanos[index]);
        }
    }

    /// Replaces a use by one that is shorter by `left_out`. Returns whether there was one of this length.
    fn leave_out(&mut self, held: u64, left_out: u64) -> bool {
        let mut uses = UseTimes::default();
        uses.observe(held);
        let Some(index) = uses.counts.iter().position(|count| *count > 0) else { return false };
        if self.counts[index] == 0 {
            return false;
        }
        let held = held.min(self.nanos[index]);
        self.counts[index] -= 1;
        self.nanos[index] -= held;
        let mut uses = UseTimes::default();
        uses.observe(held.saturating_sub(left_out));
        self.add(&uses);
        self.left_out = self.left_out.saturating_add(left_out.min(held));
        true
    }

    pub(super) fn uses(&self) -> UseTimes {
        UseTimes { counts: self.counts.map(u64::from), nanos: self.nanos }
    }

    fn arrivals(&self) -> u64 {
        self.arrivals.iter().map(|count| u64::from(*count)).sum()
    }
}

/// The arrivals and use times of the last half hour.
#[derive(Debug, Default)]
pub(super) struct Recording {
    origin: Nanos,
    last: Option<LoadReading>,
    /// The number of slots since the origin that are complete.
    slot: u64,
    /// The index of the first chunk, since the origin.
    first: u64,
    /// Boxed, so that little is allocated at once.
    chunks: VecDeque<Box<Chunk>>,
    /// Whether a fault inflates the demand now.
    excluding: bool,
    /// Uses that have ended, to be replaced by shorter ones: how long they were, and how much of that is left out.
    corrections: Vec<(u64, u64)>,
}

impl Recording {
    pub(super) fn push(&mut self, reading: &LoadReading) {
        let Some(last) = self.last.as_mut() else {
            (self.origin, self.last) = (reading.at, Some(*reading));
            return;
        };
        let elapsed = reading.at.since(last.at);
        let end = (reading.at.since(self.origin) + SLOT_NANOS / 2) / SLOT_NANOS;
        if elapsed < nanos(MIN_INTERVAL) || end <= self.slot {
            return;
        }
        let arrivals = reading.arrivals.saturating_sub(last.arrivals);
        let uses = reading.uses.since(&last.uses);
        // A use that ends while it is read is counted twice for a moment.
        let reading = LoadReading { arrivals: reading.arrivals.max(last.arrivals), ..*reading };
        self.last = Some(reading);
        let begin = std::mem::replace(&mut self.slot, end);
        if elapsed > nanos(MAX_INTERVAL) {
            return;
        }
        // Those of a longer interval are spread evenly.
        let (slots, mut before) = (end - begin, 0);
        for slot in begin..end {
            let until = u64::try_from(u128::from(arrivals) * u128::from(slot - begin + 1) / u128::from(slots));
            let until = until.unwrap_or(arrivals);
            let (chunk, index) = self.chunk_of(slot);
            chunk.observed |= 1 << index;
            chunk.arrivals[index] =
                chunk.arrivals[index].saturating_add(u16::try_from(until - before).unwrap_or(u16::MAX));
            before = until;
        }
        let (chunk, _) = self.chunk_of(end - 1);
        chunk.readings = chunk.readings.saturating_add(1);
        chunk.add(&uses);
        for (held, left_out) in std::mem::take(&mut self.corrections) {
            // It may have been recorded just before the last chunk began.
            let mut latest = self.chunks.iter_mut().rev().take(2);
            latest.any(|chunk| chunk.leave_out(held, left_out));
        }
    }

    /// Returns the chunk that a slot belongs to, and its index there. Adds the chunk, and removes the oldest ones.
    fn chunk_of(&mut self, slot: u64) -> (&mut Chunk, usize) {
        let (chunk, index) = (slot / SLOTS as u64, slot % SLOTS as u64);
        if chunk >= self.first + self.chunks.len() as u64 + MAX_CHUNKS as u64 {
            self.chunks.clear();
        }
        if self.chunks.is_empty() {
            self.first = chunk;
        }
        while chunk >= self.first + self.chunks.len() as u64 {
            if self.chunks.len() == MAX_CHUNKS {
                self.chunks.pop_front();
                self.first += 1;
            }
            self.chunks.push_back(Box::new(Chunk { excluded: self.excluding, ..Chunk::EMPTY }));
        }
        let at = usize::try_from(chunk.saturating_sub(self.first)).unwrap_or(0);
        (&mut self.chunks[at], usize::try_from(index).unwrap_or(0))
    }

    /// Leaves a part of a use out that has ended: `left_out` of `held` nanoseconds.
    pub(super) fn leave_out(&mut self, held: u64, left_out: u64) {
        if self.corrections.len() < MAX_CORRECTIONS {
            self.corrections.push((held, left_out));
        }
    }

    /// Excludes what was recorded since a point in time, and what is recorded until [`Self::include`]. Returns whether
    /// anything was excluded that was not before.
    pub(super) fn exclude_since(&mut self, since: Nanos) -> bool {
        self.excluding = true;
        let from = since.since(self.origin) / (SLOT_NANOS * SLOTS as u64);
        let first = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut changed = false;
        for chunk in self.chunks.iter_mut().skip(first) {
            changed |= !chunk.excluded;
            chunk.excluded = true;
        }
        changed
    }

    /// Ends the exclusion.
    pub(super) fn include(&mut self) {
        self.excluding = false;
    }

    /// Returns a copy of what was recorded.
    pub(super) fn load(&self) -> Load {
        let mut load = Load { chunks: Vec::new(), recorded: Duration::ZERO, excluded: Duration::ZERO };
        for (index, chunk) in self.chunks.iter().enumerate() {
            let time = SLOT * chunk.observed.count_ones();
            if chunk.excluded {
                load.excluded += time;
            } else {
                load.recorded += time;
                load.chunks.push((index, Chunk::clone(chunk)));
            }
        }
        load
    }
}

/// A copy of the recorded load, without what is excluded.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// With their indices: chunks between may be missing.
    chunks: Vec<(usize, Chunk)>,
    recorded: Duration,
    excluded: Duration,
}

/// The arrivals of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotLoad {
    /// Consecutive slots have consecutive indices.
    pub(super) index: usize,
    pub(super) arrivals: u16,
    /// The position of its chunk in [`Load::chunk_uses`].
    pub(super) chunk: usize,
}

impl Load {
    pub(super) fn recorded(&self) -> Duration {
        self.recorded
    }

    pub(super) fn excluded(&self) -> Duration {
        self.excluded
    }

    pub(super) fn checkouts(&self) -> u64 {
        self.chunks.iter().map(|(_, chunk)| chunk.arrivals()).sum()
    }

    /// Returns the use times of each chunk.
    pub(super) fn chunk_uses(&self) -> Vec<UseTimes> {
        self.chunks.iter().map(|(_, chunk)| chunk.uses()).collect()
    }

    /// Returns the use time that is left out, in nanoseconds.
    pub(super) fn left_out(&self) -> u64 {
        self.chunks.iter().fold(0, |sum, (_, chunk)| sum.saturating_add(chunk.left_out))
    }

    /// Returns the mean time between two readings.
    pub(super) fn resolution(&self) -> Duration {
        let readings: u32 = self.chunks.iter().map(|(_, chunk)| u32::from(chunk.readings)).sum();
        self.recorded / readings.max(1)
    }

    /// Returns the slots that were read, in order.
    pub(super) fn slots(&self) -> Vec<SlotLoad> {
        let mut slots = Vec::with_capacity(self.chunks.len() * SLOTS);
        for (position, (index, chunk)) in self.chunks.iter().enumerate() {
            let observed = (0..SLOTS).filter(|slot| chunk.observed >> slot & 1 == 1);
            slots.extend(observed.map(|slot| SlotLoad {
                index: index * SLOTS + slot,
                arrivals: chunk.arrivals[slot],
                chunk: position,
            }));
        }
        slots
    }
}
