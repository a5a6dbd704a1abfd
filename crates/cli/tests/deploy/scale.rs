//! The arithmetic of docs/scale.md: whoever changes one figure changes those that follow from it.

use crate::tools::text;

/// The figures of a row of a table, by what stands first in it.
fn row(page: &str, first: &str) -> Vec<f64> {
    let row =
        page.lines().find_map(|line| line.strip_prefix(&format!("| {first} |"))).unwrap_or_else(|| panic!("{first}"));
    let figure = |cell: &str| cell.split_whitespace().next().and_then(|word| word.replace(',', "").parse().ok());
    row.split('|').filter_map(figure).collect()
}

/// Holds that a figure is what it says, as far as it is written out.
#[track_caller]
fn about(what: &str, stands: f64, follows: f64) {
    assert!((stands - follows).abs() <= 0.06 * follows, "{what}: {stands} stands there, {follows} follows");
}

#[test]
fn each_figure_follows_from_those_before_it() {
    let page = text("docs/scale.md");
    let of = |first| row(&page, first)[0];
    let series = of("each pool")
        + 10.0 * of("each operation that succeeds")
        + 3.0 * of("each further outcome of an operation")
        + 10.0 * of("each route and method")
        + 12.0 * of("each summary of queries, and each error of one");
    let typical = of("**a typical instance**");
    about("a typical instance", typical, series);

    let instances = row(&page, "instances");
    assert_eq!(instances, [10.0, 1_000.0, 100_000.0]);
    let rows = [
        ("series", typical),
        ("samples a second, every 15 s", typical / 15.0),
        ("scraped, plain, in MB/s", typical * of("bytes a sample, plain") / 15.0 / 1e6),
        ("scraped, by gzip, in MB/s", typical * of("bytes a sample, by gzip") / 15.0 / 1e6),
        ("memory of Prometheus, in GB", typical * of("bytes of memory a series") / 1e9),
        ("disk of Prometheus, in GB a day", typical * 86_400.0 / 15.0 * of("bytes of disk a sample") / 1e9),
    ];
    for (what, each) in rows {
        let figures = row(&page, what);
        assert_eq!(figures.len(), 3, "{what}");
        for (figure, instances) in figures.iter().zip(&instances) {
            about(what, *figure, each * instances);
        }
    }
}
