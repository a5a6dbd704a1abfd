//! The parsers accept valid pages, and nothing else.

use poolscope::exporter::Format;

use super::pages::lines::sample;
use super::pages::{parse, read, samples};

#[test]
fn valid_line_is_parsed() {
    let line = r##"a_bucket{x="\"\\\n,}é",le="0.5"} 3 # {trace_id="ab"} 0.25 1.5"##;
    let read = sample(line, true).unwrap();
    assert_eq!((read.name.as_str(), read.value, read.labels["x"].as_str()), ("a_bucket", 3.0, "\"\\\n,}é"));
    let exemplar = read.exemplar.unwrap();
    assert_eq!((exemplar.labels["trace_id"].as_str(), exemplar.value), ("ab", 0.25));
    assert_eq!(exemplar.timestamp, Some(1.5));
    assert!(sample(line, false).is_err(), "the text format has no exemplars");
}

#[test]
fn invalid_lines_are_rejected() {
    let long = format!("a_bucket{{le=\"1.0\"}} 1 # {{t=\"{}\"}} 1", "x".repeat(128));
    for line in [
        "",
        "1a 1",
        "a",
        "a  1",
        "a 1 ",
        "a{} ",
        "a{b=\"c\" 1",
        "a{b=\"c\",} 1",
        "a{b=\"\\t\"} 1",
        "a{b=\"\"\"} 1",
        "a{b=\"1\",b=\"2\"} 1",
        "a{b:c=\"\"} 1",
        "a inf",
        "a nan",
        "a 1 # 1",
        "a 1 # {} 1 2 3",
        "a 1 #{} 1",
        &long,
    ] {
        assert!(sample(line, true).is_err(), "{line}");
    }
}

/// Each page has one defect, as other writers have had it.
#[test]
fn invalid_pages_are_rejected() {
    let good = "# TYPE a counter\n# HELP a Says \\\"it\\\".\na_total{b=\"1\"} 1\n# TYPE c_seconds gauge\n\
        # UNIT c_seconds seconds\nc_seconds 2\n# TYPE d histogram\nd_bucket{le=\"1.0\"} 1 # {t=\"1\"} 0.5\n\
        d_bucket{le=\"+Inf\"} 1\nd_sum 0.5\nd_count 1\n# EOF\n";
    assert_eq!(samples(&read(Format::OpenMetrics, good)).len(), 6);
    for (what, with) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\n\n"),
        ("# EOF\n", "# TYPE a counter\na_total{b=\"2\"} 1\n# EOF\n"),
        ("# EOF\n", "# TYPE a_total gauge\na_total 1\n# EOF\n"),
        ("# EOF\n", "# TYPE e gauge\n# EOF\n"),
        ("# TYPE a counter\n", ""),
        ("# TYPE a counter\n", "# TYPE a counter\n# TYPE a counter\n"),
        ("a counter", "a count"),
        ("\\\"it\\\"", "\"it\""),
        ("a_total", "a"),
        ("a_total{b=\"1\"} 1\n", "a_total{b=\"1\"} 1\na_total{b=\"1\"} 2\n"),
        ("a_total{b=\"1\"} 1\n", "a_total{b=\"1\"} -1\n"),
        ("a_total{b=\"1\"} 1\n", "a_total{b=\"1\"} 1\n# UNIT a x\n"),
        ("# UNIT c_seconds seconds", "# UNIT c_seconds bytes"),
        ("c_seconds 2\n", "c_seconds 2 # {t=\"1\"} 1\n"),
        ("c_seconds 2\n", "c_seconds 2\n\n"),
        ("le=\"1.0\"", "le=\"1\""),
        ("} 0.5\n", "} 1.5\n"),
        ("d_bucket{le=\"+Inf\"} 1\n", ""),
        ("d_count 1\n", "d_count 2\n"),
        ("d_sum 0.5\n", ""),
    ] {
        let bad = good.replacen(what, with, 1);
        assert_ne!(bad, good);
        assert!(parse(Format::OpenMetrics, &bad).is_err(), "{bad}");
    }
}
