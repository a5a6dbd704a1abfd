//! Runs a program on a pseudo-terminal, and interprets what it writes.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{Pty, open};

/// Long enough for a busy machine; only failing tests wait for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A program on a terminal. It is killed when this is dropped.
pub(crate) struct PseudoTerminal {
    pty: Arc<Pty>,
    child: Child,
    written: Arc<Mutex<Written>>,
    reader: Option<JoinHandle<()>>,
}

struct Written {
    bytes: Vec<u8>,
    screen: vt100::Parser,
}

fn size(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a size")
}

impl PseudoTerminal {
    /// Starts a program as the leader of a session with its own terminal.
    pub(crate) fn start(command: Command, columns: u16, rows: u16) -> Self {
        let (pty, slave) = open().expect("a terminal");
        pty.resize(Size::new(rows, columns)).expect("a size");
        let command = pty_process::blocking::Command::from(command).env("TERM", "xterm-256color");
        let child = command.spawn(slave).expect("the program");
        let pty = Arc::new(pty);
        let written = Written { bytes: Vec::new(), screen: vt100::Parser::new(size(rows), size(columns), 0) };
        let written = Arc::new(Mutex::new(written));
        let reader = thread::spawn({
            let (pty, written) = (Arc::clone(&pty), Arc::clone(&written));
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = (&*pty).read(&mut buffer) {
                    let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                    written.bytes.extend_from_slice(&buffer[..length]);
                    written.screen.process(&buffer[..length]);
                }
            }
        });
        Self { pty, child, written, reader: Some(reader) }
    }

    fn with<T>(&self, read: impl FnOnce(&mut Written) -> T) -> T {
        read(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the rows of the screen.
    pub(crate) fn rows(&self) -> Vec<String> {
        self.with(|written| {
            let screen = written.screen.screen();
            screen.rows(0, screen.size().1.get()).map(|row| row.trim_end().to_owned()).collect()
        })
    }

    /// Waits until the screen is as expected, and returns its rows.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&[String]) -> bool) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let rows = self.rows();
            if holds(&rows) {
                return rows;
            }
            assert!(begun.elapsed() < TIMEOUT, "still waiting for {what}:\n{}", rows.join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a row contains this text.
    pub(crate) fn wait_for_text(&self, text: &str) -> Vec<String> {
        self.wait_for(text, |rows| rows.iter().any(|row| row.contains(text)))
    }

    /// Types keys.
    pub(crate) fn write(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).expect("the keys");
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.with(|written| written.screen.screen_mut().set_size(size(rows), size(columns)));
        self.pty.resize(Size::new(rows, columns)).expect("a size");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("a signal");
    }

    /// Waits for the end of the program, and returns its status and everything that it wrote.
    pub(crate) fn end(mut self) -> (ExitStatus, Ended) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                break status;
            }
            assert!(begun.elapsed() < TIMEOUT, "the program does not end:\n{}", self.rows().join("\n"));
            thread::sleep(Duration::from_millis(10));
        };
        // Reading ends when the last handle of the slave is closed.
        self.reader.take().expect("called once").join().expect("the reader");
        let modes = tcgetattr(&*self.pty).expect("the modes").local_flags;
        let is_cooked = modes.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        let ended = self.with(|written| {
            let screen = written.screen.screen();
            Ended {
                text: String::from_utf8_lossy(&written.bytes).into_owned(),
                is_restored: is_cooked && !screen.alternate_screen() && !screen.hide_cursor(),
            }
        });
        (status, ended)
    }
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a program that has ended.
pub(crate) struct Ended {
    /// Everything that it wrote, with the escape sequences.
    pub(crate) text: String,
    /// Whether the modes, the screen and the cursor are as they were.
    pub(crate) is_restored: bool,
}
