//! A strict parser of Prometheus' text format and of OpenMetrics.

use std::collections::HashSet;

/// Panics unless `page` is valid: each family once, with its head before its samples, and each series once.
pub fn check(page: &str, open_metrics: bool) {
    let page = match page.strip_suffix("# EOF\n") {
        Some(rest) if open_metrics => rest,
        None if !open_metrics => page,
        _ => panic!("the end of the page"),
    };
    assert!(page.is_empty() || page.ends_with('\n'), "the last line is not ended");
    let (mut families, mut series) = (HashSet::new(), HashSet::new());
    let mut family = String::new();
    for line in page.split_terminator('\n') {
        assert!(!line.is_empty() && !line.contains('\r'), "{line:?}");
        if let Some(head) = line.strip_prefix("# ") {
            let (keyword, rest) = head.split_once(' ').expect(line);
            let (name, text) = rest.split_once(' ').expect(line);
            assert!(is_name(name, ":"), "{line:?}");
            match keyword {
                "HELP" => drop(escaped(text, !open_metrics)),
                "UNIT" => assert!(open_metrics && name.ends_with(text), "{line:?}"),
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram", "info", "unknown", "untyped"].contains(&text), "{line:?}")
                }
                _ => panic!("{line:?}"),
            }
            if name != family {
                assert!(families.insert(name.to_owned()), "a second time: {line:?}");
                family = name.to_owned();
            }
        } else {
            let (name, rest) = line.split_at(line.find(['{', ' ']).expect(line));
            assert!(is_name(name, ":") && name.starts_with(&family), "{line:?} of {family}");
            let rest = if let Some(labels) = rest.strip_prefix('{') { check_labels(labels) } else { rest };
            assert!(series.insert(line[..line.len() - rest.len()].to_owned()), "a second time: {line:?}");
            let value = rest.strip_prefix(' ').expect(line);
            let (value, exemplar) = value.split_once(" # ").map_or((value, None), |(value, rest)| (value, Some(rest)));
            assert!(exemplar.is_none() || open_metrics, "{line:?}");
            assert!(value.parse::<f64>().is_ok(), "{line:?}");
        }
    }
}

/// Checks `name="value",…}`, and returns what follows.
fn check_labels(mut rest: &str) -> &str {
    let mut names = HashSet::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return rest;
        }
        let (name, quoted) = rest.split_once("=\"").expect(rest);
        assert!(is_name(name, "") && names.insert(name), "{rest:?}");
        let value = escaped(quoted, false);
        rest = quoted[value..].strip_prefix('"').expect(rest);
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// Returns the length of an escaped text: up to the quotation mark that ends it, or all of it.
fn escaped(text: &str, quotes_are_plain: bool) -> usize {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if !quotes_are_plain => return at,
            '\\' => {
                let escape = characters.next().map(|(_, escape)| escape);
                assert!(matches!(escape, Some('\\' | 'n')) || (escape == Some('"') && !quotes_are_plain), "{text:?}");
            }
            _ => {}
        }
    }
    text.len()
}

fn is_name(name: &str, more: &str) -> bool {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || more.contains(c);
    !name.is_empty() && name.chars().all(is_valid) && !name.starts_with(|c: char| c.is_ascii_digit())
}
