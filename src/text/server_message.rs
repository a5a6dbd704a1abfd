//! The message of a server's error, if it quotes no values.

use std::fmt::{self, Display};

use tokio_postgres::error::{DbError, SqlState};

/// The classes of SQLSTATEs whose messages name objects, limits or states, but quote no literals or values of rows.
/// Those of the other classes may: `invalid input syntax for type integer: "…"` (22P02), `syntax error at or near "…"` (42601).
const CLASSES: [&str; 17] =
    ["00", "01", "08", "0A", "23", "25", "26", "28", "2D", "3B", "3D", "40", "53", "54", "55", "57", "58"];

/// The function of PL/pgSQL that raises an exception, whose message a statement chooses.
const RAISE: &str = "exec_stmt_raise";

/// Displays a server's error by its message, or by its SQLSTATE if the message may quote literals, parameters or values of
/// rows. The fields DETAIL and HINT, which quote the row that violates a constraint, are not displayed.
pub(super) struct ServerMessage<'a>(pub(super) &'a DbError);

impl Display for ServerMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        if quotes_no_values(error) {
            write!(f, "{}: {}", error.severity(), error.message())
        } else {
            write!(f, "{}: SQLSTATE {} (its message may quote values)", error.severity(), error.code().code())
        }
    }
}

fn quotes_no_values(error: &DbError) -> bool {
    let code = error.code();
    let is_safe = code.code().get(..2).is_some_and(|class| CLASSES.contains(&class))
        || [SqlState::DIVISION_BY_ZERO, SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_TABLE].contains(code);
    is_safe && error.routine() != Some(RAISE)
}
