//! `poolscope diagnose`: prints the verdicts about the pools of exporters.

mod sizing;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::Args;
use futures_util::future::join_all;
use poolscope::text::{ErrorChain, Printable, printable};
use serde_json::{Value, json};
use tokio::time::sleep;

use self::sizing::add_sizing;
use super::client::{ClientArgs, HttpClient, Target, block_on};
use super::exit::{USAGE, fail, not_printed, print_error};
use super::subject::{Subject, split};
use crate::pool_listing::{MAX_BYTES, PATH, cause, consequences, evidence, pools, size, text};
use crate::recorded::{Recorded, RecordedChange};

/// The exit code if a pool is not healthy.
const NOT_HEALTHY: u8 = 1;
/// The exit code if it is unknown whether the pools are healthy.
const UNKNOWN: u8 = 2;

const PROBLEM: Style = AnsiColor::Red.on_default().bold();
const HEALTHY: Style = AnsiColor::Green.on_default();
const NEUTRAL: Style = AnsiColor::Yellow.on_default();

#[derive(Debug, Args)]
pub(super) struct DiagnoseArgs {
    /// The URLs of exporters, such as http://127.0.0.1:9719 or https://shop:9719
    ///
    /// The default path is /api/v1/pools; a pool is selected with /api/v1/pools?pool=NAME. The default URL is that of
    /// --web.listen-address.
    /// The verdicts of a recording are printed if its file is given.
    #[arg(value_name = "URL|FILE")]
    subjects: Vec<Subject>,

    /// Print JSON: an array with an object for each exporter, with its verdicts as in /api/v1/pools
    #[arg(long)]
    json: bool,

    /// Query every two seconds, and print the verdicts whenever a cause changes, until interrupted
    ///
    /// With --json each change is one line.
    #[arg(long)]
    watch: bool,

    /// Print how checkouts would wait with fewer and more connections, by a replay of the load of the last half hour
    ///
    /// Not for recordings, which lack that load.
    #[arg(long)]
    sizing: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// The time between two queries of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// What is printed, by the flags of these names.
#[derive(Clone, Copy, Debug)]
struct Output {
    json: bool,
    watch: bool,
    sizing: bool,
}

/// The verdicts alone.
const PLAIN: Output = Output { json: false, watch: false, sizing: false };

/// What one exporter answered.
struct Answer {
    url: String,
    /// The pools, or why they are unknown.
    pools: Result<Vec<Value>, String>,
}

/// Queries the exporters and prints the verdicts.
pub(super) fn run(args: DiagnoseArgs) -> ExitCode {
    let DiagnoseArgs { subjects, json, watch, sizing, client } = args;
    let (mut urls, files) = split(subjects);
    if !files.is_empty() {
        if watch || !urls.is_empty() {
            return print_error("a recording is read once, and not together with exporters", USAGE);
        }
        if sizing {
            return print_error("a recording has no sizing: remove --sizing", USAGE);
        }
        return diagnose_files(&files, json);
    }
    if urls.is_empty() {
        urls.push(client.listen_address.clone());
    }
    let targets: Vec<_> = urls.into_iter().map(|target| target.or_path(PATH)).collect();
    let client = match HttpClient::new(&client, &targets) {
        Ok(client) => client,
        Err(error) => return fail(&error, true),
    };
    match block_on(print_all(&client, &targets, Output { json, watch, sizing })) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => not_printed(&error, UNKNOWN),
        Err(error) => print_error(&ErrorChain(&error).to_string(), UNKNOWN),
    }
}

/// Prints the verdicts of recordings, each with the time at which it was reached.
fn diagnose_files(files: &[PathBuf], as_json: bool) -> ExitCode {
    let (mut answers, mut documents, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for file in files {
        let name = Printable(file.display()).to_string();
        let recorded = match Recorded::open(file) {
            Ok(recorded) => recorded,
            Err(error) => {
                problems.push(format!("{name}: {}", ErrorChain(&error)));
                continue;
            }
        };
        let problem = recorded.problem();
        let changes = recorded.changes();
        documents.push(json!({
            "file": &name, "pool": recorded.pool(), "library_version": recorded.library_version(), "error": &problem,
            "verdicts": changes.iter().map(|change| json!({"time": change.time, "diagnosis": change.diagnosis}))
                .collect::<Vec<_>>(),
        }));
        problems.extend(problem.map(|problem| format!("{name}: {problem}")));
        answers.extend(changes.into_iter().map(|RecordedChange { time, diagnosis }| Answer {
            url: format!("{name} at {time}"),
            pools: Ok(vec![json!({"name": recorded.pool(), "diagnosis": diagnosis})]),
        }));
    }
    let written = if as_json { print_json(&Value::Array(documents), false) } else { print(&answers, PLAIN) };
    match written {
        // The reader has gone, and with it the interest in further output.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return not_printed(&error, UNKNOWN),
        _ => {}
    }
    for problem in &problems {
        print_error(problem, UNKNOWN);
    }
    let code = exit_code(&answers);
    // A recording whose readable part is healthy may have a problem in the rest.
    let code = if code == 0 && !problems.is_empty() { UNKNOWN } else { code };
    ExitCode::from(code)
}

/// Queries and prints until there is no more to print. Returns the exit code.
async fn print_all(client: &HttpClient, targets: &[Target], output: Output) -> io::Result<u8> {
    let mut last = None;
    loop {
        // All at once, so that an exporter that hangs does not delay the others.
        let answers = join_all(targets.iter().map(|target| query(client, target))).await;
        let causes = causes(&answers);
        if last.as_ref() != Some(&causes) {
            match print(&answers, output) {
                // The reader has gone, and with it the interest in further output.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit_code(&answers)),
                printed => printed?,
            }
            last = Some(causes);
        }
        if !output.watch {
            return Ok(exit_code(&answers));
        }
        sleep(WATCH_INTERVAL).await;
    }
}

async fn query(client: &HttpClient, target: &Target) -> Answer {
    let listing = client.get_json(target, MAX_BYTES).await;
    Answer { url: target.to_string(), pools: listing.map_err(|error| error.to_string()).and_then(pools) }
}

/// Returns what a change of is printed with `--watch`.
fn causes(answers: &[Answer]) -> BTreeMap<(String, String), String> {
    let mut causes = BTreeMap::new();
    for Answer { url, pools } in answers {
        match pools {
            Ok(pools) => {
                causes.extend(
                    pools.iter().map(|pool| ((url.clone(), text(pool, "name").to_owned()), cause(pool).to_owned())),
                );
            }
            Err(error) => {
                causes.insert((url.clone(), String::new()), error.clone());
            }
        }
    }
    causes
}

fn exit_code(answers: &[Answer]) -> u8 {
    let pools = || answers.iter().filter_map(|answer| answer.pools.as_ref().ok()).flatten();
    let is_known = |pool: &Value| !matches!(cause(pool), "not_enough_data" | "unknown");
    if pools().any(|pool| is_known(pool) && cause(pool) != "healthy") {
        NOT_HEALTHY
    } else if pools().next().is_none() || !pools().all(is_known) || answers.iter().any(|answer| answer.pools.is_err()) {
        UNKNOWN
    } else {
        0
    }
}

fn print(answers: &[Answer], Output { json, watch, sizing }: Output) -> io::Result<()> {
    if json {
        return print_json(&answers.iter().map(|answer| answer_json(answer, sizing)).collect(), watch);
    }
    let mut page = String::new();
    for answer in answers {
        add_answer(&mut page, answer, sizing);
    }
    let mut output = anstream::stdout().lock();
    output.write_all(page.as_bytes())?;
    output.flush()
}

fn print_json(document: &Value, is_line: bool) -> io::Result<()> {
    let text = if is_line { document.to_string() } else { format!("{document:#}") };
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")?;
    output.flush()
}

fn answer_json(Answer { url, pools }: &Answer, sizing: bool) -> Value {
    match pools {
        Ok(pools) => {
            let pools = pools.iter().map(|pool| {
                let mut shown = json!({"name": pool["name"], "diagnosis": pool["diagnosis"]});
                if sizing {
                    shown["sizing"] = pool["sizing"].clone();
                }
                shown
            });
            let pools: Vec<_> = pools.collect();
            json!({"url": url, "error": null, "pools": pools})
        }
        Err(error) => json!({"url": url, "error": error, "pools": []}),
    }
}

fn add_answer(page: &mut String, Answer { url, pools }: &Answer, sizing: bool) {
    // Writing to a string does not fail.
    match pools {
        Err(error) => drop(writeln!(page, "{url}: {NEUTRAL}unknown{NEUTRAL:#}, {}", Printable(error))),
        Ok(pools) if pools.is_empty() => drop(writeln!(page, "{url}: no pools")),
        Ok(pools) => {
            for pool in pools {
                add_pool(page, url, pool);
                if sizing {
                    add_sizing(page, &pool["sizing"]);
                }
            }
        }
    }
}

fn add_pool(page: &mut String, url: &str, pool: &Value) {
    let diagnosis = &pool["diagnosis"];
    let cause = cause(pool);
    let style = match cause {
        "healthy" => HEALTHY,
        "not_enough_data" | "unknown" => NEUTRAL,
        _ => PROBLEM,
    };
    let _ = write!(page, "{}: {style}{}{style:#}", printable(text(pool, "name")), printable(cause));
    if let Some(since) = diagnosis["since_seconds"].as_f64() {
        let since = Duration::try_from_secs_f64(since.floor()).unwrap_or_default();
        let _ = write!(page, " for {}", humantime::format_duration(since));
    }
    let _ = writeln!(page, " ({url})");
    let mut line = |lead: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(page, "  {lead}{}", printable(text));
        }
    };
    line("", text(diagnosis, "finding"));
    line("at ", text(diagnosis, "call_site"));
    line("evidence: ", &evidence(diagnosis));
    line("consequences: ", &consequences(diagnosis));
    line("advice: ", text(diagnosis, "advice"));
    line("size: ", &size(pool));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cause: &str) -> Value {
        json!({"name": "shop", "sizing": {"recommended_size": null, "withheld_by": "held_idle"}, "diagnosis": {
            "cause": cause, "since_seconds": 74.2, "operation": "list_orders", "call_site": "src/orders.rs:42",
            "evidence": [
                {"name": "held_idle_share", "value": 0.46999, "unit": "ratio", "usual": 0.02},
                {"name": "wait_p99", "value": 2.5, "unit": "seconds", "usual": null},
            ],
            "advice": "Return it earlier.", "consequences": ["undersized"], "finding": "`list_orders` holds it",
        }})
    }

    fn answer(pools: Result<Vec<Value>, String>) -> Answer {
        Answer { url: "http://shop:9719/api/v1/pools".to_owned(), pools }
    }

    #[test]
    fn exit_code_tells_problems_from_unknown() {
        let code = |causes: &[&str]| exit_code(&[answer(Ok(causes.iter().map(|cause| pool(cause)).collect()))]);
        assert_eq!((code(&["healthy"]), code(&["healthy", "leak"]), code(&["not_enough_data", "leak"])), (0, 1, 1));
        assert_eq!((code(&[]), code(&["healthy", "not_enough_data"])), (2, 2));
        let failed = || answer(Err("refused".to_owned()));
        assert_eq!(exit_code(&[failed(), answer(Ok(vec![pool("healthy")]))]), 2);
        assert_eq!(exit_code(&[failed(), answer(Ok(vec![pool("churn")]))]), 1);
        assert_eq!(exit_code(&[answer(Ok(vec![json!({"name": "old"})]))]), 2);
    }

    #[test]
    fn verdict_is_printed_with_evidence_and_advice() {
        let mut page = String::new();
        add_answer(&mut page, &answer(Ok(vec![pool("held_idle")])), false);
        let plain = anstream::adapter::strip_str(&page).to_string();
        assert_eq!(
            plain,
            "shop: held_idle for 1m 14s (http://shop:9719/api/v1/pools)\n  \
             `list_orders` holds it\n  \
             at src/orders.rs:42\n  \
             evidence: held_idle_share 0.47 (usually 0.02), wait_p99 2.5 seconds\n  \
             consequences: undersized\n  \
             advice: Return it earlier.\n  \
             size: none is recommended until held_idle is removed\n"
        );
    }

    #[test]
    fn names_cannot_forge_lines() {
        let mut page = String::new();
        let mut forged = pool("leak");
        forged["name"] = json!("a\nb: healthy \u{1b}[2J");
        add_answer(&mut page, &answer(Ok(vec![forged])), false);
        assert!(page.starts_with("a\\nb: healthy \\u{1b}[2J: "), "{page}");
        page.clear();
        add_answer(&mut page, &answer(Err("no\nshop: healthy \u{1b}[2J".to_owned())), false);
        assert!(page.ends_with("no\\nshop: healthy \\u{1b}[2J\n"), "{page}");
    }
}
