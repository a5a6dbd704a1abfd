//! Queries, read: what they ask for, and which labels their answer has.

use std::collections::BTreeSet;
use std::time::Duration;

use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector, token};

use super::names::{Kind, Known, known};

/// What stands for Grafana's `$__rate_interval`: a length that nobody would write.
pub(super) const RATE_INTERVAL: Duration = Duration::from_secs(4 * 60 + 56);

/// The functions that ask how a counter grows.
const GROWTH: [&str; 3] = ["rate", "increase", "irate"];

/// A selector, and what is done with it at once.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) known: Known,
    pub(super) matchers: Vec<String>,
    /// The function that takes its range.
    pub(super) over: Option<(String, Duration)>,
    /// Whether it is counted, and its values do not matter.
    pub(super) counted: bool,
}

impl Asked {
    pub(super) fn grows(&self) -> bool {
        self.over.as_ref().is_some_and(|(function, _)| GROWTH.contains(&function.as_str()))
    }
}

/// Reads a query, with values for Grafana's variables.
pub(super) fn parse(query: &str) -> Result<Expr, String> {
    let query = query.replace("$__rate_interval", "4m56s").replace("$slots", "97");
    parser::parse(&query)
}

/// Every selector in it.
pub(super) fn asked(expression: &Expr) -> Vec<Asked> {
    let mut found = Vec::new();
    walk(expression, None, false, &mut found);
    found
}

fn walk(expression: &Expr, function: Option<&str>, counted: bool, found: &mut Vec<Asked>) {
    match expression {
        Expr::VectorSelector(selector) => found.push(one(selector, None, counted)),
        Expr::MatrixSelector(selector) => {
            found.push(one(&selector.vs, Some((function.unwrap().to_owned(), selector.range)), counted));
        }
        Expr::Aggregate(aggregate) => {
            if let Some(parameter) = &aggregate.param {
                walk(parameter, None, false, found);
            }
            walk(&aggregate.expr, None, aggregate.op.id() == token::T_COUNT, found);
        }
        Expr::Binary(binary) => {
            walk(&binary.lhs, None, counted, found);
            // Of what only decides which series stay, the values do not matter.
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
        // A rate of a sum would be one; so would a sum of what nobody can read.
        Expr::Subquery(_) | Expr::Extension(_) => panic!("neither subqueries nor extensions: {expression:?}"),
    }
}

fn one(selector: &VectorSelector, over: Option<(String, Duration)>, counted: bool) -> Asked {
    let name = selector.name.clone().expect("a selector has a name");
    assert!(selector.matchers.or_matchers.is_empty());
    let matchers = selector.matchers.matchers.iter();
    let known = known(&name);
    for matcher in &selector.matchers.matchers {
        assert!(known.labels.contains(&matcher.name.as_str()), "{name} has no label {}", matcher.name);
    }
    let matchers = matchers.map(|matcher| matcher.to_string()).collect();
    Asked { name, known, matchers, over, counted }
}

/// Which labels the answer may have. Panics where the query names one that is not there.
pub(super) fn labels(expression: &Expr) -> BTreeSet<String> {
    match expression {
        Expr::VectorSelector(selector) => known(selector.name.as_ref().unwrap()).labels(),
        Expr::MatrixSelector(selector) => known(selector.vs.name.as_ref().unwrap()).labels(),
        Expr::Paren(paren) => labels(&paren.expr),
        Expr::Unary(unary) => labels(&unary.expr),
        Expr::Call(call) => {
            let mut of: BTreeSet<_> = call.args.args.iter().flat_map(|argument| labels(argument)).collect();
            if call.func.name == "histogram_quantile" {
                assert!(of.remove("le"), "a quantile needs le: {expression}");
            }
            of
        }
        Expr::Aggregate(aggregate) => {
            let of = labels(&aggregate.expr);
            // These choose series, and the others make new ones.
            let chooses = [token::T_TOPK, token::T_BOTTOMK].contains(&aggregate.op.id());
            match &aggregate.modifier {
                Some(LabelModifier::Include(by)) => {
                    let by: BTreeSet<_> = by.labels.iter().cloned().collect();
                    assert!(by.is_subset(&of), "there are only {of:?}: {expression}");
                    if chooses { of } else { by }
                }
                Some(LabelModifier::Exclude(_)) => panic!("by, not without: {expression}"),
                None if chooses => of,
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
        Expr::Subquery(_) | Expr::Extension(_) => panic!("neither subqueries nor extensions: {expression:?}"),
    }
}

/// Whether a series may only be asked how it grows.
pub(super) fn is_counter(asked: &Asked) -> bool {
    asked.known.kind == Kind::Counter
}
