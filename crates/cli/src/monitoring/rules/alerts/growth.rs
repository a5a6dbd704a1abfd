//! Expressions for counters whose series appear with their first event.

use crate::monitoring::thresholds::Threshold;

/// Returns an expression for the increase of a counter over `window`, including that of a new series.
///
/// `increase` does not see the first event of a series that begins with it. A series that did not exist one window ago,
/// although its target was up, is new, and its value is its increase.
pub(in crate::monitoring::rules) fn increase_with_new_series(series: &str, window: &Threshold) -> String {
    format!(
        "  increase({series}[{window}]) > 0\n\
         or\n\
         \x20 ({series} and on (job, instance) (up offset {window} == 1))\n\
         \x20 unless\n\
         \x20 {series} offset {window}"
    )
}

/// Indents each line by two columns.
pub(super) fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
