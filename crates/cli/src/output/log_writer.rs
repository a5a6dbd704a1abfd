//! Passes log lines to the console's thread.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use super::Queue;

/// Queues log lines, or loses them if the queue is full. Never blocks.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Queue);

impl LogWriter {
    pub(super) fn new(queue: Queue) -> Self {
        Self(queue)
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { queue: self.0.clone(), line: Vec::new() }
    }
}

/// A log line, which is queued when it is dropped.
#[derive(Debug)]
pub(crate) struct LogLine {
    queue: Queue,
    line: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.queue.offer_log(std::mem::take(&mut self.line));
        }
    }
}
