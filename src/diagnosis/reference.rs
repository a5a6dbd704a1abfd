//! Generates `docs/diagnosis.md` from the rules.

use std::fmt::Write as _;

use super::engine::AWAIT_EXPLANATION_SECONDS;
use super::measures::Measure;
use super::rules::{Condition, RELAXED, RULES, Rule};
use crate::generated::assert_current;
use crate::labels::Cause;

/// Returns the content of `docs/diagnosis.md`.
fn reference() -> String {
    let mut page = String::from(
        "# Diagnosis\n\n\
         <!-- Generated from src/diagnosis/rules.rs. `POOLSCOPE_BLESS=1 cargo test -p poolscope --lib diagnosis` regenerates it. -->\n\n\
         From one sample per second, poolscope derives a verdict about each pool: the cause of a problem, the operation and call site\n\
         responsible, the evidence, and what to do. It appears\n\n\
         - as the gauge `poolscope_diagnosis{cause}`, 1 for the cause that applies; `poolscope_diagnosis_seconds` has the operation, the\n  \
           call site and the time since, `poolscope_diagnosis_evidence` the evidence;\n\
         - as an [alert](alerts.md) per cause, `PoolscopeDiagnosed…`, and in the first row of the [pool dashboard](dashboards.md);\n\
         - in `/api/v1/pools`, with evidence and advice, and from `poolscope diagnose`, which prints it;\n\
         - in the log, one line per change;\n\
         - at the end of the error of a checkout that times out;\n\
         - in `Pool::snapshot().diagnosis`.\n\n\
         An exporter samples the pools of its collector while it serves; without one, spawn `Pool::watch()`. Without either, each scrape\n\
         is a sample, and the verdict says how far apart they are.\n\n\
         [How often it is right](diagnosis-accuracy.md) about known causes is measured on real servers; [recordings](recording.md) of a pool\n\
         can be diagnosed again.\n\n\
         ## Causes\n\n",
    );
    let _ = writeln!(
        page,
        "The first cause whose conditions hold is the verdict; those that it explains are listed as its consequences. A cause is\n\
         diagnosed once its conditions have held for the stated time, and no longer after they have not held for 10 s; until then\n\
         each threshold is relaxed by the factor {RELAXED}. A cause waits for up to {AWAIT_EXPLANATION_SECONDS} s more while the relaxed conditions of another hold\n\
         that explains it, so that a consequence is not diagnosed before its cause. Most measures cover the last 15 s.\n",
    );
    for rule in RULES {
        section(&mut page, rule);
    }
    let named = [Cause::Healthy, Cause::NotEnoughData].map(Cause::as_str);
    let _ = writeln!(
        page,
        "### `{}` and `{}`\n\nNone of the above holds; or the pool has been sampled for less than 3 s.\n",
        named[0], named[1]
    );
    page.push_str(
        "## Pools of a proxy\n\n\
         [`poolscope proxy`](proxy.md) sees neither checkouts nor what waits for a connection. A pool of its clients is exhausted where at\n\
         least three connections are open, all of them are in use, and their number does not grow: the maximum is `pool_size` of the\n\
         proxy, or else the largest number within the last minute. Of the causes, these can be told: `server_full`, `server_down`, `leak`\n\
         and `idle_in_transaction`, `slow_queries`, `connect_slow`, `churn` and `undersized`. A lock wait shows as `slow_queries`. A\n\
         connection that is held outside a transaction looks idle, so `held_idle` cannot be told; nor can `self_deadlock`, `burst`,\n\
         `retry_storm` and `runtime_stalled`. There is no recommended size.\n\n",
    );
    page.push_str(
        "## Measures\n\nThe evidence of a verdict names these measures.\n\n| name | unit | meaning |\n|---|---|---|\n",
    );
    for measure in Measure::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", measure.name(), measure.unit(), measure.meaning());
    }
    page
}

fn section(page: &mut String, rule: &Rule) {
    let _ = writeln!(page, "### `{}`\n", rule.cause.as_str());
    for (index, alternative) in rule.alternatives.iter().enumerate() {
        if index > 0 {
            page.push_str("\nor\n\n");
        }
        page.push_str("| measure | threshold | reason |\n|---|---|---|\n");
        for condition in *alternative {
            let measure = condition.measure();
            let unit = match measure.unit() {
                "ratio" | "count" => String::new(),
                "per_second" => " per second".to_owned(),
                unit => format!(" {unit}"),
            };
            let (threshold, why) = match condition {
                Condition::AtLeast(_, value, why) => (format!("≥ {value}{unit}"), why),
                Condition::Below(_, value, why) => (format!("< {value}{unit}"), why),
                Condition::TimesUsual { factor, floor, otherwise, why, .. } => (
                    format!(
                        "≥ {factor} times the usual value, at least {floor}{unit}; {otherwise}{unit} if that is unknown"
                    ),
                    why,
                ),
            };
            let _ = writeln!(page, "| `{}` | {threshold} | {why} |", measure.name());
        }
    }
    let explains: Vec<_> = rule.explains.iter().map(|cause| format!("`{}`", cause.as_str())).collect();
    let _ = writeln!(page, "\n- diagnosed after {} s", rule.adopt_after);
    let _ = writeln!(page, "- distinguished from {}", rule.distinguished_from);
    if !explains.is_empty() {
        let _ = writeln!(page, "- explains {}", explains.join(", "));
    }
    page.push('\n');
}

#[test]
fn diagnosis_page_is_current() {
    assert_current("docs/diagnosis.md", &reference(), "the rules");
}

#[test]
fn every_cause_has_one_rule_or_is_no_problem() {
    for cause in Cause::ALL {
        let rules = RULES.iter().filter(|rule| rule.cause == *cause).count();
        let expected = usize::from(!matches!(cause, Cause::Healthy | Cause::NotEnoughData));
        assert_eq!(rules, expected, "{}", cause.as_str());
    }
}

#[test]
fn causes_explain_only_those_of_later_rules() {
    for (index, rule) in RULES.iter().enumerate() {
        assert!(!rule.alternatives.is_empty() && rule.alternatives.iter().all(|conditions| !conditions.is_empty()));
        for explained in rule.explains {
            let position = RULES.iter().position(|rule| rule.cause == *explained).unwrap();
            assert!(position > index, "{} explains {}", rule.cause.as_str(), explained.as_str());
        }
    }
}
