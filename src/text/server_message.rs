//! The message of a server's error, if it quotes no values.

use std::fmt::{self, Display};

use tokio_postgres::error::{DbError, SqlState};

/// The classes of SQLSTATEs whose messages name objects, limits or states, but quote no literals or values of rows.
/// Those of the other classes may: `invalid input syntax for type integer: "…"` (22P02), `syntax error at or near "…"` (42601).
/// Messages of class 58 name files, as a statement or its data may.
const CLASSES: [&str; 15] = ["00", "01", "08", "0A", "25", "26", "28", "2D", "3B", "3D", "40", "53", "54", "55", "57"];

/// The class of violated constraints. Extensions and procedures use its codes for checks of their own, so that its
/// messages are known only by the functions that report them.
const CONSTRAINTS: &str = "23";

/// The server's functions that report violated constraints, whose messages name the constraint, the table and the column.
const CONSTRAINT_ROUTINES: [&str; 16] = [
    "ATRewriteTable",
    "AlterDomainNotNull",
    "ExecConstraints",
    "ExecEvalConstraintCheck",
    "ExecEvalConstraintNotNull",
    "ExecFindPartition",
    "ExecPartitionCheckEmitError",
    "ReportNotNullViolationError",
    "_bt_check_unique",
    "check_exclusion_or_unique_constraint",
    "comparetup_index_btree",
    "comparetup_index_btree_tiebreak",
    "domain_check_input",
    "ri_ReportViolation",
    "validateDomainCheckConstraint",
    "validateDomainConstraint",
];

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
    match code.code().get(..2) {
        Some(CONSTRAINTS) => error.routine().is_some_and(|routine| CONSTRAINT_ROUTINES.contains(&routine)),
        class => {
            let is_safe = class.is_some_and(|class| CLASSES.contains(&class))
                || [SqlState::DIVISION_BY_ZERO, SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_TABLE]
                    .contains(code);
            is_safe && error.routine() != Some(RAISE)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio_postgres::{Config, NoTls};

    use super::super::ErrorChain;

    const SECRET: &str = "secret";

    /// Returns the error of a server that refuses a connection with these fields.
    async fn error(code: &str, message: &str, routine: &str) -> tokio_postgres::Error {
        let fields = [("S", "ERROR"), ("C", code), ("M", message), ("D", SECRET), ("H", SECRET), ("R", routine)];
        let body: String = fields.iter().map(|(letter, value)| format!("{letter}{value}\0")).collect::<String>() + "\0";
        let (client, mut server) = tokio::io::duplex(4096);
        server.write_u8(b'E').await.unwrap();
        server.write_u32(u32::try_from(body.len() + 4).unwrap()).await.unwrap();
        server.write_all(body.as_bytes()).await.unwrap();
        Config::new().user("app").connect_raw(client, NoTls).await.err().unwrap()
    }

    #[tokio::test]
    async fn outermost_error_is_displayed_as_its_sources_are() {
        let error = error("22P02", SECRET, "pg_strtoint32").await;
        let hidden = "ERROR: SQLSTATE 22P02 (its message may quote values)";
        assert_eq!(ErrorChain(&error).to_string(), format!("db error: {hidden}"));
        assert_eq!(ErrorChain(error.as_db_error().unwrap()).to_string(), hidden);
    }

    #[tokio::test]
    async fn messages_of_known_reports_are_displayed() {
        for (code, routine, displayed) in [
            ("23505", "_bt_check_unique", true),
            ("23514", "ExecConstraints", true),
            ("23503", "ri_ReportViolation", true),
            ("23514", "audit_trigger", false),
            ("23514", "exec_stmt_raise", false),
            ("23505", "", false),
            ("40001", "CheckForSerializationConflict", true),
            ("40001", "exec_stmt_raise", false),
            ("53300", "InitProcess", true),
            ("58P01", "BeginCopyFrom", false),
            ("58030", "FileReadV", false),
            ("42601", "scanner_yyerror", false),
        ] {
            let error = error(code, SECRET, routine).await;
            assert_eq!(ErrorChain(&error).to_string().contains(SECRET), displayed, "{code} {routine}");
        }
    }
}
