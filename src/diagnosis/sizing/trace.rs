//! Checkouts that are like the recorded ones: when each arrives, and how long it uses a connection.

use std::ops::Range;
use std::sync::LazyLock;

use super::recording::{Load, SLOT_NANOS, SLOTS, SlotLoad};
use crate::telemetry::clock::{seconds, to_f64};
use crate::telemetry::owned::{BUCKETS, UseTimes};

/// The number of checkouts that are replayed, about: of more, periods are selected in proportion to their arrivals.
pub(super) const MAX_CHECKOUTS: u64 = 60_000;

/// The number of periods that are selected at least.
const MIN_PERIODS: u64 = 100;

/// The fewest uses that the use times of a checkout are drawn from; if its chunk has fewer, the neighbours are added.
const MIN_USES: u64 = 100;

/// The number of chunks before and after a period whose uses may be in progress at its beginning.
const IN_PROGRESS_CHUNKS: usize = 30;

/// Any constant.
const SEED: u64 = 0x5EED_0F51_21E5;

/// A period that is replayed with an empty queue at its beginning.
#[derive(Clone, Debug)]
pub(super) struct Period {
    /// Its checkouts.
    pub(super) checkouts: Range<usize>,
    /// The first checkout that counts; those before fill the queue.
    pub(super) counted_from: usize,
    /// How much each of them counts.
    pub(super) weight: f64,
}

/// The checkouts of a replay.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// When each arrives, and for how long it uses a connection, in nanoseconds.
    pub(super) checkouts: Vec<(u64, u64)>,
    pub(super) periods: Vec<Period>,
}

impl Trace {
    /// Returns the checkouts of a recording; none if no use has ended.
    pub(super) fn of(load: &Load) -> Self {
        let chunks = load.chunk_uses();
        if chunks.iter().all(|uses| uses.count() == 0) {
            return Self::default();
        }
        let slots = load.slots();
        let mut trace = Self::default();
        let mut source = Source { random: fastrand::Rng::with_seed(SEED), chunks, deck: None };
        for (period, warm_up, weight) in periods(&slots, load.checkouts(), source.warm_up_slots()) {
            let first = trace.checkouts.len();
            if let Some(slot) = slots.get(warm_up).filter(|_| weight != 1.0) {
                source.add_in_progress(&mut trace.checkouts, slot, &slots);
            }
            for slot in &slots[warm_up..period.start] {
                source.add(&mut trace.checkouts, slot);
            }
            let counted_from = trace.checkouts.len();
            for slot in &slots[period] {
                source.add(&mut trace.checkouts, slot);
            }
            trace.periods.push(Period { checkouts: first..trace.checkouts.len(), counted_from, weight });
        }
        trace
    }
}

impl Trace {
    /// Returns whether only a part of the recording is replayed.
    pub(super) fn is_selection(&self) -> bool {
        self.periods.iter().any(|period| period.weight != 1.0)
    }
}

/// Returns the slots of each period to replay, the first slot of its warm-up, and the weight of its checkouts.
fn periods(slots: &[SlotLoad], checkouts: u64, warm_up: usize) -> Vec<(Range<usize>, usize, f64)> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for index in 0..slots.len() {
        match runs.last_mut() {
            Some(run) if slots[index - 1].index + 1 == slots[index].index => run.end = index + 1,
            _ => runs.push(index..index + 1),
        }
    }
    if checkouts <= MAX_CHECKOUTS {
        return runs.into_iter().map(|run| (run.clone(), run.start, 1.0)).collect();
    }
    // Short enough that many of them fit, and a divisor of a chunk.
    let length = [100, 50, 20, 10, 5, 2, 1].into_iter().find(|length| {
        let each = checkouts * (*length as u64 + warm_up as u64) / slots.len().max(1) as u64;
        each * MIN_PERIODS <= MAX_CHECKOUTS
    });
    let length = length.unwrap_or(1);
    let all: Vec<_> = runs
        .iter()
        .flat_map(|run| {
            let starts = run.clone().step_by(length);
            starts.map(|start| (start..run.end.min(start + length), start.saturating_sub(warm_up).max(run.start)))
        })
        .map(|(period, first)| (arrivals(&slots[period.clone()]), arrivals(&slots[first..period.start]), period, first))
        .collect();
    // The cost of a selected period: those with more arrivals are selected more often.
    let total = to_f64(checkouts);
    let cost: f64 = all.iter().map(|(own, before, ..)| to_f64(*own) / total * to_f64(own + before)).sum();
    let selected = (to_f64(MAX_CHECKOUTS) / cost.max(1.0)).max(1.0).floor();
    let step = total / selected;
    let (mut next, mut passed) = (step / 2.0, 0.0);
    let mut periods = Vec::new();
    for (own, _, period, first) in all {
        passed += to_f64(own);
        let mut times = 0.0;
        while next < passed {
            times += 1.0;
            next += step;
        }
        if times > 0.0 {
            periods.push((period, first, times / to_f64(own)));
        }
    }
    periods
}

fn arrivals(slots: &[SlotLoad]) -> u64 {
    slots.iter().map(|slot| u64::from(slot.arrivals)).sum()
}

/// Draws checkouts.
struct Source {
    random: fastrand::Rng,
    chunks: Vec<UseTimes>,
    /// The uses to draw from, with the position of the chunk that they are for.
    deck: Option<(usize, Deck)>,
}

impl Source {
    /// Returns the slots in which a queue forgets how it began: three times the mean use.
    fn warm_up_slots(&self) -> usize {
        let mut all = UseTimes::default();
        for uses in &self.chunks {
            all.add(uses);
        }
        let mean = all.sum_nanos() / all.count().max(1);
        usize::try_from(3 * mean / SLOT_NANOS).unwrap_or(SLOTS).clamp(1, SLOTS)
    }

    /// Adds the checkouts of a slot, which arrive at random within it.
    fn add(&mut self, checkouts: &mut Vec<(u64, u64)>, slot: &SlotLoad) {
        if slot.arrivals == 0 {
            return;
        }
        let first = checkouts.len();
        let begin = slot.index as u64 * SLOT_NANOS;
        checkouts.extend((0..slot.arrivals).map(|_| (begin + self.random.u64(0..SLOT_NANOS), 0)));
        checkouts[first..].sort_unstable();
        if !matches!(&self.deck, Some((chunk, _)) if *chunk == slot.chunk) {
            self.deck = Some((slot.chunk, Deck::new(&self.uses_near(slot.chunk))));
        }
        let Some((_, deck)) = &mut self.deck else { return };
        for (_, time) in &mut checkouts[first..] {
            *time = deck.draw(&mut self.random);
        }
    }

    /// Adds the uses that are in progress at the beginning of a slot, as checkouts that arrive then: in a period that is
    /// selected, long uses have begun before.
    fn add_in_progress(&mut self, checkouts: &mut Vec<(u64, u64)>, slot: &SlotLoad, slots: &[SlotLoad]) {
        // Of some minutes, because a single use that is longer than a chunk would count there as if it were usual.
        let near = slot.chunk.saturating_sub(IN_PROGRESS_CHUNKS)..self.chunks.len();
        let mut uses = UseTimes::default();
        for of_chunk in self.chunks[near].iter().take(2 * IN_PROGRESS_CHUNKS) {
            uses.add(of_chunk);
        }
        let of_chunk = || slots.iter().filter(|other| other.chunk == slot.chunk);
        let arrivals: u64 = of_chunk().map(|slot| u64::from(slot.arrivals)).sum();
        let covered = to_f64(of_chunk().count() as u64) * seconds(SLOT_NANOS);
        let mean_use = seconds(uses.sum_nanos()) / to_f64(uses.count().max(1));
        let in_use = to_f64(arrivals) / covered.max(0.1) * mean_use;
        let shapes: [Shape; BUCKETS] = std::array::from_fn(|index| Shape::new(&uses, index));
        let total = uses.sum_nanos();
        let mut left = in_use;
        while total > 0 && left > self.random.f64() {
            left -= 1.0;
            // The probability that a use is in progress is in proportion to its length.
            let mut rank = self.random.u64(0..total);
            let mut index = 0;
            while index + 1 < BUCKETS && rank >= uses.nanos[index] {
                rank -= uses.nanos[index];
                index += 1;
            }
            let time = loop {
                let time = shapes[index].quantile(self.random.f64());
                if self.random.f64() * shapes[index].upper() <= to_f64(time) {
                    break time;
                }
            };
            checkouts.push((slot.index as u64 * SLOT_NANOS, self.random.u64(0..=time)));
        }
    }

    /// Returns the use times of a chunk, or of so many chunks around it that there are enough.
    fn uses_near(&self, chunk: usize) -> UseTimes {
        let mut uses = self.chunks[chunk];
        for distance in 1..self.chunks.len() {
            if uses.count() >= MIN_USES {
                break;
            }
            if let Some(before) = chunk.checked_sub(distance) {
                uses.add(&self.chunks[before]);
            }
            if let Some(after) = self.chunks.get(chunk + distance) {
                uses.add(after);
            }
        }
        uses
    }
}

/// Use times that are drawn without putting them back, so that as many long ones are drawn as were recorded.
struct Deck {
    all: [u64; BUCKETS],
    left: [u64; BUCKETS],
    count: u64,
    shapes: [Shape; BUCKETS],
}

impl Deck {
    fn new(uses: &UseTimes) -> Self {
        let shapes = std::array::from_fn(|index| Shape::new(uses, index));
        Self { all: uses.counts, left: [0; BUCKETS], count: 0, shapes }
    }

    fn draw(&mut self, random: &mut fastrand::Rng) -> u64 {
        if self.count == 0 {
            (self.left, self.count) = (self.all, self.all.iter().sum());
            if self.count == 0 {
                return 0;
            }
        }
        let mut rank = random.u64(0..self.count);
        self.count -= 1;
        for (left, shape) in self.left.iter_mut().zip(&self.shapes) {
            if rank < *left {
                *left -= 1;
                return shape.quantile(random.f64());
            }
            rank -= *left;
        }
        0
    }
}

/// The distribution of use times within a bucket: of those with the recorded mean, the one that presumes least, an
/// exponential one between the bounds.
#[derive(Clone, Copy, Debug)]
struct Shape {
    lower: f64,
    width: f64,
    /// The rate of the decrease over the width; negative for an increase.
    rate: f64,
}

/// The rates of means between 0.05 and 0.95 are within this range.
const MAX_RATE: f64 = 50.0;

/// The rate for each mean, in steps of a 64th of the width.
static RATES: LazyLock<[f64; 65]> = LazyLock::new(|| {
    std::array::from_fn(|step| {
        let mean = to_f64(step as u64) / 64.0;
        let (mut low, mut high) = (-MAX_RATE, MAX_RATE);
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            // The mean decreases with the rate.
            if mean_at(middle) > mean { low = middle } else { high = middle }
        }
        f64::midpoint(low, high)
    })
});

/// Returns the mean of an exponential distribution between 0 and 1.
fn mean_at(rate: f64) -> f64 {
    if rate.abs() < 1e-6 { 0.5 } else { 1.0 / rate - 1.0 / rate.exp_m1() }
}

/// Returns the rate for a mean between 0 and 1.
fn rate_for(mean: f64) -> f64 {
    // Near a bound, the other one makes no difference.
    if mean < 0.05 {
        return 1.0 / mean.max(1e-6);
    } else if mean > 0.95 {
        return -1.0 / (1.0 - mean).max(0.002);
    }
    let at = mean * 64.0;
    let mut step = 0;
    while step < 63 && to_f64(step as u64 + 1) <= at {
        step += 1;
    }
    RATES[step] + (RATES[step + 1] - RATES[step]) * (at - to_f64(step as u64))
}

impl Shape {
    fn new(uses: &UseTimes, index: usize) -> Self {
        let (lower, upper) = UseTimes::bounds(index);
        let (lower, upper) = (to_f64(lower), to_f64(upper));
        let mean = to_f64(uses.nanos[index]) / to_f64(uses.counts[index].max(1));
        // The last bucket has no bound.
        let upper = if index + 1 == BUCKETS { upper.max(2.0 * mean - lower) } else { upper };
        let width = upper - lower;
        let rate = rate_for(((mean - lower) / width).clamp(0.0, 1.0));
        Self { lower, width, rate }
    }

    fn upper(self) -> f64 {
        self.lower + self.width
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and a cast saturates")]
    fn quantile(self, share: f64) -> u64 {
        let at = if self.rate.abs() < 1e-6 { share } else { -(share * (-self.rate).exp_m1()).ln_1p() / self.rate };
        (self.lower + self.width * at.clamp(0.0, 1.0)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_uses_have_the_recorded_mean_and_buckets() {
        let mut uses = UseTimes::default();
        for index in 0..1000_u64 {
            uses.observe(20_000 + index * 7);
            uses.observe(20_000_000);
            uses.observe(12_000_000 + index * 10_000);
            uses.observe(40_000_000_000);
        }
        let mut deck = Deck::new(&uses);
        let mut random = fastrand::Rng::with_seed(1);
        let mut drawn = UseTimes::default();
        for _ in 0..uses.count() {
            drawn.observe(deck.draw(&mut random));
        }
        assert_eq!(drawn.counts, uses.counts);
        for index in 0..BUCKETS {
            let (drawn, recorded) = (to_f64(drawn.nanos[index]), to_f64(uses.nanos[index]));
            assert!((drawn - recorded).abs() <= 0.1 * recorded, "bucket {index}: {drawn} instead of {recorded}");
        }
    }

    #[test]
    fn rates_have_the_mean() {
        for percent in 1..100 {
            let mean = to_f64(percent) / 100.0;
            let rate = rate_for(mean);
            assert!((mean_at(rate) - mean).abs() < 0.003, "{mean}: {}", mean_at(rate));
        }
    }
}
