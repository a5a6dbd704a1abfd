//! Parses queries: their selectors, and the labels of their results.

use std::collections::BTreeSet;
use std::time::Duration;

use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector, token};

use super::known_series::{Kind, KnownSeries, known};

/// The value of Grafana's `$__rate_interval`, different from any literal range.
pub(super) const RATE_INTERVAL: Duration = Duration::from_secs(4 * 60 + 56);

/// The functions for counters.
const COUNTER_FUNCTIONS: [&str; 3] = ["rate", "increase", "irate"];

/// A selector and the function around it.
#[derive(Debug)]
pub(super) struct Selector {
    pub(super) name: String,
    pub(super) known: KnownSeries,
    pub(super) matchers: Vec<String>,
    /// The function of its range, and the range.
    pub(super) range_function: Option<(String, Duration)>,
    /// Whether only the number of series matters.
    pub(super) counted: bool,
}

impl Selector {
    /// Returns whether a counter function is applied.
    pub(super) fn is_rate(&self) -> bool {
        self.range_function.as_ref().is_some_and(|(function, _)| COUNTER_FUNCTIONS.contains(&function.as_str()))
    }
}

/// Parses a query, with values for Grafana's variables.
pub(super) fn parse(query: &str) -> Result<Expr, String> {
    let query = query.replace("$__rate_interval", "4m56s").replace("$slots", "97");
    parser::parse(&query)
}

/// Returns all selectors of an expression.
pub(super) fn selectors(expression: &Expr) -> Vec<Selector> {
    let mut found = Vec::new();
    walk(expression, None, false, &mut found);
    found
}

fn walk(expression: &Expr, function: Option<&str>, counted: bool, found: &mut Vec<Selector>) {
    match expression {
        Expr::VectorSelector(selector) => found.push(resolve(selector, None, counted)),
        Expr::MatrixSelector(selector) => {
            found.push(resolve(&selector.vs, Some((function.unwrap().to_owned(), selector.range)), counted));
        }
        Expr::Aggregate(aggregate) => {
            if let Some(parameter) = &aggregate.param {
                walk(parameter, None, false, found);
            }
            walk(&aggregate.expr, None, aggregate.op.id() == token::T_COUNT, found);
        }
        Expr::Binary(binary) => {
            walk(&binary.lhs, None, counted, found);
            // Set operators ignore the values of the right-hand side.
            walk(&binary.rhs, None, counted || binary.op.is_set_operator(), found);
        }
        Expr::Paren(paren) => walk(&paren.expr, None, counted, found),
        Expr::Unary(unary) => walk(&unary.expr, None, counted, found),
        Expr::Call(call) => {
            for argument in &call.args.args {
                walk(argument, Some(call.func.name), counted, found);
            }
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        Expr::Subquery(_) | Expr::Extension(_) => panic!("unsupported expression: {expression:?}"),
    }
}

fn resolve(selector: &VectorSelector, range_function: Option<(String, Duration)>, counted: bool) -> Selector {
    let name = selector.name.clone().expect("a selector has a name");
    assert!(selector.matchers.or_matchers.is_empty());
    let matchers = selector.matchers.matchers.iter();
    let known = known(&name);
    for matcher in &selector.matchers.matchers {
        assert!(known.labels.contains(&matcher.name.as_str()), "{name} has no label {}", matcher.name);
    }
    let matchers = matchers.map(|matcher| matcher.to_string()).collect();
    Selector { name, known, matchers, range_function, counted }
}

/// Returns the labels of a result.
///
/// # Panics
///
/// Panics if the expression uses an unknown label.
pub(super) fn labels(expression: &Expr) -> BTreeSet<String> {
    match expression {
        Expr::VectorSelector(selector) => known(selector.name.as_ref().unwrap()).labels(),
        Expr::MatrixSelector(selector) => known(selector.vs.name.as_ref().unwrap()).labels(),
        Expr::Paren(paren) => labels(&paren.expr),
        Expr::Unary(unary) => labels(&unary.expr),
        Expr::Call(call) => {
            let mut result: BTreeSet<_> = call.args.args.iter().flat_map(|argument| labels(argument)).collect();
            if call.func.name == "histogram_quantile" {
                assert!(result.remove("le"), "a quantile needs le: {expression}");
            }
            if let ("label_replace", Some(Expr::StringLiteral(added))) =
                (call.func.name, call.args.args.get(1).map(|argument| &**argument))
            {
                result.insert(added.val.clone());
            }
            result
        }
        Expr::Aggregate(aggregate) => {
            let input = labels(&aggregate.expr);
            // These select series and keep their labels.
            let selects = [token::T_TOPK, token::T_BOTTOMK].contains(&aggregate.op.id());
            match &aggregate.modifier {
                Some(LabelModifier::Include(by)) => {
                    let by: BTreeSet<_> = by.labels.iter().cloned().collect();
                    assert!(by.is_subset(&input), "unknown labels, expected some of {input:?}: {expression}");
                    if selects { input } else { by }
                }
                Some(LabelModifier::Exclude(_)) => panic!("`without` instead of `by`: {expression}"),
                None if selects => input,
                None => BTreeSet::new(),
            }
        }
        Expr::Binary(binary) => {
            let (left, right) = (labels(&binary.lhs), labels(&binary.rhs));
            if let Some(LabelModifier::Include(on)) = binary.modifier.as_ref().and_then(|it| it.matching.as_ref()) {
                let both = |label: &String| left.contains(label) && right.contains(label);
                assert!(on.labels.iter().all(both), "{left:?} and {right:?}: {expression}");
            }
            left.union(&right).cloned().collect()
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => BTreeSet::new(),
        Expr::Subquery(_) | Expr::Extension(_) => panic!("unsupported expression: {expression:?}"),
    }
}

/// Returns whether the series is a counter.
pub(super) fn is_counter(selector: &Selector) -> bool {
    selector.known.kind == Kind::Counter
}
