//! The two formats, and what in their frames differs.

use super::text::{escaped, escaped_help};

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0: the same samples, units and exemplars.
    OpenMetrics,
}

/// Units that a name may end in. (Others that we know of name no unit: `_info`, `_ratio`.)
const UNITS: [&str; 2] = ["seconds", "bytes"];

impl Format {
    /// The media type, as `Content-Type` says it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(super) const fn is_open_metrics(self) -> bool {
        matches!(self, Self::OpenMetrics)
    }

    /// Writes what stands before a family's samples.
    ///
    /// `is_taken` tells of a name whether another family has it. In OpenMetrics a counter's family is named without
    /// `_total`. One that cannot be, because it does not end in that or because the shorter name is another's, is of
    /// an unknown type there: so its samples keep the name that they have in the other format.
    pub(super) fn head(
        self,
        out: &mut Vec<u8>,
        name: &str,
        kind: &'static str,
        help: &str,
        is_taken: impl FnOnce(&str) -> bool,
    ) {
        if self == Self::Text {
            if !help.is_empty() {
                line(out, &["# HELP ", name, " "]);
                escaped_help(out, help);
                out.push(b'\n');
            }
            line(out, &["# TYPE ", name, " ", kind, "\n"]);
            return;
        }
        let (name, kind) = match (kind, name.strip_suffix("_total")) {
            ("counter", Some(base)) if !base.is_empty() && !is_taken(base) => (base, kind),
            ("counter", _) => (name, "unknown"),
            _ => (name, kind),
        };
        line(out, &["# TYPE ", name, " ", kind, "\n"]);
        let unit = UNITS.iter().find(|unit| name.strip_suffix(**unit).is_some_and(|rest| rest.ends_with('_')));
        if let Some(unit) = unit {
            line(out, &["# UNIT ", name, " ", unit, "\n"]);
        }
        if !help.is_empty() {
            line(out, &["# HELP ", name, " "]);
            escaped(out, help);
            out.push(b'\n');
        }
    }
}

fn line(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(format: Format, name: &str, kind: &'static str, taken: &[&str]) -> String {
        let mut out = Vec::new();
        format.head(&mut out, name, kind, "Says \"it\".\n", |name| taken.contains(&name));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_family_is_named_and_typed_as_each_format_wants_it() {
        let name = "shop_wait_seconds_total";
        assert_eq!(
            head(Format::Text, name, "counter", &[]),
            "# HELP shop_wait_seconds_total Says \"it\".\\n\n# TYPE shop_wait_seconds_total counter\n"
        );
        assert_eq!(
            head(Format::OpenMetrics, name, "counter", &[]),
            "# TYPE shop_wait_seconds counter\n# UNIT shop_wait_seconds seconds\n\
             # HELP shop_wait_seconds Says \\\"it\\\".\\n\n"
        );
        assert!(head(Format::OpenMetrics, "shop_bytes", "gauge", &[]).contains("# UNIT shop_bytes bytes\n"));
        for no_unit in ["bytes", "shop_megabytes"] {
            assert!(!head(Format::OpenMetrics, no_unit, "gauge", &[]).contains("UNIT"));
        }
    }

    #[test]
    fn a_counter_that_cannot_be_named_as_one_keeps_its_name() {
        for (name, taken) in [("orders", &[][..]), ("orders_total", &["orders"]), ("_total", &[])] {
            let head = head(Format::OpenMetrics, name, "counter", taken);
            assert!(head.starts_with(&format!("# TYPE {name} unknown\n")), "{head}");
        }
    }
}
