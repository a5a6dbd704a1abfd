//! What a scrape asks for: the format, and whether it is to be compressed.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use super::exposition::Format;

/// What a scrape's answer is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) format: Format,
    pub(super) gzip: bool,
}

impl Wish {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self { format: format(&values(headers, &ACCEPT)), gzip: gzip(&values(headers, &ACCEPT_ENCODING)) }
    }
}

/// A header that comes several times is one list.
fn values(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// One of a list of choices: `text/plain;version=0.0.4;q=0.5`.
struct Choice<'a> {
    name: &'a str,
    parameters: &'a str,
    /// In thousandths.
    quality: u16,
}

fn choices(list: &str) -> impl Iterator<Item = Choice<'_>> {
    list.split(',').map(|choice| {
        let (name, parameters) = choice.split_once(';').unwrap_or((choice, ""));
        let choice = Choice { name: name.trim(), parameters, quality: 1000 };
        let quality = choice.parameter("q").map_or(1000, quality);
        Choice { quality, ..choice }
    })
}

impl Choice<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// Whether it is of this version, or of any.
    fn is_version(&self, version: &str) -> bool {
        self.parameter("version").is_none_or(|asked| asked == version)
    }
}

/// Of what is no number between 0 and 1, that nothing was said.
fn quality(text: &str) -> u16 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    let thousandths = |quality: f32| (quality * 1000.0).round() as u16;
    text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).map_or(1000, thousandths)
}

/// OpenMetrics if it is asked for by name and nothing is liked better, the text format otherwise: also where neither
/// would do, as an answer in a format that is not liked says more than none.
fn format(accept: &str) -> Format {
    let best = |fits: &dyn Fn(&Choice<'_>) -> bool| choices(accept).filter(fits).map(|choice| choice.quality).max();
    let open_metrics = best(&|choice| choice.is("application/openmetrics-text") && choice.is_version("1.0.0"));
    // What is said of a type itself goes before what is said of all.
    let text = best(&|choice| choice.is("text/plain") && choice.is_version("0.0.4"))
        .or_else(|| best(&|choice| choice.is("text/*")))
        .or_else(|| best(&|choice| choice.is("*/*")));
    match open_metrics {
        Some(quality) if quality > 0 && quality >= text.unwrap_or(0) => Format::OpenMetrics,
        _ => Format::Text,
    }
}

/// Whether gzip is asked for by name, and nothing else is liked better.
fn gzip(accept_encoding: &str) -> bool {
    let best = |names: &[&str]| {
        choices(accept_encoding)
            .filter(|choice| names.iter().any(|name| choice.is(name)))
            .map(|choice| choice.quality)
            .max()
    };
    best(&["gzip", "x-gzip"]).is_some_and(|quality| quality > 0 && quality >= best(&["identity"]).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_given_to_those_who_like_it_best() {
        for accept in [
            // Prometheus 2, and 3 with its names.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text",
            "application/openmetrics-text; version=\"1.0.0\"; charset=utf-8",
            "APPLICATION/OpenMetrics-Text;Version=1.0.0, */*",
            "text/html,application/openmetrics-text",
            "text/*;q=0.9, application/openmetrics-text",
            "*/*, application/openmetrics-text;q=0.001, text/plain;q=0",
            "application/openmetrics-text;q=nonsense",
        ] {
            assert_eq!(format(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn text_is_given_to_everybody_else() {
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.9",
            "application/openmetrics-text;version=1.0.0;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0.4,text/*",
            "application/openmetrics-text;q=0.4,*/*;q=0.5",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,*/*;q=0.1",
            ";;,=;q==,,",
        ] {
            assert_eq!(format(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_when_it_is_asked_for_by_name() {
        for accept in ["gzip", "deflate, gzip;q=0.5", "x-gzip", "GZIP;q=1.0, identity;q=0.5", "br, gzip, *;q=0"] {
            assert!(gzip(accept), "{accept}");
        }
        for accept in
            ["", "*", "identity", "gzip;q=0", "gzip; q=0.000", "gzip;q=0.4, identity;q=0.5", "deflate", "zgzip"]
        {
            assert!(!gzip(accept), "{accept}");
        }
    }

    #[test]
    fn a_header_that_comes_twice_is_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(Wish::of(&headers), Wish::default());
        for value in ["text/plain;q=0.5", "application/openmetrics-text"] {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        headers.append(ACCEPT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(Wish::of(&headers), Wish { format: Format::OpenMetrics, gzip: true });
    }
}
