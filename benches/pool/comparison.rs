//! Comparisons in rounds: in each round every variant has one turn, in a random order.
//!
//! Disturbances longer than a turn (a busy neighbour, the CPU's frequency) affect all variants alike, and the median
//! removes shorter ones.

use std::pin::Pin;

use crate::BoxError;

/// A turn of one variant, which yields one sample.
type Turn<'a, S> = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<S, BoxError>> + 'a>> + 'a>;

/// The variants of a comparison, and their samples.
pub(crate) struct Comparison<'a, S> {
    turns: Vec<Turn<'a, S>>,
    samples: Vec<Vec<S>>,
}

/// The seed of the random order, fixed so that runs are repeatable.
const SEED: u64 = 0x706f_6f6c_7363_6f70;

impl<'a, S> Comparison<'a, S> {
    pub(crate) fn new() -> Self {
        Self { turns: Vec::new(), samples: Vec::new() }
    }

    /// Adds a variant. Returns its index in the result of [`run`](Self::run).
    pub(crate) fn add<F>(&mut self, turn: impl Fn() -> F + 'a) -> usize
    where
        F: Future<Output = Result<S, BoxError>> + 'a,
    {
        self.turns.push(Box::new(move || Box::pin(turn())));
        self.samples.push(Vec::new());
        self.turns.len() - 1
    }

    /// Runs `rounds` rounds, after a tenth as many as warm-up.
    pub(crate) async fn run(mut self, rounds: usize) -> Result<Vec<Vec<S>>, BoxError> {
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

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Returns the median over the rounds of one variant's sample divided by another's.
pub(crate) fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(of.iter().zip(to).map(|(of, to)| of / to).collect())
}

/// Returns the interquartile mean: as robust against outliers as the median, with a finer resolution where many samples
/// are close together.
#[allow(clippy::cast_precision_loss, reason = "a count of samples")]
pub(crate) fn interquartile_mean(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let middle = &values[values.len() / 4..values.len() - values.len() / 4];
    middle.iter().sum::<f64>() / middle.len() as f64
}
