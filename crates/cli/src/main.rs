//! The `poolscope` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    poolscope_cli::run()
}
