//! Checks rule expressions against the catalogue, without samples.
//!
//! The labels of an expression are derived from those of its metrics, operator by operator. That finds misspelt names, operands
//! that never match, and sums that drop labels they must keep.

use std::collections::{BTreeMap, BTreeSet};

use poolscope::telemetry::catalogue::{Kind, METRICS, POOL_LABEL};
use promql_parser::label::Matchers;
use promql_parser::parser::{self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector};

pub(crate) type Labels = BTreeSet<String>;

/// Labels that Prometheus adds to each series.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];
/// Labels that users may add to the instances of a job, and that sums over instances must drop.
const INSTANCE_LABELS: [&str; 3] = ["pod", "node", "host"];

pub(crate) fn labels(names: &[&str]) -> Labels {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The series that expressions may select.
#[derive(Debug)]
pub(crate) struct KnownSeries {
    series: BTreeMap<String, (Type, Labels)>,
    /// The shortest valid range, in seconds.
    min_range: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    Counter,
    Gauge,
}

impl KnownSeries {
    /// Returns the metrics of the catalogue and of Prometheus itself.
    pub(crate) fn new(min_range: u64) -> Self {
        let mut known = Self { series: BTreeMap::new(), min_range };
        for external in ["up", "process_start_time_seconds"] {
            known.add(external, Type::Gauge, labels(&TARGET_LABELS));
        }
        for metric in METRICS {
            let mut metric_labels = labels(metric.labels);
            metric_labels.extend(labels(&TARGET_LABELS));
            if metric.has_pool_label() {
                metric_labels.insert(POOL_LABEL.to_owned());
            }
            match metric.kind {
                Kind::Counter => known.add(metric.name, Type::Counter, metric_labels),
                Kind::Gauge => known.add(metric.name, Type::Gauge, metric_labels),
                Kind::Histogram => {
                    for part in ["sum", "count"] {
                        known.add(&format!("{}_{part}", metric.name), Type::Counter, metric_labels.clone());
                    }
                    metric_labels.insert("le".to_owned());
                    known.add(&format!("{}_bucket", metric.name), Type::Counter, metric_labels);
                }
                other => panic!("{}: unknown kind {other:?}", metric.name),
            }
        }
        known
    }

    fn add(&mut self, name: &str, series_type: Type, labels: Labels) {
        assert!(self.series.insert(name.to_owned(), (series_type, labels)).is_none(), "{name} is defined twice");
    }

    /// Adds a recorded series.
    pub(crate) fn record(&mut self, name: &str, expression: &str) {
        let labels = self.labels(expression).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        self.add(name, Type::Gauge, labels);
    }

    /// Returns the labels of an expression's samples.
    pub(crate) fn labels(&self, expression: &str) -> Result<Labels, String> {
        let parsed = parser::parse(expression).map_err(|problem| format!("{expression}: {problem}"))?;
        self.expression_labels(&parsed).map_err(|problem| format!("{problem}, in {expression}"))
    }

    /// Checks only the selectors of an expression, which may have any form.
    pub(crate) fn check_selectors(&self, expression: &str) -> Result<(), String> {
        let parsed = parser::parse(expression).map_err(|problem| format!("{expression}: {problem}"))?;
        self.walk(&parsed).map_err(|problem| format!("{problem}, in {expression}"))
    }

    fn walk(&self, expression: &Expr) -> Result<(), String> {
        match expression {
            Expr::VectorSelector(selector) => self.selected(selector).map(drop),
            Expr::MatrixSelector(range) => self.selected(&range.vs).map(drop),
            Expr::Paren(inner) => self.walk(&inner.expr),
            Expr::Aggregate(aggregate) => self.walk(&aggregate.expr),
            Expr::Binary(binary) => self.walk(&binary.lhs).and_then(|()| self.walk(&binary.rhs)),
            Expr::Call(call) => call.args.args.iter().try_for_each(|argument| self.walk(argument)),
            _ => Ok(()),
        }
    }

    fn expression_labels(&self, expression: &Expr) -> Result<Labels, String> {
        match expression {
            Expr::Paren(inner) => self.expression_labels(&inner.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::VectorSelector(selector) => Ok(self.selected(selector)?.1),
            Expr::Call(call) => self.called(call),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate),
            Expr::Binary(binary) => self.combined(binary),
            other => Err(format!("unsupported expression {other}")),
        }
    }

    fn selected(&self, selector: &VectorSelector) -> Result<(Type, Labels), String> {
        let name = selector.name.as_deref().ok_or("a selector without a name")?;
        let (series_type, labels) = self.series.get(name).ok_or_else(|| format!("unknown series {name}"))?;
        let Matchers { matchers, or_matchers, .. } = &selector.matchers;
        if !or_matchers.is_empty() {
            return Err("`or` between matchers is not portable".to_owned());
        }
        match matchers.iter().find(|matcher| !labels.contains(&matcher.name)) {
            None => Ok((*series_type, labels.clone())),
            Some(matcher) => Err(format!("{name} has no label {}", matcher.name)),
        }
    }

    fn called(&self, call: &Call) -> Result<Labels, String> {
        let name = call.func.name;
        let arguments = &call.args.args;
        match (name, &arguments[..]) {
            ("absent", [argument]) => self.expression_labels(argument).map(|_| Labels::new()),
            ("sort_desc", [argument]) | ("clamp_max", [argument, _]) => self.expression_labels(argument),
            ("histogram_quantile", [_, argument]) => {
                let mut labels = self.expression_labels(argument)?;
                if labels.remove("le") { Ok(labels) } else { Err("a quantile of a series without buckets".to_owned()) }
            }
            (_, [argument]) => {
                let Expr::MatrixSelector(range) = &**argument else { return Err(format!("{name} without a range")) };
                if range.range.as_secs() < self.min_range {
                    return Err(format!("the range {:?} is shorter than four scrapes", range.range));
                }
                let (series_type, labels) = self.selected(&range.vs)?;
                let fits = match name {
                    "rate" | "increase" => series_type == Type::Counter,
                    "last_over_time" | "max_over_time" => series_type == Type::Gauge,
                    _ => return Err(format!("unsupported function {name}")),
                };
                if fits { Ok(labels) } else { Err(format!("{name} is invalid for {:?}", range.vs.name)) }
            }
            _ => Err(format!("unsupported function {name}")),
        }
    }

    fn aggregated(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let operator = aggregate.op.to_string();
        if !["sum", "count", "max", "min", "avg"].contains(&&*operator) {
            return Err(format!("unsupported aggregation {operator}"));
        }
        let without = match &aggregate.modifier {
            Some(LabelModifier::Exclude(without)) => without,
            // To be matched by pool, whichever target reports it.
            Some(LabelModifier::Include(by)) if by.labels == [POOL_LABEL] => {
                self.expression_labels(&aggregate.expr)?;
                return Ok(labels(&[POOL_LABEL]));
            }
            _ => return Err(format!("{operator} without `without` drops labels of the target")),
        };
        let mut labels = self.expression_labels(&aggregate.expr)?;
        for label in &without.labels {
            if label == "job" {
                return Err("aggregation over jobs".to_owned());
            }
            if !labels.remove(label) && !INSTANCE_LABELS.contains(&&**label) {
                return Err(format!("{operator} drops the unknown label {label}"));
            }
        }
        Ok(labels)
    }

    fn combined(&self, binary: &BinaryExpr) -> Result<Labels, String> {
        let operator = binary.op.to_string();
        let (left, right) = (self.expression_labels(&binary.lhs)?, self.expression_labels(&binary.rhs)?);
        if binary.return_bool() {
            return Err("a comparison with bool does not filter".to_owned());
        }
        let (scalar_left, scalar_right) = (is_scalar(&binary.lhs), is_scalar(&binary.rhs));
        if operator == "/" && !scalar_right && !is_guarded(&binary.rhs) {
            return Err(format!("{} may be zero", binary.rhs));
        }
        if scalar_left || scalar_right {
            return Ok(if scalar_left { right } else { left });
        }
        let matching = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
        match matching {
            // `absent` has no labels.
            None if operator == "or" && right.is_empty() => Ok(left),
            None if left == right => Ok(left),
            None => Err(format!("{operator} between {left:?} and {right:?} never matches")),
            Some(LabelModifier::Include(on)) if matches!(&*operator, "and" | "unless") => {
                let on: Labels = on.labels.iter().cloned().collect();
                if on == labels(&TARGET_LABELS)
                    || on == labels(&[POOL_LABEL])
                    || on == labels(&["job", "instance", POOL_LABEL])
                {
                    Ok(left)
                } else {
                    Err(format!("{on:?} are not the labels of a target or a pool"))
                }
            }
            Some(LabelModifier::Include(on)) if on.labels == [POOL_LABEL] && right == labels(&[POOL_LABEL]) => Ok(left),
            Some(_) => Err(format!("{operator} with `on` or `ignoring`")),
        }
    }
}

/// Returns whether an expression is a number.
fn is_scalar(expression: &Expr) -> bool {
    match expression {
        Expr::NumberLiteral(_) => true,
        Expr::Paren(inner) => is_scalar(&inner.expr),
        Expr::Binary(binary) => is_scalar(&binary.lhs) && is_scalar(&binary.rhs),
        _ => false,
    }
}

/// Returns whether an expression has the form `(… > number)`, with a number that is not negative.
fn is_guarded(expression: &Expr) -> bool {
    let Expr::Paren(inner) = expression else { return false };
    let Expr::Binary(binary) = &*inner.expr else { return false };
    binary.op.to_string() == ">" && matches!(&*binary.rhs, Expr::NumberLiteral(number) if number.val >= 0.0)
}

#[test]
fn invalid_expressions_are_rejected() {
    let known = KnownSeries::new(60);
    for (expression, problem) in [
        ("rate(poolscope_saturated_seconds_totl[5m])", "unknown series poolscope_saturated_seconds_totl"),
        ("db_client_connection_wait_time_seconds", "unknown series db_client_connection_wait_time_seconds"),
        ("poolscope_suspected_leaks{operation=\"a\"} > 0", "has no label operation"),
        ("rate(poolscope_suspected_leaks[5m])", "rate is invalid for"),
        ("rate(poolscope_saturated_seconds_total[30s])", "shorter than four scrapes"),
        ("sum by (job) (poolscope_suspected_leaks)", "without `without`"),
        ("sum(poolscope_suspected_leaks)", "without `without`"),
        ("sum without (job) (poolscope_suspected_leaks)", "aggregation over jobs"),
        ("sum without (operation) (poolscope_suspected_leaks)", "drops the unknown label operation"),
        ("topk without (job) (1, poolscope_suspected_leaks)", "unsupported aggregation topk"),
        ("poolscope_suspected_leaks / db_client_connection_max", "may be zero"),
        ("poolscope_suspected_leaks / (db_client_connection_max >= 0)", "may be zero"),
        ("poolscope_suspected_leaks / (up > 0)", "never matches"),
        ("poolscope_suspected_leaks / on (job) (db_client_connection_max > 0)", "with `on` or `ignoring`"),
        ("up and on (instance) poolscope_build_info", "not the labels of a target or a pool"),
        ("poolscope_suspected_leaks > bool 0", "does not filter"),
        ("histogram_quantile(0.9, rate(poolscope_saturated_seconds_total[5m]))", "without buckets"),
        ("poolscope_suspected_leaks >", "poolscope_suspected_leaks >: "),
    ] {
        let error = known.labels(expression).expect_err(expression);
        assert!(error.contains(problem), "{expression}: {error}");
    }
}
