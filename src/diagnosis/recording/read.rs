//! Reads recordings, and passes them through the diagnosis again.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::super::engine;
use super::super::interval::Interval;
use super::format::{FORMAT, FORMAT_VERSION, FormatVersion, Header, ReadLine, RecordedVerdict, interval_from};
use super::listing::Listing;
use crate::telemetry::Verdict;

/// The longest line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The size of a recording that is read, uncompressed, in bytes: more than a day.
const MAX_BYTES: u64 = 512 << 20;

/// The seconds of a recording that are read: more than a day. A second takes more memory than its line may have bytes.
const MAX_SECONDS: usize = 100_000;

/// The listings of a recording that are read. An incident file has at most some ten.
const MAX_LISTINGS: usize = 1000;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A recording of a pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recording {
    /// The first line.
    pub header: Header,
    /// The seconds that could be read, oldest first.
    pub seconds: Vec<Second>,
    /// Who held connections and who waited, at some moments, with their time in seconds since the recording's start.
    pub listings: Vec<(f64, Listing)>,
    /// Where and why reading ended before the end of the recording; `None` if it is complete.
    pub truncation: Option<Truncation>,
}

/// One line of a recording.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Second {
    /// The end of the interval, in seconds since the recording's start.
    pub at_seconds: f64,
    /// The verdict; `None` if it is the same as before.
    pub verdict: Option<RecordedVerdict>,
    /// The line itself, a JSON object. It may have members that this version does not know.
    pub json: String,
    pub(super) interval: Interval,
}

/// Where a recording is truncated or damaged.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Truncation {
    /// The number of the first line that could not be read; the header is line 1.
    pub line: usize,
    /// The time up to which it could be read, in seconds since its start.
    pub readable_seconds: f64,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, readable_seconds, reason } = self;
        write!(f, "the recording is readable for {readable_seconds:.0} s, up to line {}: {reason}", line - 1)
    }
}

/// Why a file could not be read as a recording at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be read.
    #[error("could not read the recording")]
    Io(#[from] io::Error),
    /// The first line is not the header of a recording.
    #[error("not a recording: its first line is no header")]
    NotARecording,
    /// The recording has a newer format.
    #[error("the recording has format {found}; this version reads up to {}.x", FORMAT_VERSION.major)]
    NewerFormat {
        /// The recording's version.
        found: FormatVersion,
    },
}

impl Recording {
    /// Reads a file, compressed with gzip or not.
    ///
    /// # Errors
    ///
    /// Returns an error unless at least the header could be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        Self::read(File::open(path)?)
    }

    /// Reads a recording, compressed with gzip or not. One that ends too early, or is damaged, is read up to there.
    ///
    /// # Errors
    ///
    /// Returns an error unless at least the header could be read.
    pub fn read(input: impl Read) -> Result<Self, ReadError> {
        Self::read_seconds(input, MAX_SECONDS)
    }

    /// Reads at most so many seconds of a recording.
    pub(super) fn read_seconds(input: impl Read, max_seconds: usize) -> Result<Self, ReadError> {
        let mut input = BufReader::new(input);
        if input.fill_buf()?.starts_with(&GZIP_MAGIC) {
            Self::read_lines(BufReader::new(MultiGzDecoder::new(input).take(MAX_BYTES)), max_seconds)
        } else {
            Self::read_lines(input.take(MAX_BYTES), max_seconds)
        }
    }

    fn read_lines(mut input: impl BufRead, max_seconds: usize) -> Result<Self, ReadError> {
        let first = match next_line(&mut input) {
            Ok(line) => line.unwrap_or_default(),
            Err(LineError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            Err(_) => String::new(),
        };
        let header: Header = serde_json::from_str(&first).map_err(|_| ReadError::NotARecording)?;
        if header.format != FORMAT {
            return Err(ReadError::NotARecording);
        }
        if header.version.major > FORMAT_VERSION.major {
            return Err(ReadError::NewerFormat { found: header.version });
        }
        let mut recording = Self { header, seconds: Vec::new(), listings: Vec::new(), truncation: None };
        for line in 2.. {
            match recording.read_line(&mut input, max_seconds) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let readable_seconds = recording.seconds.last().map_or(0.0, |second| second.at_seconds);
                    recording.truncation = Some(Truncation { line, readable_seconds, reason: error.to_string() });
                    break;
                }
            }
        }
        Ok(recording)
    }

    /// Reads a line. Returns whether it was not the last one.
    fn read_line(&mut self, input: &mut impl BufRead, max_seconds: usize) -> Result<bool, LineError> {
        let Some(json) = next_line(input)? else { return Err(LineError::NoEnd) };
        let ReadLine { t, interval, verdict, listing, end } = serde_json::from_str(&json)?;
        if end.is_some() {
            return Ok(false);
        }
        // Lines of other kinds belong to a later version.
        if let (Some(at_seconds), Some(interval)) = (t, interval) {
            if self.seconds.len() >= max_seconds {
                return Err(LineError::TooManySeconds(max_seconds));
            }
            let interval = interval_from(interval)?;
            self.seconds.push(Second { at_seconds, verdict, json, interval });
        } else if let (Some(at_seconds), Some(listing)) = (t, listing) {
            if self.listings.len() >= MAX_LISTINGS {
                return Err(LineError::TooManyListings);
            }
            self.listings.push((at_seconds, listing));
        }
        Ok(true)
    }

    /// Passes the recording through the diagnosis of this version of the library. Each second yields the verdict as of
    /// its end. What was usual for the pool before the recording began is unknown to it.
    #[must_use]
    pub fn replay(&self) -> Replay<'_> {
        Replay { seconds: self.seconds.iter(), state: engine::State::default(), verdict: None }
    }
}

/// The verdicts of a recording that is passed through the diagnosis again; see [`Recording::replay`].
#[derive(Debug)]
pub struct Replay<'a> {
    seconds: std::slice::Iter<'a, Second>,
    state: engine::State,
    verdict: Option<Verdict>,
}

impl<'a> Iterator for Replay<'a> {
    type Item = (&'a Second, Verdict);

    fn next(&mut self) -> Option<Self::Item> {
        let second = self.seconds.next()?;
        // After a gap, the last verdict remains.
        if let Some(verdict) = self.state.add(second.interval.clone()) {
            self.verdict = Some(verdict);
        }
        let verdict = self.verdict.get_or_insert_with(|| self.state.first_verdict());
        Some((second, verdict.clone()))
    }
}

/// Why a line could not be read.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("the file cannot be read further ({0})")]
    Io(#[from] io::Error),
    #[error("its last line is missing")]
    NoEnd,
    #[error("the line is incomplete")]
    Incomplete,
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("the recording has more than {0} seconds")]
    TooManySeconds(usize),
    #[error("the recording has more than {MAX_LISTINGS} listings of holders and waiters")]
    TooManyListings,
    #[error("the line is damaged ({0})")]
    Json(#[from] serde_json::Error),
    #[error("the line is not UTF-8")]
    Encoding(#[from] std::string::FromUtf8Error),
}

/// Reads a line without its line break; `None` at the end.
fn next_line(input: &mut impl BufRead) -> Result<Option<String>, LineError> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8(line)?)),
        Some(_) if line.len() as u64 + 1 >= MAX_LINE_BYTES => Err(LineError::TooLong),
        Some(_) => Err(LineError::Incomplete),
    }
}
