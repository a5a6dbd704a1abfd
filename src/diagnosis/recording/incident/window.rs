//! The last minutes of one pool, compressed, and the file that is being written of them.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use super::super::format::{Header, IncidentHeader, ListingLine, RecordedVerdict, SecondLine, interval_json};
use super::super::listing::Listing;
use super::IncidentSettings;
use super::files::IncidentFile;
use super::watch::Sample;
use crate::telemetry::Verdict;

/// The length of a segment. A process that is killed loses at most what was not yet in one.
const SEGMENT_SECONDS: f64 = 5.0;

/// The longest time that a file covers after the beginning of its first problem, as a multiple of that of one problem.
const MAX_EXTENSION: f64 = 5.0;

/// The listings of one file: the first one, and the worst moments since.
const MAX_LISTINGS: usize = 24;

/// The time after which a listing as bad as the last one is taken again.
const LISTING_INTERVAL_SECONDS: f64 = 30.0;

/// The cause in the name of a file that was requested.
const REQUESTED: &str = "requested";

/// Some seconds, compressed.
#[derive(Debug)]
struct Segment {
    number: u64,
    last_seconds: f64,
    seconds: usize,
    bytes: Vec<u8>,
}

/// A file that is written, or that could not be created yet.
#[derive(Debug)]
struct Incident {
    header: IncidentHeader,
    begun: SystemTime,
    until: f64,
    limit: f64,
    file: Option<IncidentFile>,
    /// The number of the last segment in the file, and the number of seconds in it.
    written: Option<u64>,
    seconds: usize,
    /// The queue of the worst listing, when the last one was taken, and how many there are.
    worst: Option<(usize, f64)>,
    listings: usize,
}

/// What became of a file.
#[derive(Debug)]
pub(super) enum Ended {
    Complete(PathBuf),
    Failed(io::Error),
}

#[derive(Debug)]
pub(super) struct Window {
    header: Header,
    settings: Arc<IncidentSettings>,
    segments: VecDeque<Segment>,
    /// The number of segments that have ended.
    ended: u64,
    /// The lines of the segment that is not complete, the number of seconds among them, and the first one's beginning.
    pending: Vec<u8>,
    pending_seconds: usize,
    pending_from: f64,
    last_seconds: f64,
    last_verdict: Option<Arc<Verdict>>,
    incident: Option<Incident>,
}

fn line(lines: &mut Vec<u8>, value: &impl Serialize) {
    // A value without maps of other keys than strings can be encoded.
    if serde_json::to_writer(&mut *lines, value).is_ok() {
        lines.push(b'\n');
    }
}

fn compressed(lines: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(lines);
    encoder.finish().unwrap_or_default()
}

impl Window {
    pub(super) fn new(header: Header, settings: Arc<IncidentSettings>) -> Self {
        Self {
            header,
            settings,
            segments: VecDeque::new(),
            ended: 0,
            pending: Vec::new(),
            pending_seconds: 0,
            pending_from: 0.0,
            last_seconds: 0.0,
            last_verdict: None,
            incident: None,
        }
    }

    pub(super) fn is_recording(&self) -> bool {
        self.incident.is_some()
    }

    /// Adds a sample. `may_begin`: whether a file may be begun. `listing` reads the holders and waiters. Returns the file
    /// that has ended with it, and an error of the disk.
    pub(super) fn add(
        &mut self,
        sample: &Sample,
        may_begin: bool,
        listing: impl FnOnce() -> Option<Listing>,
    ) -> Result<Option<Ended>, io::Error> {
        let Sample { at_seconds, interval, verdict, .. } = sample;
        if self.pending_seconds == 0 {
            self.pending_from = at_seconds - interval.seconds;
        }
        let cause = |verdict: &Option<Arc<Verdict>>| verdict.as_ref().map(|verdict| verdict.cause);
        let is_changed = cause(verdict) != cause(&self.last_verdict);
        // In the first line of each segment, since a file begins with any.
        let recorded = (is_changed || self.pending_seconds == 0).then_some(verdict.as_deref()).flatten();
        let (interval_json, recorded) = (interval_json(interval), recorded.map(RecordedVerdict::from));
        let second = SecondLine { t: *at_seconds, interval: &interval_json, verdict: recorded.as_ref() };
        line(&mut self.pending, &second);
        self.pending_seconds += 1;
        self.last_seconds = *at_seconds;
        self.last_verdict.clone_from(verdict);
        let problem = verdict.as_ref().filter(|verdict| is_changed && verdict.is_problem());
        let begins = problem.is_some_and(|verdict| self.begin(verdict.cause.as_str(), may_begin));
        if self.needs_listing(sample)
            && let Some(listing) = listing()
        {
            line(&mut self.pending, &ListingLine { t: *at_seconds, listing: &listing });
        }
        let ends = self.incident.as_ref().is_some_and(|incident| *at_seconds >= incident.until);
        let is_full = at_seconds - self.pending_from >= SEGMENT_SECONDS;
        if begins || ends || is_full {
            self.end_segment();
            let written = self.write();
            if ends {
                return Ok(self.end(written));
            }
            written?;
        }
        Ok(None)
    }

    /// Begins a file, or continues the present one for longer. Returns whether one is begun.
    fn begin(&mut self, cause: &str, may_begin: bool) -> bool {
        let (at, after) = (self.last_seconds, self.settings.after.as_secs_f64());
        if let Some(incident) = &mut self.incident {
            incident.until = (at + after).min(incident.limit);
            return false;
        }
        if may_begin {
            self.incident = Some(Incident {
                header: IncidentHeader { cause: cause.to_owned(), at_seconds: at },
                begun: SystemTime::now(),
                until: at + after,
                limit: at + after * MAX_EXTENSION,
                file: None,
                written: None,
                seconds: 0,
                worst: None,
                listings: 0,
            });
        }
        may_begin
    }

    /// Begins a file that was requested, or continues the present one for longer. `listing` reads the holders and waiters.
    pub(super) fn request(&mut self, listing: impl FnOnce() -> Option<Listing>) -> Result<(), io::Error> {
        self.begin(REQUESTED, true);
        if let Some(listing) = listing() {
            line(&mut self.pending, &ListingLine { t: self.last_seconds, listing: &listing });
        }
        self.end_segment();
        self.write()
    }

    /// Returns the path of the file that is being written, if there is one.
    pub(super) fn partial(&self) -> Option<&Path> {
        Some(self.incident.as_ref()?.file.as_ref()?.partial())
    }

    /// Returns whether the holders and waiters of this moment are recorded: of the first one, and when more wait than at
    /// any before, or after a time.
    fn needs_listing(&mut self, sample: &Sample) -> bool {
        let Some(incident) = &mut self.incident else { return false };
        let needs = incident.worst.is_none_or(|(queued, at)| {
            sample.queued > queued || sample.at_seconds >= at + LISTING_INTERVAL_SECONDS && sample.queued >= queued
        });
        let needs = needs && incident.listings < MAX_LISTINGS;
        if needs {
            incident.worst = Some((sample.queued, sample.at_seconds));
            incident.listings += 1;
        }
        needs
    }

    /// Compresses the pending lines, and forgets segments that are too old.
    fn end_segment(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let bytes = compressed(&self.pending);
        self.ended += 1;
        let (number, last_seconds, seconds) = (self.ended, self.last_seconds, self.pending_seconds);
        self.segments.push_back(Segment { number, last_seconds, seconds, bytes });
        self.pending.clear();
        self.pending_seconds = 0;
        let oldest = self.last_seconds - self.settings.before.as_secs_f64();
        while self.segments.front().is_some_and(|segment| segment.last_seconds < oldest) {
            self.segments.pop_front();
        }
    }

    /// Writes the segments that are not in the file yet, which is created if it could not be before.
    fn write(&mut self) -> io::Result<()> {
        let Some(incident) = &mut self.incident else { return Ok(()) };
        let file = match &mut incident.file {
            Some(file) => file,
            none => {
                let (directory, cause) = (&self.settings.directory, &incident.header.cause);
                let mut file = IncidentFile::create(directory, &self.header.pool, incident.begun, cause)?;
                let mut header = Vec::new();
                let started = self.header.lasting(incident.header.at_seconds, incident.begun);
                line(&mut header, &Header { incident: Some(incident.header.clone()), ..started });
                match file.append(&compressed(&header)) {
                    Ok(()) => none.insert(file),
                    Err(error) => {
                        file.discard();
                        return Err(error);
                    }
                }
            }
        };
        for segment in &self.segments {
            if incident.written.is_some_and(|written| segment.number <= written) {
                continue;
            }
            file.append(&segment.bytes)?;
            incident.written = Some(segment.number);
            incident.seconds += segment.seconds;
        }
        Ok(())
    }

    /// Completes the file, if there is one.
    pub(super) fn finish(&mut self) -> Option<Ended> {
        self.end_segment();
        let written = self.write();
        self.end(written)
    }

    fn end(&mut self, written: io::Result<()>) -> Option<Ended> {
        let Incident { file, seconds, .. } = self.incident.take()?;
        let completed = written.and_then(|()| {
            let mut file = file.ok_or(io::ErrorKind::NotFound)?;
            let mut end = Vec::new();
            line(&mut end, &serde_json::json!({ "end": { "seconds": seconds } }));
            file.append(&compressed(&end))?;
            file.complete()
        });
        Some(match completed {
            Ok(path) => Ended::Complete(path),
            Err(error) => Ended::Failed(error),
        })
    }
}
