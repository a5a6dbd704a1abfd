//! `poolscope top`: the pools of exporters in a terminal, once per second.
//!
//! One thread draws, and receives events from others: one for each exporter that queries it ([`poller`]), one that reads
//! the keys, and one that waits for signals ([`terminal`]). [`App`] is the state, which [`keys`] change; [`view`] draws it, and [`plain`] prints
//! it where there is no terminal.

mod app;
mod history;
mod keys;
mod list;
mod model;
mod plain;
mod poller;
mod terminal;
mod view;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use crossterm::event::Event as TerminalEvent;
use poolscope::text::printable;
use serde_json::Value;
use thiserror::Error;

use self::app::App;
use self::keys::Action;
use self::model::Pool;
use self::poller::Poller;
use self::terminal::Screen;
use self::view::Theme;
use crate::recorded::Playback;

/// Queries an exporter: returns the pools of `/api/v1/pools`, or why they are unknown.
pub(crate) type Query = Box<dyn Fn() -> Result<Vec<Value>, String> + Send>;

/// An exporter to watch.
pub(crate) struct Source {
    pub(crate) url: String,
    pub(crate) query: Query,
    /// The position of a recording.
    pub(crate) playback: Option<Arc<Playback>>,
}

/// The settings of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The time between two queries.
    pub(crate) delay: Duration,
    /// How many times the pools are printed without a terminal, or shown with one; no limit if `None`.
    pub(crate) iterations: Option<u64>,
    /// Whether colors are used.
    pub(crate) is_color: bool,
    /// Whether characters other than ASCII are used.
    pub(crate) is_utf8: bool,
}

/// Why the command failed.
#[derive(Debug, Error)]
pub(crate) enum TopError {
    /// The terminal cannot be set up, read or written.
    #[error("the terminal failed")]
    Terminal(#[source] io::Error),
    /// Standard output failed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// No exporter answered.
    #[error("no exporter answered")]
    NoAnswer,
    /// A thread panicked. It has printed why.
    #[error("a thread panicked")]
    Panicked,
}

/// What the drawing thread waits for.
#[derive(Debug)]
enum Event {
    /// The answer of an exporter.
    Answer { exporter: usize, pools: Result<Vec<Pool>, String> },
    /// A key, or a new size.
    Terminal(TerminalEvent),
    /// The terminal cannot be read.
    TerminalFailed(io::Error),
    /// A signal requests the end.
    End,
    /// A thread panicked.
    Panicked,
}

fn app(sources: &[Source]) -> App {
    App::new(sources.iter().map(|source| printable(&source.url).into_owned()))
}

/// Shows the pools on a terminal until a key or a signal ends it.
pub(crate) fn run(sources: Vec<Source>, options: Options) -> Result<(), TopError> {
    let mut app = app(&sources);
    let (events, received) = mpsc::channel();
    terminal::watch_signals(events.clone()).map_err(TopError::Thread)?;
    // Before other threads: a panic in one of them restores the terminal.
    let mut screen = Screen::open().map_err(TopError::Terminal)?;
    let playbacks: Vec<_> = sources.iter().filter_map(|source| source.playback.clone()).collect();
    let pollers = poller::start(sources, options.delay, &events).map_err(TopError::Thread)?;
    terminal::read_events(events).map_err(TopError::Thread)?;
    let result = show(&mut app, &mut screen, &received, (&pollers, &playbacks), options);
    if matches!(result, Err(TopError::Panicked)) {
        screen.abandon();
    }
    result
}

fn show(
    app: &mut App,
    screen: &mut Screen,
    received: &Receiver<Event>,
    (pollers, playbacks): (&[Poller], &[Arc<Playback>]),
    options: Options,
) -> Result<(), TopError> {
    let theme = Theme { is_color: options.is_color, is_utf8: options.is_utf8 };
    let mut answers = 0;
    loop {
        screen.draw(|frame| view::draw(frame, app, theme, SystemTime::now())).map_err(TopError::Terminal)?;
        // Several events, such as the answers of all exporters, are drawn at once.
        let Ok(event) = received.recv() else { return Ok(()) };
        for event in std::iter::once(event).chain(received.try_iter()) {
            let action = match event {
                Event::Answer { exporter, pools } => {
                    answers += u64::from(exporter == 0);
                    app.update(exporter, pools);
                    let is_last = options.iterations.is_some_and(|iterations| answers > iterations);
                    if is_last { Action::Quit } else { Action::None }
                }
                Event::Terminal(TerminalEvent::Key(key)) if key.is_press() => app.key(key),
                Event::Terminal(_) => Action::None,
                Event::TerminalFailed(error) => return Err(TopError::Terminal(error)),
                Event::End => Action::Quit,
                Event::Panicked => return Err(TopError::Panicked),
            };
            playbacks.iter().for_each(|playback| playback.pause(app.is_frozen));
            match action {
                Action::None => {}
                Action::Refresh => pollers.iter().for_each(Poller::query_now),
                Action::Seek(seconds) => {
                    playbacks.iter().for_each(|playback| playback.seek(seconds));
                    pollers.iter().for_each(Poller::query_now);
                }
                Action::Suspend => screen.suspend().map_err(TopError::Terminal)?,
                Action::Quit => return Ok(()),
            }
        }
    }
}

/// Prints the pools as plain text, once or `iterations` times.
pub(crate) fn print(sources: Vec<Source>, options: Options) -> Result<(), TopError> {
    let mut app = app(&sources);
    let count = sources.len();
    let (events, received) = mpsc::channel();
    let _pollers = poller::start(sources, options.delay, &events).map_err(TopError::Thread)?;
    for iteration in 0..options.iterations.unwrap_or(1) {
        // One answer of each exporter; a fast one may have answered twice.
        let mut missing: Vec<_> = (0..count).collect();
        while !missing.is_empty() {
            match received.recv() {
                Ok(Event::Answer { exporter, pools }) => {
                    missing.retain(|index| *index != exporter);
                    app.update(exporter, pools);
                }
                _ => return Err(TopError::Panicked),
            }
        }
        let separator = if iteration > 0 { "\n" } else { "" };
        let page = plain::page(&app, SystemTime::now());
        crate::output::print(&format!("{separator}{page}")).map_err(TopError::Output)?;
    }
    if app.totals().0 == 0 { Err(TopError::NoAnswer) } else { Ok(()) }
}
