//! Parser of single lines in both formats.

use std::collections::BTreeMap;

/// The labels of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// A series and its value.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
    pub(crate) exemplar: Option<Exemplar>,
}

/// An exemplar of a bucket or counter.
#[derive(Clone, Debug)]
pub(crate) struct Exemplar {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
    pub(crate) timestamp: Option<f64>,
}

pub(crate) type Parsed<T> = Result<T, String>;

/// The unparsed rest of a line.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn expect(&mut self, text: &str) -> Parsed<()> {
        self.0 = self.0.strip_prefix(text).ok_or_else(|| format!("expected {text:?} before {:?}", self.0))?;
        Ok(())
    }

    fn take(&mut self, text: &str) -> bool {
        self.expect(text).is_ok()
    }

    fn name(&mut self, colons: bool) -> Parsed<&'a str> {
        let is_part = |(at, c): (usize, char)| {
            c.is_ascii_alphabetic() || c == '_' || (colons && c == ':') || (at > 0 && c.is_ascii_digit())
        };
        let end = self.0.char_indices().find(|part| !is_part(*part)).map_or(self.0.len(), |(end, _)| end);
        if end == 0 {
            return Err(format!("expected a name before {:?}", self.0));
        }
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(name)
    }

    /// Parses a quoted string and its escapes.
    fn quoted(&mut self) -> Parsed<String> {
        self.expect("\"")?;
        let (text, end) = unescaped(self.0, true)?;
        self.0 = &self.0[end..];
        self.expect("\"")?;
        Ok(text)
    }

    /// Parses `{name="value",…}`, or nothing.
    fn labels(&mut self) -> Parsed<Labels> {
        let mut labels = Labels::new();
        if !self.take("{") || self.take("}") {
            return Ok(labels);
        }
        loop {
            let name = self.name(false)?.to_owned();
            self.expect("=")?;
            let value = self.quoted()?;
            if labels.insert(name.clone(), value).is_some() {
                return Err(format!("duplicate label {name}"));
            }
            if self.take("}") {
                return Ok(labels);
            }
            self.expect(",")?;
        }
    }

    fn number(&mut self) -> Parsed<f64> {
        let end = self.0.find(' ').unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        number(text)
    }

    fn end(self) -> Parsed<()> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("unexpected {:?} at the end", self.0)) }
    }
}

/// Removes escapes up to a quote, or to the end where quotes are not special. Returns the text and the position of the
/// end.
pub(crate) fn unescaped(text: &str, quotes: bool) -> Parsed<(String, usize)> {
    let mut read = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if quotes => return Ok((read, at)),
            '\\' => read.push(match chars.next() {
                Some((_, '\\')) => '\\',
                Some((_, 'n')) => '\n',
                Some((_, '"')) if quotes => '"',
                other => return Err(format!("invalid escape of {other:?}")),
            }),
            c => read.push(c),
        }
    }
    Ok((read, text.len()))
}

/// Parses a number, without the words that only Rust accepts.
pub(crate) fn number(text: &str) -> Parsed<f64> {
    let has_word = text.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E'));
    if has_word && !matches!(text, "NaN" | "+Inf" | "-Inf") {
        return Err(format!("{text:?} is not a number"));
    }
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// Parses `name{label="value"} 1`, and in OpenMetrics ` # {trace_id="…"} 0.5 1700000000.123`.
pub(crate) fn sample(line: &str, open_metrics: bool) -> Parsed<Sample> {
    let mut rest = Cursor(line);
    let name = rest.name(true)?.to_owned();
    let labels = rest.labels()?;
    rest.expect(" ")?;
    let value = rest.number()?;
    let exemplar = if open_metrics && rest.take(" # ") { Some(exemplar(&mut rest)?) } else { None };
    rest.end()?;
    Ok(Sample { name, labels, value, exemplar })
}

fn exemplar(rest: &mut Cursor<'_>) -> Parsed<Exemplar> {
    if !rest.0.starts_with('{') {
        return Err("an exemplar has no labels".to_owned());
    }
    let labels = rest.labels()?;
    let chars: usize = labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    if chars > 128 {
        return Err(format!("an exemplar's labels have {chars} characters"));
    }
    rest.expect(" ")?;
    let value = rest.number()?;
    let timestamp = if rest.take(" ") { Some(rest.number()?) } else { None };
    Ok(Exemplar { labels, value, timestamp })
}
