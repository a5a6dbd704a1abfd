//! The Python interpreter that runs the client.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use poolscope_testing::server::VARIABLES;

use super::super::error::DemoError;

/// The environment variable with the interpreter's path.
const VARIABLE: &str = "POOLSCOPE_PYTHON";

/// Where Python and its packages are, if not in the default places.
const PYTHON_VARIABLES: [&str; 3] = ["PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"];

/// Imports what the client needs, and prints what is missing.
const CHECK: &str = "\
try:
    import psycopg, sqlalchemy
    sqlalchemy.create_engine('postgresql+psycopg://')
except ModuleNotFoundError as error:
    print('no module ' + str(error.name))
except ImportError:
    print('no libpq for psycopg')
except sqlalchemy.exc.SQLAlchemyError:
    print('SQLAlchemy ' + sqlalchemy.__version__ + ' instead of 2')
";

/// An interpreter that has the packages of the client.
#[derive(Debug)]
pub(in crate::demo) struct Interpreter(OsString);

impl Interpreter {
    /// Returns the interpreter that `POOLSCOPE_PYTHON` names, or else `python3`.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be run, or lacks a package.
    pub(in crate::demo) fn find() -> Result<Self, DemoError> {
        let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let interpreter = Self(named.unwrap_or_else(|| "python3".into()));
        let missing =
            |problem: String| DemoError::Python { interpreter: interpreter.0.to_string_lossy().into_owned(), problem };
        let output = interpreter.command().args(["-c", CHECK]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| missing(format!("cannot be run: {error}")))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        match (printed.trim(), output.status.success()) {
            ("", true) => Ok(interpreter),
            ("", false) => Err(missing("fails".to_owned())),
            (problem, _) => Err(missing(format!("has {problem}"))),
        }
    }

    /// Returns a command that runs it, with the variables that it needs only: those of libpq would redirect the client, and
    /// others have secrets.
    pub(in crate::demo) fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        let passed = VARIABLES.iter().chain(&PYTHON_VARIABLES);
        command.env_clear().envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))));
        command
    }
}
