//! The confusion matrix, and the page that shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::cases::{self, Case, Group, Part};
use crate::evaluation::{Assessment, assess};
use crate::recordings::{Recorded, assert_current, committed};

type Run<'a> = (&'a Case, &'a Recorded, Assessment);

/// Runs, right ones, problems before the fault, and how often each other cause was diagnosed.
type Row<'a> = (usize, usize, usize, BTreeMap<&'a str, usize>);

/// Returns the table of causes: how often each was expected, and what was diagnosed.
fn confusion(runs: &[&Run<'_>]) -> String {
    let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
    for (case, _, assessment) in runs {
        let (count, right, false_alarms, others) = rows.entry(case.cause).or_default();
        *count += 1;
        *right += usize::from(assessment.is_right);
        *false_alarms += usize::from(assessment.false_alarm.is_some());
        if !assessment.is_right {
            let diagnosed = if assessment.diagnosed == case.cause {
                "the same, with another operation or not throughout"
            } else {
                assessment.diagnosed
            };
            *others.entry(diagnosed).or_default() += 1;
        }
    }
    let mut text = String::from(
        "| expected | runs | right | problem before the fault | diagnosed instead |\n|---|---|---|---|---|\n",
    );
    let mut sum = (0, 0, 0);
    for (cause, (count, right, false_alarms, others)) in rows {
        let others: Vec<_> = others.iter().map(|(cause, count)| format!("{cause} ({count})")).collect();
        let _ = writeln!(text, "| `{cause}` | {count} | {right} | {false_alarms} | {} |", others.join(", "));
        sum = (sum.0 + count, sum.1 + right, sum.2 + false_alarms);
    }
    let _ = writeln!(text, "| all | {} | {} | {} | |", sum.0, sum.1, sum.2);
    text
}

fn summary(name: &str, runs: &[&Run<'_>]) -> String {
    let (healthy, ill): (Vec<_>, Vec<_>) = runs.iter().copied().partition(|(case, ..)| case.group == Group::Healthy);
    let right = |runs: &[&Run<'_>]| runs.iter().filter(|(.., assessment)| assessment.is_right).count();
    let first = ill.iter().filter(|(.., assessment)| assessment.is_first_right).count();
    let delays = || ill.iter().filter_map(|(.., assessment)| assessment.delay);
    format!(
        "| {name} | {} of {} | {} of {} | {first} of {} | {:.0} s, {:.0} s |\n",
        right(&ill),
        ill.len(),
        right(&healthy),
        healthy.len(),
        ill.len(),
        delays().sum::<f64>() / delays().count().max(1) as f64,
        delays().fold(0.0, f64::max),
    )
}

/// Returns the page about all recorded runs.
pub(crate) fn page(recorded: &BTreeMap<String, Recorded>) -> String {
    let cases = cases::all();
    let runs: Vec<Run<'_>> = cases
        .iter()
        .filter_map(|case| recorded.get(&case.name).map(|recorded| (case, recorded, assess(case, recorded))))
        .collect();
    let all: Vec<_> = runs.iter().collect();
    let (held_out, tuned): (Vec<_>, Vec<_>) = all.iter().partition(|(case, ..)| case.part == Part::HeldOut);
    let causes: BTreeSet<_> = cases.iter().map(|case| case.cause).collect();
    let mut page = format!(
        "# Accuracy of the diagnosis\n\n\
         <!-- Generated from the recordings of `make diagnose`; POOLSCOPE_BLESS=1 cargo test -p poolscope --all-features --test diagnosis. -->\n\n\
         `make diagnose` produces each cause on a real PostgreSQL, at two intensities or more for each of four sizes of the pool, mixtures of two\n\
         causes, and healthy workloads that look ill: {} runs of {} causes, each in a process with a server of its own. Normal load\n\
         runs for 20 s, then the fault for 42 s. A run is right if the cause and the operation are right at every second from 30 s after\n\
         the fault on; a healthy run, if no problem is diagnosed at any second. The cases are the table `tests/diagnosis/cases.rs`; the\n\
         recordings are in `tests/diagnosis/recordings`, and the tests diagnose them again.\n\n\
         The rules were tuned with the runs of the pools `small` (5 + 1 connections) and `large` (16 + 5). Those of the pools `narrow` (7 + 2)\n\
         and `wide` (24 + 4) are held out: they have other durations, rates, shares and numbers of tasks, and were recorded once, after the\n\
         rules had last been changed.\n\n\
         | part | faults right | healthy runs right | right cause and operation first | delay: mean, longest |\n|---|---|---|---|---|\n",
        all.len(),
        causes.len(),
    );
    page += &summary("used to tune", &tuned);
    page += &summary("held out", &held_out);
    page += &summary("all", &all);
    let loads: Vec<f64> = all.iter().flat_map(|(_, recorded, _)| recorded.conditions.load).collect();
    let _ = writeln!(
        page,
        "\nThe fourth column counts runs whose first problem, of whatever duration, was the expected cause, with the operation responsible. The\n\
         delay is the time from the fault to the first right verdict. Six cases ran at once. The machine's load average was between\n\
         {:.0} and {:.0} during the runs.\n",
        loads.iter().copied().fold(f64::INFINITY, f64::min),
        loads.iter().copied().fold(0.0, f64::max),
    );
    let _ = write!(page, "## All runs\n\n{}\n", confusion(&all));
    let _ = write!(page, "## Runs used to tune\n\n{}\n", confusion(&tuned));
    let _ = write!(page, "## Runs held out\n\n{}\n", confusion(&held_out));
    page.push_str("## Runs that were not right, or not at first\n\n");
    let is_flawless = |case: &Case, assessment: &Assessment| {
        assessment.is_right && (case.group == Group::Healthy || assessment.is_first_right)
    };
    let flawed: Vec<_> = all.iter().filter(|(case, _, assessment)| !is_flawless(case, assessment)).collect();
    if flawed.is_empty() {
        page.push_str("None.\n");
        return page;
    }
    page.push_str("| run | verdicts, with the second of the recording; the fault began at |\n|---|---|\n");
    for (case, recorded, _) in flawed {
        let held_out = if case.part == Part::HeldOut { ", held out" } else { "" };
        let verdicts = crate::evaluation::changes(&recorded.verdicts);
        let _ = writeln!(page, "| `{}`{held_out} | {verdicts}; {:.0} |", case.name, recorded.conditions.fault_at);
    }
    page
}

#[test]
fn page_is_current() {
    assert_current("docs/diagnosis-accuracy.md", &page(committed()));
}

/// What is promised about the rules.
#[test]
fn nearly_all_runs_are_right() {
    let recorded = committed();
    let cases = cases::all();
    let missing: Vec<_> =
        cases.iter().filter(|case| !recorded.contains_key(&case.name)).map(|case| &case.name).collect();
    assert!(missing.is_empty(), "no recording of {missing:?}");
    let of = |part: Part, is_healthy: bool| {
        let cases = cases.iter().filter(move |case| case.part == part && (case.group == Group::Healthy) == is_healthy);
        cases.map(|case| (case.name.as_str(), assess(case, &recorded[&case.name]))).collect::<Vec<_>>()
    };
    for part in [Part::Tuning, Part::HeldOut] {
        let ill = of(part, false);
        let wrong = |is_wrong: fn(&Assessment) -> bool| {
            ill.iter().filter(|(_, assessment)| is_wrong(assessment)).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        for wrong in [wrong(|assessment| !assessment.is_right), wrong(|assessment| !assessment.is_first_right)] {
            assert!(wrong.len() * 20 <= ill.len(), "more than 5 % of {} in {part:?}: {wrong:?}", ill.len());
        }
        let alarms: Vec<_> = of(part, true).into_iter().filter(|(_, assessment)| !assessment.is_right).collect();
        assert!(alarms.is_empty(), "{alarms:?}");
    }
}
