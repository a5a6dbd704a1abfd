//! The values of all measures.

use std::ops::Index;

use super::measures::Measure;

/// The value of each measure. All are finite and not negative.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures([f64; Measure::COUNT]);

impl Default for Figures {
    fn default() -> Self {
        Self([0.0; Measure::COUNT])
    }
}

impl Index<Measure> for Figures {
    type Output = f64;

    fn index(&self, measure: Measure) -> &f64 {
        &self.0[measure as usize]
    }
}

impl Figures {
    /// Sets a value; 0 if it is not a number, or negative.
    pub(super) fn set(&mut self, measure: Measure, value: f64) {
        self.0[measure as usize] = if value.is_nan() { 0.0 } else { value.clamp(0.0, f64::MAX) };
    }

    /// Moves each value towards that of `other`, by this share of the difference.
    pub(super) fn approach(&mut self, other: &Self, share: f64) {
        for measure in Measure::ALL {
            self.set(*measure, self[*measure] * (1.0 - share) + other[*measure] * share);
        }
    }
}

/// Returns `part / whole`; 0 where that is no number.
pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    let ratio = part / whole;
    if ratio.is_finite() && whole > 0.0 { ratio } else { 0.0 }
}
