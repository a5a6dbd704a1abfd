//! Measuring in rounds: in each, every variant has one turn, in an order that is drawn anew.
//!
//! What disturbs the machine for longer than a turn (a neighbour, the clock's frequency) then disturbs all variants
//! alike, and what disturbs it for less is left to the median.

use std::pin::Pin;

use crate::Failure;

/// A variant's turn, which gives one sample.
type Turn<'a, S> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<S, Failure>> + 'a>> + 'a>;

/// The variants of one comparison and what was measured of them.
pub(crate) struct Rounds<'a, S> {
    turns: Vec<Turn<'a, S>>,
    samples: Vec<Vec<S>>,
}

/// The seed of every shuffle: the order is arbitrary and, for whoever repeats a run, the same.
const SEED: u64 = 0x706f_6f6c_7363_6f70;

impl<'a, S> Rounds<'a, S> {
    pub(crate) fn new() -> Self {
        Self { turns: Vec::new(), samples: Vec::new() }
    }

    /// Adds a variant, and answers with its place in what [`run`](Self::run) gives.
    pub(crate) fn add<F>(&mut self, turn: impl Fn() -> F + 'a) -> usize
    where
        F: Future<Output = Result<S, Failure>> + 'a,
    {
        self.turns.push(Box::new(move || Box::pin(turn())));
        self.samples.push(Vec::new());
        self.turns.len() - 1
    }

    /// Runs so many rounds, after a tenth as many that do not count.
    pub(crate) async fn run(mut self, rounds: usize) -> Result<Vec<Vec<S>>, Failure> {
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut order: Vec<usize> = (0..self.turns.len()).collect();
        let warm_up = rounds.div_ceil(10);
        for round in 0..warm_up + rounds {
            random.shuffle(&mut order);
            for &variant in &order {
                let sample = self.turns[variant]().await?;
                if round >= warm_up {
                    self.samples[variant].push(sample);
                }
            }
        }
        Ok(self.samples)
    }
}

/// The median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The median over the rounds of one variant's sample divided by another's.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to).collect())
}

/// The mean of the middle half: as steady as a median against what is far off, and finer where many samples
/// crowd together.
#[allow(clippy::cast_precision_loss, reason = "a count of samples")]
pub(crate) fn middle_mean(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let middle = &values[values.len() / 4..values.len() - values.len() / 4];
    middle.iter().sum::<f64>() / middle.len() as f64
}
