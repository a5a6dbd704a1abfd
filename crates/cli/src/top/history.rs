//! The latest samples of a pool, for its sparklines.

use std::collections::VecDeque;

use super::model::State;

/// How many samples are kept for each pool: ten minutes at one a second.
pub(super) const MAX_SAMPLES: usize = 600;

/// The samples, oldest first. A second without an answer has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(VecDeque<Option<State>>);

impl History {
    /// Returns a history with these samples.
    pub(crate) fn of(samples: &[State]) -> Self {
        let first = samples.len().saturating_sub(MAX_SAMPLES);
        Self(samples[first..].iter().copied().map(Some).collect())
    }

    pub(crate) fn push(&mut self, sample: Option<State>) {
        if self.0.len() == MAX_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Returns a value of the last `count` samples, oldest first.
    pub(crate) fn last(&self, count: usize, of: impl Fn(&State) -> u64) -> Vec<Option<u64>> {
        let first = self.0.len().saturating_sub(count);
        self.0.iter().skip(first).map(|sample| sample.as_ref().map(&of)).collect()
    }
}

/// The characters of a sparkline from the lowest value above zero to the maximum.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_BARS: [char; 8] = ['.', '.', ':', ':', '-', '=', '+', '#'];

/// Draws values as bars of `height` rows, top row first, right aligned in `width` columns. `max` is the value of a full
/// bar. A value above zero is visible; zero and missing values are blank, except that the lowest row marks zeros.
pub(crate) fn bars(values: &[Option<u64>], max: u64, width: usize, height: usize, is_utf8: bool) -> Vec<String> {
    let characters = if is_utf8 { BARS } else { ASCII_BARS };
    let values = &values[values.len().saturating_sub(width)..];
    let steps = 8 * height as u128;
    // Of any numbers, without overflow.
    let level = |value: u64| (u128::from(value.min(max)) * steps).div_ceil(u128::from(max.max(1)));
    (0..height)
        .map(|row| {
            let below = 8 * (height - 1 - row) as u128;
            let bar = |value: &Option<u64>| match value.map(level) {
                None => ' ',
                Some(0) if below == 0 => '_',
                Some(level) if level <= below => ' ',
                #[allow(clippy::cast_possible_truncation, reason = "at most eight")]
                Some(level) => characters[(level - below).min(8) as usize - 1],
            };
            " ".repeat(width - values.len()) + &values.iter().map(bar).collect::<String>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_right_aligned_and_scaled_to_the_maximum() {
        let values = [Some(0), None, Some(1), Some(8), Some(16), Some(40)];
        assert_eq!(bars(&values, 16, 8, 1, true), ["  _ ▁▄██"]);
        assert_eq!(bars(&values, 16, 3, 1, false), [":##"]);
        assert_eq!(bars(&values, 16, 6, 2, true), ["    ██", "_ ▁███"]);
        assert_eq!(bars(&[Some(5)], 0, 1, 1, true), ["_"]);
        assert_eq!(bars(&[], 1, 2, 1, true), ["  "]);
    }

    #[test]
    fn samples_are_bounded() {
        let mut history = History::default();
        (0..2000).for_each(|used| history.push(Some(State { used, ..State::default() })));
        let kept = history.last(usize::MAX, |state| state.used);
        assert_eq!((kept.len(), kept[0], kept[599]), (MAX_SAMPLES, Some(1400), Some(1999)));
    }
}
