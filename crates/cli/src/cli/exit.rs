//! Error messages and exit codes.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::builder::Styles;

use poolscope::text::ErrorChain;

use crate::output::Console;

/// The exit code of a failure.
pub(super) const FAILURE: u8 = 1;

/// The exit code for an invalid flag, URL or environment variable.
pub(super) const USAGE: u8 = 2;

/// Returns the exit code of invalid usage, or of a failure.
pub(super) const fn exit_code(is_usage: bool) -> u8 {
    if is_usage { USAGE } else { FAILURE }
}

/// Prints the error with its sources. Returns the exit code of invalid usage, or of a failure.
pub(super) fn fail(error: &(dyn Error + 'static), is_usage: bool) -> ExitCode {
    print_error(&ErrorChain(error).to_string(), exit_code(is_usage))
}

/// Ends a long-running command: prints its error, if there is one, and returns its exit code. Does not wait for a reader
/// of the output for longer than a few seconds.
pub(super) fn end(console: Console, result: Result<(), (String, u8)>) -> ExitCode {
    console.flush();
    let result = result.and_then(|()| console.result().map_err(|error| (not_written(&error), FAILURE)));
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((problem, code)) => {
            let mut line = anstream::AutoStream::new(Vec::new(), anstream::AutoStream::choice(&io::stderr()));
            // Writing to memory does not fail.
            let _ = write_error(&mut line, &problem);
            console.error(line.into_inner());
            ExitCode::from(code)
        }
    };
    console.finish();
    code
}

/// Returns the exit code of a command that has printed, and prints the error if that failed.
pub(super) fn printed(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => not_printed(&error, FAILURE),
    }
}

/// Prints why standard output failed, and returns the exit code.
pub(super) fn not_printed(error: &io::Error, code: u8) -> ExitCode {
    print_error(&not_written(error), code)
}

fn not_written(error: &io::Error) -> String {
    format!("cannot write to standard output: {error}")
}

/// Prints an error, and returns the exit code.
pub(super) fn print_error(problem: &str, code: u8) -> ExitCode {
    // Fails only if standard error is closed.
    let _ = write_error(&mut anstream::stderr(), problem);
    ExitCode::from(code)
}

fn write_error(output: &mut impl io::Write, problem: &str) -> io::Result<()> {
    let style = *Styles::styled().get_error();
    writeln!(output, "{style}error:{style:#} {problem}")
}
