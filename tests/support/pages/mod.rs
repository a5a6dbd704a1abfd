//! A strict parser of both exposition formats, which checks what their specifications demand.
#![allow(dead_code, reason = "no test binary uses all of it")]

pub(crate) mod lines;

use std::collections::{BTreeMap, BTreeSet};

use poolscope::exporter::Format;

use self::lines::{Labels, Parsed, Sample, number, sample, unescaped};

/// A metric family, as declared on the page.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

/// A series in both formats: its name, and its labels with normalized bounds.
pub(crate) type Series = (String, Labels);

/// Parses a page; panics if it is invalid.
#[track_caller]
pub(crate) fn read(format: Format, page: &str) -> Vec<Family> {
    parse(format, page).unwrap_or_else(|error| panic!("{error} in\n{page}"))
}

/// Returns all samples by series. The parser has rejected duplicates.
pub(crate) fn samples(families: &[Family]) -> BTreeMap<Series, f64> {
    families.iter().flat_map(|family| &family.samples).map(|sample| (series(sample), sample.value)).collect()
}

fn series(sample: &Sample) -> Series {
    let mut labels = sample.labels.clone();
    for bound in ["le", "quantile"] {
        // One format writes `1`, the other `1.0`.
        if let Some(value) = labels.get_mut(bound)
            && let Ok(number) = number(value)
        {
            *value = number.to_string();
        }
    }
    (sample.name.clone(), labels)
}

pub(crate) fn parse(format: Format, page: &str) -> Parsed<Vec<Family>> {
    let open_metrics = format == Format::OpenMetrics;
    let page = match page.strip_suffix("# EOF\n") {
        Some(page) if open_metrics => page,
        None if !open_metrics => page,
        _ => return Err("`# EOF` is missing, or not allowed".to_owned()),
    };
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line is not terminated".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    for line in page.split_terminator('\n') {
        let read = if line.starts_with('#') {
            declaration(&mut families, line, open_metrics)
        } else {
            sample(line, open_metrics).and_then(|sample| add(&mut families, sample, open_metrics))
        };
        read.map_err(|error| format!("{error}: {line}"))?;
    }
    for family in &families {
        check(family, open_metrics).map_err(|error| format!("{error} ({})", family.name))?;
    }
    check_names(&families, open_metrics)?;
    Ok(families)
}

fn declaration(families: &mut Vec<Family>, line: &str, open_metrics: bool) -> Parsed<()> {
    let mut words = line.splitn(4, ' ');
    let (Some("#"), Some(word), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err("neither a known comment nor a sample".to_owned());
    };
    let rest = words.next().unwrap_or_default();
    if families.last().is_none_or(|last| last.name != name) {
        if families.iter().any(|family| family.name == name) {
            return Err("duplicate family".to_owned());
        }
        families.push(Family {
            name: name.to_owned(),
            kind: String::new(),
            unit: None,
            help: None,
            samples: Vec::new(),
        });
    }
    let family = families.last_mut().ok_or("no family")?;
    if !family.samples.is_empty() {
        return Err("declared after its samples".to_owned());
    }
    let known = match word {
        "TYPE" => !std::mem::replace(&mut family.kind, rest.to_owned()).is_empty(),
        "UNIT" if open_metrics => family.unit.replace(rest.to_owned()).is_some(),
        "HELP" => family.help.replace(help(rest, open_metrics)?).is_some(),
        _ => return Err("unknown declaration".to_owned()),
    };
    if known { Err("declared twice".to_owned()) } else { Ok(()) }
}

fn help(text: &str, open_metrics: bool) -> Parsed<String> {
    let (help, end) = unescaped(text, open_metrics)?;
    if end < text.len() { Err("unescaped quote".to_owned()) } else { Ok(help) }
}

/// Returns the suffixes of sample names for a type.
fn suffixes(kind: &str, open_metrics: bool) -> &'static [&'static str] {
    match kind {
        "counter" if open_metrics => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["", "_sum", "_count"],
        _ => &[""],
    }
}

fn add(families: &mut [Family], sample: Sample, open_metrics: bool) -> Parsed<()> {
    let family = families.last_mut().ok_or("sample without a family")?;
    let suffix = sample.name.strip_prefix(&family.name).ok_or("sample in another family")?;
    if !suffixes(&family.kind, open_metrics).contains(&suffix) {
        return Err(format!("{suffix:?} is not a suffix of a {}", family.kind));
    }
    if sample.exemplar.is_some() && !matches!(suffix, "_bucket" | "_total") {
        return Err("exemplar not allowed here".to_owned());
    }
    family.samples.push(sample);
    Ok(())
}

fn check(family: &Family, open_metrics: bool) -> Parsed<()> {
    let kinds: &[&str] = match open_metrics {
        true => &["counter", "gauge", "histogram", "summary", "unknown"],
        false => &["counter", "gauge", "histogram", "summary", "untyped"],
    };
    if !kinds.contains(&family.kind.as_str()) {
        return Err(format!("{:?} is not a type", family.kind));
    }
    if family.samples.is_empty() {
        return Err("family without samples".to_owned());
    }
    if family.unit.as_ref().is_some_and(|unit| !family.name.ends_with(&format!("_{unit}"))) {
        return Err("the name does not end in its unit".to_owned());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = family.samples.iter().map(series).find(|series| !seen.insert(series.clone())) {
        return Err(format!("duplicate series {twice:?}"));
    }
    match family.kind.as_str() {
        "counter" if open_metrics => {
            let bad = family.samples.iter().find(|sample| sample.value.is_nan() || sample.value < 0.0);
            bad.map_or(Ok(()), |sample| Err(format!("a counter is {}", sample.value)))
        }
        "histogram" => check_histograms(family, open_metrics),
        _ => Ok(()),
    }
}

/// Checks that each histogram is contiguous, that its buckets are ordered and cumulative, and that the last one is
/// `+Inf` and equals the count.
fn check_histograms(family: &Family, open_metrics: bool) -> Parsed<()> {
    let of = |sample: &Sample| {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        labels
    };
    let mut seen = BTreeSet::new();
    for histogram in family.samples.chunk_by(|one, next| of(one) == of(next)) {
        if !seen.insert(of(&histogram[0])) {
            return Err("a histogram is split".to_owned());
        }
        let buckets = &histogram[..histogram.len().saturating_sub(2)];
        let (mut bound, mut count) = (f64::NEG_INFINITY, 0.0);
        for bucket in buckets {
            let le = bucket.labels.get("le").ok_or("a bucket has no bound")?;
            let next = number(le)?;
            if next <= bound || bucket.value < count || !bucket.name.ends_with("_bucket") {
                return Err("buckets are not ordered or not cumulative".to_owned());
            }
            if open_metrics && next.is_finite() && !le.contains(['.', 'e']) {
                return Err(format!("the bound {le:?} has no fraction"));
            }
            if let Some(exemplar) = &bucket.exemplar
                && !(exemplar.value > bound && exemplar.value <= next && bucket.value > count)
            {
                return Err(format!("an exemplar of {} between {bound} and {next}", exemplar.value));
            }
            (bound, count) = (next, bucket.value);
        }
        let [sum, total] = &histogram[buckets.len()..] else { return Err("an incomplete histogram".to_owned()) };
        let named = sum.name.ends_with("_sum") && total.name.ends_with("_count");
        if bound != f64::INFINITY || total.value != count || !named {
            return Err("the last bucket, sum and count do not agree".to_owned());
        }
    }
    Ok(())
}

/// Checks that no sample name belongs to two families. The text format has no suffixes; only family names count there.
fn check_names(families: &[Family], open_metrics: bool) -> Parsed<()> {
    let mut owners = BTreeMap::new();
    for family in families {
        let names = suffixes(&family.kind, open_metrics).iter().map(|suffix| format!("{}{suffix}", family.name));
        for name in names.chain([family.name.clone()]).collect::<BTreeSet<_>>() {
            if let Some(other) = owners.insert(name.clone(), &family.name)
                && open_metrics
            {
                return Err(format!("{name} belongs to both {other} and {}", family.name));
            }
        }
    }
    Ok(())
}
