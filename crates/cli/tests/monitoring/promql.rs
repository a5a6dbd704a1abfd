//! Expressions held to the catalogue: what they select must exist, and what they compare must be able to match.
//!
//! The labels of an expression are derived from the catalogue's, operator by operator. So a typing error in a label, two
//! sides that never match and a sum that loses what it must keep are found without a sample.

use std::collections::{BTreeMap, BTreeSet};

use poolscope::telemetry::catalogue::{Kind, METRICS, POOL_LABEL};
use promql_parser::label::Matchers;
use promql_parser::parser::{self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector};

pub(crate) type Labels = BTreeSet<String>;

/// What Prometheus itself gives each series.
const TARGET: [&str; 2] = ["job", "instance"];
/// What owners may give the instances of a job, so that a sum over these must be without it.
const OWNERS: [&str; 3] = ["pod", "node", "host"];

pub(crate) fn labels(names: &[&str]) -> Labels {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What can be selected.
#[derive(Debug)]
pub(crate) struct World {
    series: BTreeMap<String, (Shape, Labels)>,
    /// A range must be at least as many seconds long.
    shortest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Counter,
    Gauge,
}

impl World {
    /// The catalogue's metrics, and what Prometheus knows of its targets; a range has at least `shortest` seconds.
    pub(crate) fn new(shortest: u64) -> Self {
        let mut world = Self { series: BTreeMap::new(), shortest };
        for outside in ["up", "process_start_time_seconds"] {
            world.add(outside, Shape::Gauge, labels(&TARGET));
        }
        for metric in METRICS {
            let mut own = labels(metric.labels);
            own.extend(labels(&TARGET));
            if metric.is_of_a_pool() {
                own.insert(POOL_LABEL.to_owned());
            }
            match metric.kind {
                Kind::Counter => world.add(metric.name, Shape::Counter, own),
                Kind::Gauge => world.add(metric.name, Shape::Gauge, own),
                Kind::Histogram => {
                    for part in ["sum", "count"] {
                        world.add(&format!("{}_{part}", metric.name), Shape::Counter, own.clone());
                    }
                    own.insert("le".to_owned());
                    world.add(&format!("{}_bucket", metric.name), Shape::Counter, own);
                }
                other => panic!("{}: what is a {other:?}?", metric.name),
            }
        }
        world
    }

    fn add(&mut self, name: &str, shape: Shape, labels: Labels) {
        assert!(self.series.insert(name.to_owned(), (shape, labels)).is_none(), "{name} is there twice");
    }

    /// Adds what is recorded as `name`.
    pub(crate) fn record(&mut self, name: &str, expression: &str) {
        let labels = self.labels(expression).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        self.add(name, Shape::Gauge, labels);
    }

    /// The labels that the samples of an expression have.
    pub(crate) fn labels(&self, expression: &str) -> Result<Labels, String> {
        let parsed = parser::parse(expression).map_err(|problem| format!("{expression}: {problem}"))?;
        self.of(&parsed).map_err(|problem| format!("{problem}, in {expression}"))
    }

    /// Holds only what an expression selects to what there is: people may ask as they like.
    pub(crate) fn selects(&self, expression: &str) -> Result<(), String> {
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

    fn of(&self, expression: &Expr) -> Result<Labels, String> {
        match expression {
            Expr::Paren(inner) => self.of(&inner.expr),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
            Expr::VectorSelector(selector) => Ok(self.selected(selector)?.1),
            Expr::Call(call) => self.called(call),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate),
            Expr::Binary(binary) => self.combined(binary),
            other => Err(format!("{other} is not expected")),
        }
    }

    fn selected(&self, selector: &VectorSelector) -> Result<(Shape, Labels), String> {
        let name = selector.name.as_deref().ok_or("a selector without a name")?;
        let (shape, labels) = self.series.get(name).ok_or_else(|| format!("there is no {name}"))?;
        let Matchers { matchers, or_matchers, .. } = &selector.matchers;
        if !or_matchers.is_empty() {
            return Err("or between matchers is understood by few".to_owned());
        }
        match matchers.iter().find(|matcher| !labels.contains(&matcher.name)) {
            None => Ok((*shape, labels.clone())),
            Some(matcher) => Err(format!("{name} has no label {}", matcher.name)),
        }
    }

    fn called(&self, call: &Call) -> Result<Labels, String> {
        let name = call.func.name;
        let arguments = &call.args.args;
        match (name, &arguments[..]) {
            ("absent", [of]) => self.of(of).map(|_| Labels::new()),
            ("sort_desc", [of]) | ("clamp_max", [of, _]) => self.of(of),
            ("histogram_quantile", [_, of]) => {
                let mut labels = self.of(of)?;
                if labels.remove("le") { Ok(labels) } else { Err("a quantile of what has no buckets".to_owned()) }
            }
            (_, [of]) => {
                let Expr::MatrixSelector(range) = &**of else { return Err(format!("{name} of what is no range")) };
                if range.range.as_secs() < self.shortest {
                    return Err(format!("a range of {:?} is shorter than four scrapes", range.range));
                }
                let (shape, labels) = self.selected(&range.vs)?;
                let fits = match name {
                    "rate" | "increase" => shape == Shape::Counter,
                    "last_over_time" => shape == Shape::Gauge,
                    _ => return Err(format!("{name} is not expected")),
                };
                if fits { Ok(labels) } else { Err(format!("{name} does not suit {:?}", range.vs.name)) }
            }
            _ => Err(format!("{name} is not expected")),
        }
    }

    fn aggregated(&self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let operator = aggregate.op.to_string();
        if !["sum", "count", "max", "min", "avg"].contains(&&*operator) {
            return Err(format!("{operator} is not expected"));
        }
        let Some(LabelModifier::Exclude(without)) = &aggregate.modifier else {
            return Err(format!("{operator} without `without`, so that its owners' labels are lost"));
        };
        let mut labels = self.of(&aggregate.expr)?;
        for label in &without.labels {
            if label == "job" {
                return Err("jobs are summed up".to_owned());
            }
            if !labels.remove(label) && !OWNERS.contains(&&**label) {
                return Err(format!("{operator} is without {label}, which is not there"));
            }
        }
        Ok(labels)
    }

    fn combined(&self, binary: &BinaryExpr) -> Result<Labels, String> {
        let operator = binary.op.to_string();
        let (left, right) = (self.of(&binary.lhs)?, self.of(&binary.rhs)?);
        if binary.return_bool() {
            return Err("a comparison must filter".to_owned());
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
            // What says that nothing is there has no labels.
            None if operator == "or" && right.is_empty() => Ok(left),
            None if left == right => Ok(left),
            None => Err(format!("{operator} between {left:?} and {right:?} never matches")),
            Some(LabelModifier::Include(on)) if matches!(&*operator, "and" | "unless") => {
                let on: Labels = on.labels.iter().cloned().collect();
                if on == labels(&TARGET) { Ok(left) } else { Err(format!("on {on:?} is not a target")) }
            }
            Some(_) => Err(format!("{operator} with a matching of its own")),
        }
    }
}

/// Whether it is a number, however it is written.
fn is_scalar(expression: &Expr) -> bool {
    match expression {
        Expr::NumberLiteral(_) => true,
        Expr::Paren(inner) => is_scalar(&inner.expr),
        Expr::Binary(binary) => is_scalar(&binary.lhs) && is_scalar(&binary.rhs),
        _ => false,
    }
}

/// Whether it is `(… > 0)`.
fn is_guarded(expression: &Expr) -> bool {
    let Expr::Paren(inner) = expression else { return false };
    let Expr::Binary(binary) = &*inner.expr else { return false };
    binary.op.to_string() == ">" && matches!(&*binary.rhs, Expr::NumberLiteral(number) if number.val == 0.0)
}

#[test]
fn what_breaks_a_rule_is_found() {
    let world = World::new(60);
    for (expression, problem) in [
        ("rate(poolscope_saturated_seconds_totl[5m])", "there is no poolscope_saturated_seconds_totl"),
        ("db_client_connection_wait_time_seconds", "there is no db_client_connection_wait_time_seconds"),
        ("poolscope_suspected_leaks{operation=\"a\"} > 0", "has no label operation"),
        ("rate(poolscope_suspected_leaks[5m])", "rate does not suit"),
        ("rate(poolscope_saturated_seconds_total[30s])", "shorter than four scrapes"),
        ("sum by (job) (poolscope_suspected_leaks)", "without `without`"),
        ("sum(poolscope_suspected_leaks)", "without `without`"),
        ("sum without (job) (poolscope_suspected_leaks)", "jobs are summed up"),
        ("sum without (operation) (poolscope_suspected_leaks)", "is without operation, which is not there"),
        ("topk without (job) (1, poolscope_suspected_leaks)", "topk is not expected"),
        ("poolscope_suspected_leaks / db_client_connection_max", "may be zero"),
        ("poolscope_suspected_leaks / (db_client_connection_max >= 0)", "may be zero"),
        ("poolscope_suspected_leaks / (up > 0)", "never matches"),
        ("poolscope_suspected_leaks / on (job) (db_client_connection_max > 0)", "with a matching of its own"),
        ("up and on (instance) poolscope_build_info", "is not a target"),
        ("poolscope_suspected_leaks > bool 0", "a comparison must filter"),
        ("histogram_quantile(0.9, rate(poolscope_saturated_seconds_total[5m]))", "no buckets"),
        ("poolscope_suspected_leaks >", "poolscope_suspected_leaks >: "),
    ] {
        let found = world.labels(expression).expect_err(expression);
        assert!(found.contains(problem), "{expression}: {found}");
    }
}
