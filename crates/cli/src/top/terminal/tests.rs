use std::env;
use std::process::Command;
use std::time::Duration;

use self::pseudo_terminal::PseudoTerminal;
use super::*;
use crate::top::{Options, Source, TopError};

#[allow(dead_code, reason = "other tests need the rest of it")]
#[path = "../../../tests/support/pseudo_terminal.rs"]
mod pseudo_terminal;

/// Names the panic of the process that [`panicking_process`] runs in.
const VARIABLE: &str = "POOLSCOPE_TEST_PANIC";

/// Runs this test binary on a terminal with only [`panicking_process`].
fn run(panic: &str) -> PseudoTerminal {
    let mut command = Command::new(env::current_exe().unwrap());
    let test = "top::terminal::tests::panicking_process";
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(VARIABLE, panic);
    PseudoTerminal::start(command, 80, 24)
}

#[test]
fn panicking_process() {
    match env::var(VARIABLE).as_deref() {
        Ok("query") => {
            let source =
                Source { url: "http://a:1".to_owned(), query: Box::new(|| panic!("the query broke")), playback: None };
            let options = Options { delay: Duration::from_secs(1), iterations: None, is_color: true, is_utf8: true };
            let error = crate::top::run(vec![source], options).unwrap_err();
            assert!(matches!(error, TopError::Panicked), "{error:?}");
        }
        Ok("drawing") => {
            let mut screen = Screen::open().unwrap();
            screen.draw(|frame| frame.render_widget("drawn", frame.area())).unwrap();
            let _ = screen.draw(|_| panic!("the drawing broke"));
        }
        _ => {}
    }
}

#[test]
fn terminal_is_restored_before_a_panic_is_printed() {
    for panic in ["query", "drawing"] {
        let (_, ended) = run(panic).end();
        let text = &ended.text;
        assert!(ended.is_restored && text.contains("\x1b[?1049h"), "{text:?}");
        // Once, before the message, which would otherwise be lost or overwritten.
        let left: Vec<_> = text.match_indices("\x1b[?1049l").map(|(index, _)| index).collect();
        let message = text.find(&format!("the {panic} broke")).unwrap();
        assert!(left.len() == 1 && left[0] < message, "{text:?}");
    }
}
