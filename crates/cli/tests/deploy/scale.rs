//! The arithmetic of docs/scale.md: derived figures follow from the measured ones.

use crate::tools::text;

/// Returns the figures of a table row, by its first cell.
fn row(page: &str, first: &str) -> Vec<f64> {
    let row =
        page.lines().find_map(|line| line.strip_prefix(&format!("| {first} |"))).unwrap_or_else(|| panic!("{first}"));
    let figure = |cell: &str| cell.split_whitespace().next().and_then(|word| word.replace(',', "").parse().ok());
    row.split('|').filter_map(figure).collect()
}

/// Checks that a rounded figure equals the derived value.
#[track_caller]
fn assert_close(name: &str, documented: f64, derived: f64) {
    assert!((documented - derived).abs() <= 0.06 * derived, "{name}: documented {documented}, derived {derived}");
}

#[test]
fn derived_figures_are_correct() {
    let page = text("docs/scale.md");
    let figure = |first| row(&page, first)[0];
    let series = figure("each pool")
        + 10.0 * figure("each operation that succeeds")
        + 3.0 * figure("each further outcome of an operation")
        + 10.0 * figure("each route and method")
        + 12.0 * figure("each summary of queries, and each error of one");
    let typical = figure("**a typical instance**");
    assert_close("a typical instance", typical, series);

    let instances = row(&page, "instances");
    assert_eq!(instances, [10.0, 1_000.0, 100_000.0]);
    let rows = [
        ("series", typical),
        ("samples a second, every 15 s", typical / 15.0),
        ("scraped, plain, in MB/s", typical * figure("bytes a sample, plain") / 15.0 / 1e6),
        ("scraped, by gzip, in MB/s", typical * figure("bytes a sample, by gzip") / 15.0 / 1e6),
        ("memory of Prometheus, in GB", typical * figure("bytes of memory a series") / 1e9),
        ("disk of Prometheus, in GB a day", typical * 86_400.0 / 15.0 * figure("bytes of disk a sample") / 1e9),
    ];
    for (name, per_instance) in rows {
        let figures = row(&page, name);
        assert_eq!(figures.len(), 3, "{name}");
        for (figure, instances) in figures.iter().zip(&instances) {
            assert_close(name, *figure, per_instance * instances);
        }
    }
}
