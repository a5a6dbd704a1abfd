//! Error messages and exit codes.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use clap::builder::Styles;

use poolscope::text::ErrorChain;

/// The exit code of a failure.
pub(super) const FAILURE: u8 = 1;

/// The exit code for an invalid flag, URL or environment variable.
pub(super) const USAGE: u8 = 2;

/// Prints the error with its sources. Returns the exit code of invalid usage, or of a failure.
pub(super) fn fail(error: &dyn Error, is_usage: bool) -> ExitCode {
    print_error(&ErrorChain(error).to_string(), if is_usage { USAGE } else { FAILURE })
}

/// Prints an error, and returns the exit code.
pub(super) fn print_error(problem: &str, code: u8) -> ExitCode {
    let style = *Styles::styled().get_error();
    // Fails only if standard error is closed.
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {problem}");
    ExitCode::from(code)
}
