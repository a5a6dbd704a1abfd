//! A page of either format, read by what its specification says: what belongs together, and what has to hold of it.
#![allow(dead_code, reason = "no test binary needs all of it")]

pub(crate) mod lines;

use std::collections::{BTreeMap, BTreeSet};

use poolscope::exporter::Format;

use self::lines::{Labels, Parsed, Sample, number, sample, unescaped};

/// The samples under one name, as the page declares them.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: Option<String>,
    pub(crate) samples: Vec<Sample>,
}

/// A series as both formats know it: its name and labels, bounds as numbers.
pub(crate) type Series = (String, Labels);

/// Reads a page; panics with the page if anything is wrong with it.
#[track_caller]
pub(crate) fn read(format: Format, page: &str) -> Vec<Family> {
    parse(format, page).unwrap_or_else(|complaint| panic!("{complaint} in\n{page}"))
}

/// All samples, by series. That none comes twice is known.
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
        _ => return Err("`# EOF` where it does not belong, or none where it does".to_owned()),
    };
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    let mut families: Vec<Family> = Vec::new();
    for line in page.split_terminator('\n') {
        let read = if line.starts_with('#') {
            declaration(&mut families, line, open_metrics)
        } else {
            sample(line, open_metrics).and_then(|sample| add(&mut families, sample, open_metrics))
        };
        read.map_err(|complaint| format!("{complaint}: {line}"))?;
    }
    for family in &families {
        check(family, open_metrics).map_err(|complaint| format!("{complaint} ({})", family.name))?;
    }
    check_names(&families, open_metrics)?;
    Ok(families)
}

fn declaration(families: &mut Vec<Family>, line: &str, open_metrics: bool) -> Parsed<()> {
    let mut words = line.splitn(4, ' ');
    let (Some("#"), Some(word), Some(name)) = (words.next(), words.next(), words.next()) else {
        return Err("neither a comment that is known nor a sample".to_owned());
    };
    let rest = words.next().unwrap_or_default();
    if families.last().is_none_or(|last| last.name != name) {
        if families.iter().any(|family| family.name == name) {
            return Err("a family comes twice".to_owned());
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
        _ => return Err("a word that is not known".to_owned()),
    };
    if known { Err("declared twice".to_owned()) } else { Ok(()) }
}

fn help(text: &str, open_metrics: bool) -> Parsed<String> {
    let (help, end) = unescaped(text, open_metrics)?;
    if end < text.len() { Err("a quote that is not escaped".to_owned()) } else { Ok(help) }
}

/// The endings of the samples of a family of this kind.
fn endings(kind: &str, open_metrics: bool) -> &'static [&'static str] {
    match kind {
        "counter" if open_metrics => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        "summary" => &["", "_sum", "_count"],
        _ => &[""],
    }
}

fn add(families: &mut [Family], sample: Sample, open_metrics: bool) -> Parsed<()> {
    let family = families.last_mut().ok_or("a sample without a family")?;
    let ending = sample.name.strip_prefix(&family.name).ok_or("a sample in another's family")?;
    if !endings(&family.kind, open_metrics).contains(&ending) {
        return Err(format!("{ending:?} is no ending of a {}", family.kind));
    }
    if sample.exemplar.is_some() && !matches!(ending, "_bucket" | "_total") {
        return Err("an exemplar where there may be none".to_owned());
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
        return Err(format!("{:?} is no type", family.kind));
    }
    if family.samples.is_empty() {
        return Err("a family without samples".to_owned());
    }
    if family.unit.as_ref().is_some_and(|unit| !family.name.ends_with(&format!("_{unit}"))) {
        return Err("a name that does not end in its unit".to_owned());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = family.samples.iter().map(series).find(|series| !seen.insert(series.clone())) {
        return Err(format!("{twice:?} comes twice"));
    }
    match family.kind.as_str() {
        "counter" if open_metrics => {
            let bad = family.samples.iter().find(|sample| sample.value.is_nan() || sample.value < 0.0);
            bad.map_or(Ok(()), |sample| Err(format!("a counter says {}", sample.value)))
        }
        "histogram" => check_histograms(family, open_metrics),
        _ => Ok(()),
    }
}

/// Each stands together, its buckets in order; the last one has no bound, and counts all.
fn check_histograms(family: &Family, open_metrics: bool) -> Parsed<()> {
    let of = |sample: &Sample| {
        let mut labels = sample.labels.clone();
        labels.remove("le");
        labels
    };
    let mut seen = BTreeSet::new();
    for histogram in family.samples.chunk_by(|one, next| of(one) == of(next)) {
        if !seen.insert(of(&histogram[0])) {
            return Err("a histogram in two places".to_owned());
        }
        let buckets = &histogram[..histogram.len().saturating_sub(2)];
        let (mut bound, mut count) = (f64::NEG_INFINITY, 0.0);
        for bucket in buckets {
            let le = bucket.labels.get("le").ok_or("a bucket without a bound")?;
            let next = number(le)?;
            if next <= bound || bucket.value < count || !bucket.name.ends_with("_bucket") {
                return Err("buckets that do not rise".to_owned());
            }
            if open_metrics && next.is_finite() && !le.contains(['.', 'e']) {
                return Err(format!("the bound {le:?}, which has no fraction"));
            }
            if let Some(exemplar) = &bucket.exemplar
                && !(exemplar.value > bound && exemplar.value <= next && bucket.value > count)
            {
                return Err(format!("an example of {} between {bound} and {next}", exemplar.value));
            }
            (bound, count) = (next, bucket.value);
        }
        let [sum, total] = &histogram[buckets.len()..] else { return Err("half a histogram".to_owned()) };
        let named = sum.name.ends_with("_sum") && total.name.ends_with("_count");
        if bound != f64::INFINITY || total.value != count || !named {
            return Err("a histogram that does not end with what all of it comes to".to_owned());
        }
    }
    Ok(())
}

/// No sample's name may belong to two families. (In the text format, which knows no endings, only the names count.)
fn check_names(families: &[Family], open_metrics: bool) -> Parsed<()> {
    let mut owners = BTreeMap::new();
    for family in families {
        let names = endings(&family.kind, open_metrics).iter().map(|ending| format!("{}{ending}", family.name));
        for name in names.chain([family.name.clone()]).collect::<BTreeSet<_>>() {
            if let Some(other) = owners.insert(name.clone(), &family.name)
                && open_metrics
            {
                return Err(format!("{name} belongs to {other} and to {}", family.name));
            }
        }
    }
    Ok(())
}
