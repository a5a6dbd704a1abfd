//! What kind of failure it was, by what the server said.

use crate::labels::{ErrorCode, label_enum};

label_enum! {
    /// What kind of failure it was; the [module](crate::retry) says what is in each.
    Class {
        /// Rolled back as a whole, for a reason that passes: a serialization failure, a deadlock, a lock that is taken.
        Transient => "transient",
        /// No connection could be made.
        Connect => "connect",
        /// The server takes no writes: it is a standby, or became one.
        ReadOnly => "read_only",
        /// A prepared statement is no longer there, or not what it was.
        StaleStatement => "stale_statement",
        /// The session ended.
        Lost => "lost",
        /// The server does not know what became of it.
        Unknown => "unknown",
        /// The server is short of something: memory, a limit, its disk.
        Resources => "resources",
        /// It cannot succeed by being repeated.
        Permanent => "permanent",
        /// The work failed, and the server did not.
        Application => "application",
        /// The wire is not read, or was not understood, so nothing is known.
        Unseen => "unseen",
        /// The deadline passed before anything had failed.
        CutOff => "cut_off",
    }
}

label_enum! {
    /// Whether anything of an operation that failed may have taken effect, over all its attempts; the worst of them.
    Effects {
        /// Nothing did.
        None => "none",
        /// A statement outside a transaction was not answered: whether it took effect is not known.
        StatementUnknown => "statement_unknown",
        /// A COMMIT was not answered: whether it took effect is not known.
        CommitUnknown => "commit_unknown",
        /// Something was committed before it failed, or may have been.
        Committed => "committed",
        /// Nothing is known, since the wire is not read, or was not understood.
        Unseen => "unseen",
    }
}

/// The class of an error by which a connection could not be made.
pub(super) fn of_connect(code: ErrorCode) -> Class {
    match code.as_str() {
        "08000" | "08001" | "08006" | "53300" | "57P01" | "57P02" | "57P03" | "57P05" | "io" | "timeout" => {
            Class::Connect
        }
        _ => Class::Permanent,
    }
}

/// The class of an error that the server reported while the work was done. `stale_plan` tells one 0A000 from all others;
/// `ended` is whether the session is over.
pub(super) fn of_work(code: ErrorCode, stale_plan: bool, ended: bool) -> Class {
    match code.as_str() {
        "40001" | "40P01" | "55P03" | "55006" => Class::Transient,
        "25006" => Class::ReadOnly,
        "26000" => Class::StaleStatement,
        "0A000" if stale_plan => Class::StaleStatement,
        "25P03" | "57P01" | "57P02" | "57P05" => Class::Lost,
        "08000" | "08003" | "08006" if ended => Class::Lost,
        // The server has lost another: that of a foreign table, which may have committed.
        "08000" | "08003" | "08006" | "08007" | "40003" => Class::Unknown,
        "53000" | "53200" | "53400" | "58000" | "58030" => Class::Resources,
        _ => Class::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_has_the_class_that_the_sources_agree_on() {
        for (codes, class) in [
            (&["40001", "40P01", "55P03", "55006"][..], Class::Transient),
            (&["25006"], Class::ReadOnly),
            (&["26000"], Class::StaleStatement),
            (&["25P03", "57P01", "57P02", "57P05"], Class::Lost),
            (&["08000", "08003", "08006", "08007", "40003"], Class::Unknown),
            (&["53000", "53200", "53400", "58000", "58030"], Class::Resources),
            (
                &[
                    "22012", "22P02", "23505", "23503", "28P01", "28000", "42601", "42P01", "3D000", "0A000", "25P02",
                    "57014", "57P04", "40002", "XX000", "XX001", "F0000", "53100", "53300", "08004", "08P01", "P0001",
                    "00000", "other",
                ],
                Class::Permanent,
            ),
        ] {
            for code in codes {
                assert_eq!(of_work(ErrorCode::word(code), false, false), class, "{code}");
            }
        }
        assert_eq!(of_work(ErrorCode::word("0A000"), true, false), Class::StaleStatement);
        assert_eq!(of_work(ErrorCode::word("42601"), true, false), Class::Permanent);
        for code in ["08000", "08003", "08006"] {
            assert_eq!(of_work(ErrorCode::word(code), false, true), Class::Lost, "{code}");
        }
    }

    #[test]
    fn what_keeps_a_connection_from_being_made_passes_unless_it_is_a_refusal() {
        for code in ["53300", "57P03", "08001", "57P01", "io", "timeout"] {
            assert_eq!(of_connect(ErrorCode::word(code)), Class::Connect, "{code}");
        }
        for code in ["28P01", "28000", "3D000", "08004", "42501", "57P04", "tls", "auth", "other"] {
            assert_eq!(of_connect(ErrorCode::word(code)), Class::Permanent, "{code}");
        }
    }
}
