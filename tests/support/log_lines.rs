//! Counts log lines by their message.
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// The lines of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// How many there were.
    pub(crate) lines: u64,
    /// How many they say were suppressed.
    pub(crate) suppressed: u64,
}

/// The lines that this thread logs.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLines(Arc<Mutex<BTreeMap<(Level, String), Count>>>);

impl LogLines {
    /// Counts until the guard is dropped.
    pub(crate) fn capture(&self) -> DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    /// Returns the lines at `level` whose message begins with `message`.
    pub(crate) fn count(&self, level: Level, message: &str) -> Count {
        let mut count = Count::default();
        for ((found, text), lines) in &*self.0.lock().unwrap() {
            if *found == level && text.starts_with(message) {
                count.lines += lines.lines;
                count.suppressed += lines.suppressed;
            }
        }
        count
    }

    /// Returns the number of lines above `debug`.
    pub(crate) fn total(&self) -> u64 {
        let is_shown = |level: Level| level <= Level::INFO;
        self.0.lock().unwrap().iter().filter(|((level, _), _)| is_shown(*level)).map(|(_, count)| count.lines).sum()
    }
}

impl<S: Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry((*event.metadata().level(), line.message)).or_default();
        count.lines += 1;
        count.suppressed += line.suppressed;
    }
}

#[derive(Default)]
struct Line {
    message: String,
    suppressed: u64,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "suppressed" {
            self.suppressed = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}
