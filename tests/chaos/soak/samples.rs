//! The figures of each second, their limits, and their file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poolscope_testing::process;

use super::MAX_RECOVERY;
use super::plot;
use super::scraper::Seen;

/// From this duration on, the limits of long runs hold: before, the machine's other work decides.
const LONG: Duration = Duration::from_secs(600);

/// The growth allowed after the first quarter, above the most of that: of memory in kB, and of the others. A page that is
/// being written takes 4,000 kB, and the first quarter of a short run may have seen none.
const MAX_MEMORY_GROWTH: u64 = 6_000;
const MAX_MEMORY_GROWTH_SHORT: u64 = 12_000;
const MAX_DESCRIPTOR_GROWTH: u64 = 8;
const MAX_THREAD_GROWTH: u64 = 4;
const MAX_TASK_GROWTH: u64 = 40;
const MAX_PAGE_GROWTH_PERCENT: u64 = 5;
/// Bytes.
const MAX_PAGE: u64 = 6_000_000;
const MAX_MEDIAN_SCRAPE_MS: f64 = 250.0;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    pub(crate) memory_kb: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) tasks: u64,
    pub(crate) page: u64,
    pub(crate) scrape_ms: f64,
    checkouts: u64,
    work: u64,
    recoveries: usize,
    recovery: Duration,
}

impl Sample {
    pub(crate) fn of(pid: u32, at: Duration, seen: &Seen) -> Self {
        Self {
            seconds: at.as_secs_f64(),
            memory_kb: process::memory_kb(pid).expect("a process"),
            descriptors: process::descriptors(pid) as u64,
            threads: process::threads(pid) as u64,
            tasks: seen.alive_tasks,
            page: seen.page_len as u64,
            scrape_ms: seen.took.as_secs_f64() * 1000.0,
            checkouts: seen.ok,
            work: seen.work,
            recoveries: seen.recoveries,
            recovery: seen.recovery,
        }
    }
}

/// The samples of a run, which are written when this is dropped, also by a panic.
#[derive(Default)]
pub(crate) struct Record {
    samples: Vec<Sample>,
    /// When the server was restarted, in seconds.
    restarts: Vec<f64>,
}

impl Record {
    pub(crate) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(crate) fn restarted(&mut self, at: Duration) {
        self.restarts.push(at.as_secs_f64());
    }

    pub(crate) fn restarts(&self) -> usize {
        self.restarts.len()
    }

    /// Returns the samples of the first quarter, and the others.
    fn parts(&self) -> (&[Sample], &[Sample]) {
        let end = self.samples.last().map_or(0.0, |last| last.seconds);
        self.samples.split_at(self.samples.partition_point(|sample| sample.seconds < end / 4.0))
    }

    fn slowest_recovery(&self) -> Duration {
        self.samples.iter().map(|sample| sample.recovery).max().unwrap_or_default()
    }

    fn median_scrape(&self) -> f64 {
        let mut times: Vec<f64> = self.samples.iter().map(|sample| sample.scrape_ms).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }

    pub(crate) fn assert_flat(&self, duration: Duration) {
        let (early, late) = self.parts();
        let grows = |what: &str, figure: fn(&Sample) -> u64, limit: &dyn Fn(u64) -> u64| {
            let most = |samples: &[Sample]| samples.iter().map(figure).max().expect("samples");
            let (before, after) = (most(early), most(late));
            assert!(after <= limit(before), "{what}: at most {before} in the first quarter, and {after} after it");
        };
        let memory = if duration < LONG { MAX_MEMORY_GROWTH_SHORT } else { MAX_MEMORY_GROWTH };
        grows("memory in kB", |sample| sample.memory_kb, &|before| before + memory);
        grows("descriptors", |sample| sample.descriptors, &|before| before + MAX_DESCRIPTOR_GROWTH);
        grows("threads", |sample| sample.threads, &|before| before + MAX_THREAD_GROWTH);
        grows("tasks", |sample| sample.tasks, &|before| before + MAX_TASK_GROWTH);
        grows("length of the page", |sample| sample.page, &|before| {
            MAX_PAGE.min(before + before * MAX_PAGE_GROWTH_PERCENT / 100)
        });
        assert!(self.slowest_recovery() < MAX_RECOVERY, "{:?}", self.slowest_recovery());
        if duration >= LONG {
            assert!(self.median_scrape() < MAX_MEDIAN_SCRAPE_MS, "{} ms", self.median_scrape());
        }
    }

    /// Returns a table of some samples, and the extremes of all.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::from("| after | memory | descriptors | threads | tasks | page | scrape | checkouts |\n");
        text += "|---|---|---|---|---|---|---|---|\n";
        let step = (self.samples.len() / 12).max(1);
        for sample in self.samples.iter().skip(step - 1).step_by(step) {
            let Sample { seconds, memory_kb, descriptors, threads, tasks, page, scrape_ms, checkouts, .. } = sample;
            let _ = writeln!(
                text,
                "| {seconds:.0} s | {memory_kb} kB | {descriptors} | {threads} | {tasks} | {page} | {scrape_ms:.1} ms | {checkouts} |"
            );
        }
        let range = |figure: fn(&Sample) -> u64| {
            let (_, late) = self.parts();
            let values = || late.iter().map(figure);
            format!("{} to {}", values().min().unwrap_or_default(), values().max().unwrap_or_default())
        };
        let slowest = self.samples.iter().map(|sample| sample.scrape_ms).fold(0.0, f64::max);
        let last = self.samples.last().expect("samples");
        let _ = write!(
            text,
            "after the first quarter: memory {} kB, descriptors {}, threads {}, tasks {}, page {}\n\
             {} scrapes, {:.1} ms (median) to {slowest:.1} ms; {} checkouts served, {} pieces of work in {:.0} s\n\
             {} restarts of the server, {} recoveries, the slowest in {:?}",
            range(|sample| sample.memory_kb),
            range(|sample| sample.descriptors),
            range(|sample| sample.threads),
            range(|sample| sample.tasks),
            range(|sample| sample.page),
            self.samples.len(),
            self.median_scrape(),
            last.checkouts,
            last.work,
            last.seconds,
            self.restarts.len(),
            last.recoveries,
            self.slowest_recovery(),
        );
        text
    }

    fn csv(&self) -> String {
        let mut text =
            String::from("seconds,memory_kb,descriptors,threads,tasks,page_bytes,scrape_ms,checkouts,work\n");
        for sample in &self.samples {
            let Sample { seconds, memory_kb, descriptors, threads, tasks, page, scrape_ms, checkouts, work, .. } =
                sample;
            let _ = writeln!(
                text,
                "{seconds:.1},{memory_kb},{descriptors},{threads},{tasks},{page},{scrape_ms:.1},{checkouts},{work}"
            );
        }
        text
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let written = || {
            let directory: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("soak");
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("load.csv"), self.csv())?;
            fs::write(directory.join("load.svg"), plot::svg(&self.samples, &self.restarts))
        };
        if let Err(error) = written() {
            assert!(std::thread::panicking(), "target/soak cannot be written: {error}");
        }
    }
}
