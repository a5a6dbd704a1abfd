use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::super::Recording;
use super::super::format::Header;
use super::super::listing::Listing;
use super::files::{IncidentFile, tidy};
use super::watch::Sample;
use super::window::{Ended, Window};
use super::writer::Writer;
use super::*;
use crate::diagnosis::interval::Interval;
use crate::labels::Cause;
use crate::telemetry::Limits;
use crate::telemetry::Verdict;
use crate::telemetry::clock::Clock;
use crate::telemetry::ledger::{Ledger, SnapshotBuffer};

fn settings(directory: &Path) -> IncidentSettings {
    IncidentSettings {
        before: Duration::from_secs(20),
        after: Duration::from_secs(10),
        ..IncidentSettings::new(directory)
    }
}

fn header() -> Header {
    let (clock, _) = Clock::mock();
    Header::new(&Ledger::new("shop".into(), Limits::for_tests(), clock))
}

fn sample(at_seconds: f64, cause: Cause, queued: usize) -> Sample {
    let verdict = Verdict {
        cause,
        lasting: Duration::ZERO,
        operation: None,
        call_site: None,
        finding: String::new(),
        evidence: Vec::new(),
        advice: String::new(),
        consequences: Vec::new(),
        sample_interval: Duration::from_secs(1),
    };
    Sample {
        pool: 0,
        at_seconds,
        interval: Interval { seconds: 1.0, ..Interval::default() },
        verdict: Some(Arc::new(verdict)),
        queued,
    }
}

/// Adds the samples from one second to another. Returns the file that ended, if one did.
fn add(window: &mut Window, seconds: std::ops::RangeInclusive<u32>, cause: Cause) -> Option<Ended> {
    let mut ended = None;
    for second in seconds {
        let sample = sample(second.into(), cause, second as usize);
        ended = window.add(&sample, true, || Some(Listing::default())).unwrap().or(ended);
    }
    ended
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn file_has_the_window_around_the_problem() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("a/b");
    let mut window = Window::new(header(), Arc::new(settings(&directory)));
    assert!(add(&mut window, 1..=60, Cause::Healthy).is_none());
    assert!(names(&directory).is_empty());
    let ended = add(&mut window, 61..=80, Cause::Leak);
    let Some(Ended::Complete(path)) = ended else { panic!("{ended:?}") };
    assert!(path.to_str().unwrap().ends_with("Z-leak.jsonl.gz"), "{path:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(&directory).len(), 1);
    let recording = Recording::open(&path).unwrap();
    assert_eq!(recording.truncation, None);
    let incident = recording.header.incident.unwrap();
    assert_eq!((&*incident.cause, incident.at_seconds), ("leak", 61.0));
    // So that the time of the problem is now, however long ago the pool was found.
    let started = humantime::parse_rfc3339(&recording.header.started).unwrap();
    assert!(started.elapsed().unwrap() >= Duration::from_millis(60_900), "{started:?}");
    let (first, last) = (&recording.seconds[0], recording.seconds.last().unwrap());
    // Segments are kept as a whole.
    assert!((36.0..=41.0).contains(&first.at_seconds) && last.at_seconds == 71.0, "{first:?}");
    assert_eq!(first.verdict.as_ref().unwrap().cause, "healthy");
    let expected = (last.at_seconds - first.at_seconds) as usize + 1;
    assert_eq!(recording.seconds.len(), expected, "each second once");
    // More waited at each second than before.
    assert_eq!(recording.listings.len(), 11);
    // The problem lasts: no other file, until it returns.
    assert!(!window.is_recording());
    add(&mut window, 81..=90, Cause::Healthy);
    assert!(add(&mut window, 91..=101, Cause::Leak).is_some());
    assert_eq!(names(&directory).len(), 2);
}

#[test]
fn further_problems_extend_the_file_within_a_limit() {
    let home = tempfile::tempdir().unwrap();
    let mut window = Window::new(header(), Arc::new(settings(home.path())));
    add(&mut window, 1..=5, Cause::Leak);
    let mut ended = None;
    for second in 6..200 {
        let cause = if second % 2 == 0 { Cause::Undersized } else { Cause::SlowQueries };
        ended = add(&mut window, second..=second, cause);
        if ended.is_some() {
            break;
        }
    }
    let Some(Ended::Complete(path)) = ended else { panic!("{ended:?}") };
    assert_eq!(Recording::open(path).unwrap().seconds.last().unwrap().at_seconds, 51.0);
}

#[test]
fn killed_process_leaves_all_but_some_seconds() {
    let home = tempfile::tempdir().unwrap();
    let mut window = Window::new(header(), Arc::new(settings(home.path())));
    add(&mut window, 1..=30, Cause::Healthy);
    for second in 31..=40 {
        add(&mut window, second..=second, Cause::ServerDown);
        let partial = &names(home.path())[0];
        assert!(partial.ends_with("Z-server_down.jsonl.gz.partial"), "{partial}");
        let recording = Recording::open(home.path().join(partial)).unwrap();
        let last = recording.seconds.last().unwrap().at_seconds;
        assert!(f64::from(second) - last <= 5.0, "{last} of {second}");
        let truncation = recording.truncation.unwrap();
        assert_eq!(truncation.readable_seconds, last);
        // Half of a segment, as of a process that is killed while it writes.
        let bytes = fs::read(home.path().join(partial)).unwrap();
        let cut = Recording::read(&bytes[..bytes.len() - 9]).unwrap();
        assert!(cut.truncation.is_some() && !cut.seconds.is_empty());
    }
}

#[test]
fn missing_directory_is_tried_until_it_can_be_written() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("incidents");
    fs::write(&directory, "a file").unwrap();
    let mut window = Window::new(header(), Arc::new(settings(&directory)));
    add(&mut window, 1..=20, Cause::Healthy);
    let listing = || None;
    assert!(window.add(&sample(21.0, Cause::Leak, 1), true, listing).is_err());
    assert!(window.is_recording());
    fs::remove_file(&directory).unwrap();
    let Some(Ended::Complete(path)) = add(&mut window, 22..=40, Cause::Leak) else { panic!() };
    let recording = Recording::open(path).unwrap();
    // Of the time before, what was still kept when it could be written.
    assert_eq!((recording.seconds[0].at_seconds, recording.seconds.len(), recording.truncation), (6.0, 26, None));
}

/// Also right after a segment has ended.
#[test]
fn request_records_holders_and_waiters() {
    for seconds in 1..=11 {
        let home = tempfile::tempdir().unwrap();
        let mut window = Window::new(header(), Arc::new(settings(home.path())));
        add(&mut window, 1..=seconds, Cause::Healthy);
        window.request(|| Some(Listing::default())).unwrap();
        // Another one continues the file.
        window.request(|| Some(Listing::default())).unwrap();
        let Some(Ended::Complete(path)) = window.finish() else { panic!() };
        let recording = Recording::open(path).unwrap();
        assert_eq!((recording.seconds.len(), recording.listings.len()), (seconds as usize, 2));
    }
}

#[test]
fn failed_append_leaves_no_part() {
    let home = tempfile::tempdir().unwrap();
    let mut file = IncidentFile::create(home.path(), "shop", SystemTime::UNIX_EPOCH, "leak").unwrap();
    file.append(b"abc").unwrap();
    // As a disk that became full in the middle of a segment.
    fs::write(home.path().join(&names(home.path())[0]), b"abcdef").unwrap();
    file.truncate().unwrap();
    file.append(b"gh").unwrap();
    assert_eq!(fs::read(file.complete().unwrap()).unwrap(), b"abcgh");
    assert_eq!(names(home.path()), ["poolscope-shop-19700101T000000Z-leak.jsonl.gz"]);
}

/// As by another process, after a suspension.
#[test]
fn file_that_was_taken_for_abandoned_is_completed() {
    let home = tempfile::tempdir().unwrap();
    let create = || IncidentFile::create(home.path(), "shop", SystemTime::UNIX_EPOCH, "leak").unwrap();
    let mut file = create();
    let later = SystemTime::now() + Duration::from_secs(3600);
    tidy(&settings(home.path()), later, &[file.partial()]).unwrap();
    assert!(names(home.path())[0].ends_with(".partial"), "this process writes it");
    tidy(&settings(home.path()), later, &[]).unwrap();
    file.append(b"abc").unwrap();
    let path = file.complete().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"abc");
    let file = create();
    fs::remove_file(file.partial()).unwrap();
    assert_eq!(file.complete().unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn file_that_cannot_be_completed_does_not_keep_others() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("poolscope-0.jsonl.gz")).unwrap();
    for name in ["poolscope-0.jsonl.gz.partial", "poolscope-1.jsonl.gz.partial", "poolscope-2.jsonl.gz"] {
        fs::write(home.path().join(name), "").unwrap();
    }
    let mut settings = settings(home.path());
    settings.max_files = 0;
    tidy(&settings, SystemTime::now() + Duration::from_secs(3600), &[]).unwrap_err();
    assert_eq!(names(home.path()), ["poolscope-0.jsonl.gz", "poolscope-0.jsonl.gz.partial"]);
}

#[test]
fn names_stay_in_the_directory_and_are_unique() {
    let home = tempfile::tempdir().unwrap();
    let create = || IncidentFile::create(home.path(), "../../etc/ä b", SystemTime::UNIX_EPOCH, "leak").unwrap();
    let files = [create(), create()];
    let paths = files.map(|file| file.complete().unwrap());
    assert_eq!(
        names(home.path()),
        [
            "poolscope-.._.._etc___b-19700101T000000Z-leak-2.jsonl.gz",
            "poolscope-.._.._etc___b-19700101T000000Z-leak.jsonl.gz",
        ]
    );
    assert!(paths.iter().all(|path| path.parent() == Some(home.path())));
}

#[test]
fn number_size_and_age_of_files_are_bounded() {
    let home = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let write = |name: &str, bytes: usize, age: u64| {
        let path = home.path().join(name);
        fs::write(&path, vec![b'x'; bytes]).unwrap();
        let modified = now - Duration::from_secs(age);
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    };
    for (name, bytes, age) in [
        ("poolscope-a.jsonl.gz", 10, 100),
        ("poolscope-b.jsonl.gz", 10, 200),
        ("poolscope-c.jsonl.gz", 10, 300),
        ("poolscope-killed.jsonl.gz.partial", 10, 150),
        ("poolscope-live.jsonl.gz.partial", 10, 5),
        ("poolscope-old.jsonl.gz", 1, 4000),
        ("other.jsonl.gz", 10, 9000),
        ("poolscope-notes.txt", 10, 9000),
    ] {
        write(name, bytes, age);
    }
    symlink(home.path().join("other.jsonl.gz"), home.path().join("poolscope-link.jsonl.gz")).unwrap();
    let others =
        ["other.jsonl.gz", "poolscope-link.jsonl.gz", "poolscope-live.jsonl.gz.partial", "poolscope-notes.txt"];
    let tidied = |limits: &dyn Fn(&mut IncidentSettings)| {
        let mut settings = IncidentSettings::new(home.path());
        limits(&mut settings);
        tidy(&settings, now, &[]).unwrap();
        names(home.path()).into_iter().filter(|name| !others.contains(&&**name)).collect::<Vec<_>>()
    };
    let [a, b, c, killed] = ["a", "b", "c", "killed"].map(|name| format!("poolscope-{name}.jsonl.gz"));
    assert_eq!(tidied(&|settings| settings.max_age = Duration::from_secs(3600)), [&*a, &b, &c, &killed]);
    assert_eq!(tidied(&|settings| settings.max_files = 3), [&*a, &b, &killed]);
    assert_eq!(tidied(&|settings| settings.max_bytes = 25), [&*a, &killed]);
    assert_eq!(names(home.path()).len(), 2 + others.len());
}

#[test]
fn recorder_writes_on_request_and_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    let collector = Collector::new();
    let (clock, mock) = Clock::mock();
    let ledger = collector.join("shop", None, |name| Ledger::new(name, Limits::for_tests(), clock));
    ledger.set_diagnoser(Box::new(crate::diagnosis::Engine::default()));
    ledger.set_settings(vec![("pool_size", "1".to_owned())]);
    let recorder = IncidentRecorder::start(&collector, settings(home.path())).unwrap();
    let mut buffer = SnapshotBuffer::new();
    let mut sample = || {
        mock.increment(Duration::from_secs(1));
        ledger.sample(&mut buffer, Duration::ZERO, Duration::ZERO);
    };
    // The thread records the pool as soon as it has a sample.
    let begun = Instant::now();
    while names(home.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        sample();
        recorder.record(Some("shop"));
        recorder.record(Some("other"));
        thread::sleep(Duration::from_millis(10));
    }
    drop(recorder);
    let names = names(home.path());
    assert!(names.len() == 1 && names[0].ends_with("-requested.jsonl.gz"), "{names:?}");
    let recording = Recording::open(home.path().join(&names[0])).unwrap();
    assert_eq!((recording.truncation, &*recording.header.settings["pool_size"]), (None, "1"));
    assert_eq!(recording.header.incident.unwrap().cause, "requested");
    assert!(!recording.listings.is_empty());
    assert!(incidents::totals().unwrap().files > 0);
}

#[test]
fn every_sample_of_a_new_pool_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    let collector = Collector::new();
    let recorder = IncidentRecorder::start(&collector, settings(home.path())).unwrap();
    // Whether the thread has looked for pools meanwhile or not.
    for pool in ["first", "second"] {
        let (clock, mock) = Clock::mock();
        let ledger = collector.join(pool, None, |name| Ledger::new(name, Limits::for_tests(), clock));
        ledger.set_settings(vec![("pool_size", "1".to_owned())]);
        ledger.set_diagnoser(Box::new(crate::diagnosis::Engine::default()));
        let mut buffer = SnapshotBuffer::new();
        for _ in 0..4 {
            mock.increment(Duration::from_secs(1));
            ledger.sample(&mut buffer, Duration::ZERO, Duration::ZERO);
        }
        recorder.record(Some(pool));
        let file = || {
            let paths = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
            paths.filter_map(|path| Recording::open(path).ok()).find(|recording| recording.header.pool == pool)
        };
        until("a file", || file().is_some_and(|recording| !recording.listings.is_empty()));
        let recording = file().unwrap();
        let seconds: Vec<_> = recording.seconds.iter().map(|second| second.at_seconds).collect();
        assert_eq!(seconds, [1.0, 2.0, 3.0], "{pool}");
        assert_eq!(&*recording.header.settings["pool_size"], "1");
    }
}

/// Waits for a condition.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn request_for_many_pools_begins_some_files() {
    let home = tempfile::tempdir().unwrap();
    let collector = Collector::new();
    let ledger = || collector.join("shop", None, |name| Ledger::new(name, Limits::for_tests(), Clock::mock().0));
    let _ledgers: Vec<_> = (0..20).map(|_| ledger()).collect();
    let recorder = IncidentRecorder::start(&collector, settings(home.path())).unwrap();
    recorder.record(None);
    recorder.finish();
    let is_complete = |name: &String| name.ends_with(".gz");
    until("the files are complete", || !names(home.path()).is_empty() && names(home.path()).iter().all(is_complete));
    assert_eq!(names(home.path()).len(), 16);
}

/// The disk has not kept up, so that the queue is full when the process ends.
#[test]
fn recorder_with_a_full_queue_ends() {
    let home = tempfile::tempdir().unwrap();
    let (handle, incoming) = Handle::new(1);
    let writer = Writer::new(Collector::new(), settings(home.path()), &handle);
    handle.queue.try_send(Message::Record(None)).unwrap();
    handle.finish(Duration::ZERO);
    let thread = thread::spawn(move || writer.run(&incoming));
    until("the thread has ended", || thread.is_finished());
}
