//! Classes of failures, by SQLSTATE.

use crate::labels::{ConnectFailure, ErrorCode, label_enum};

label_enum! {
    /// The kind of a failure; the [module](crate::retry) lists the SQLSTATEs of each.
    Class {
        /// Rolled back for a temporary reason: a serialization failure, a deadlock, an unavailable lock.
        Transient => "transient",
        /// The connection could not be established.
        Connect => "connect",
        /// The server is read-only: it is, or became, a standby.
        ReadOnly => "read_only",
        /// A prepared statement no longer exists, or its result type changed.
        StaleStatement => "stale_statement",
        /// The session ended.
        Lost => "lost",
        /// The server does not know whether the statement took effect.
        Unknown => "unknown",
        /// The server lacks memory, disk space or another resource.
        Resources => "resources",
        /// No connection was available within `checkout_timeout`.
        CheckoutTimeout => "checkout_timeout",
        /// A repetition cannot succeed.
        Permanent => "permanent",
        /// The work failed without an error from the server.
        Application => "application",
        /// Unknown, because protocol messages are not read or were not understood.
        Unseen => "unseen",
        /// The deadline passed before any failure.
        CutOff => "cut_off",
    }
}

label_enum! {
    /// Whether a failed operation may have taken effect, in any of its attempts. Ordered by severity.
    Effects {
        /// Nothing took effect.
        None => "none",
        /// A statement outside a transaction was not answered; whether it took effect is unknown.
        StatementUnknown => "statement_unknown",
        /// A COMMIT was not answered; whether it took effect is unknown.
        CommitUnknown => "commit_unknown",
        /// Something was, or may have been, committed before the failure.
        Committed => "committed",
        /// Unknown, because protocol messages are not read or were not understood.
        Unseen => "unseen",
    }
}

/// Returns the class of a failure to connect. Nothing was executed, so only one that cannot pass is not retried.
pub(super) fn of_connect(failure: ConnectFailure) -> Class {
    match failure {
        ConnectFailure::Configuration => Class::Permanent,
        _ => Class::Connect,
    }
}

/// Returns the class of an error that the server reported during the work. `stale_plan` identifies the 0A000 "cached plan
/// must not change result type"; `ended` is whether the session ended.
pub(super) fn of_work(code: ErrorCode, stale_plan: bool, ended: bool) -> Class {
    match code.as_str() {
        "40001" | "40P01" | "55P03" | "55006" => Class::Transient,
        // Redis refuses these before it executes anything.
        "BUSY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "NOREPLICAS" | "TRYAGAIN" => Class::Transient,
        "25006" | "READONLY" => Class::ReadOnly,
        "26000" => Class::StaleStatement,
        "0A000" if stale_plan => Class::StaleStatement,
        "25P03" | "57P01" | "57P02" | "57P05" => Class::Lost,
        "08000" | "08003" | "08006" if ended => Class::Lost,
        // The server lost a connection to a foreign server, which may have committed.
        "08000" | "08003" | "08006" | "08007" | "40003" => Class::Unknown,
        "53000" | "53200" | "53400" | "58000" | "58030" | "MISCONF" | "OOM" => Class::Resources,
        _ => Class::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_have_their_documented_class() {
        for (codes, class) in [
            (&["40001", "40P01", "55P03", "55006"][..], Class::Transient),
            (&["BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN"], Class::Transient),
            (&["25006", "READONLY"], Class::ReadOnly),
            (&["26000"], Class::StaleStatement),
            (&["25P03", "57P01", "57P02", "57P05"], Class::Lost),
            (&["08000", "08003", "08006", "08007", "40003"], Class::Unknown),
            (&["53000", "53200", "53400", "58000", "58030", "MISCONF", "OOM"], Class::Resources),
            (
                &[
                    "22012",
                    "22P02",
                    "23505",
                    "23503",
                    "28P01",
                    "28000",
                    "42601",
                    "42P01",
                    "3D000",
                    "0A000",
                    "25P02",
                    "57014",
                    "57P04",
                    "40002",
                    "XX000",
                    "XX001",
                    "F0000",
                    "53100",
                    "53300",
                    "08004",
                    "08P01",
                    "P0001",
                    "00000",
                    "other",
                    "ERR",
                    "WRONGTYPE",
                    "MOVED",
                    "NOAUTH",
                    "NOSCRIPT",
                    "EXECABORT",
                ],
                Class::Permanent,
            ),
        ] {
            for code in codes {
                assert_eq!(of_work(ErrorCode::new(code), false, false), class, "{code}");
            }
        }
        assert_eq!(of_work(ErrorCode::new("0A000"), true, false), Class::StaleStatement);
        assert_eq!(of_work(ErrorCode::new("42601"), true, false), Class::Permanent);
        for code in ["08000", "08003", "08006"] {
            assert_eq!(of_work(ErrorCode::new(code), false, true), Class::Lost, "{code}");
        }
    }

    #[test]
    fn connect_failures_are_retried_unless_permanent() {
        for failure in ConnectFailure::ALL {
            let permanent = *failure == ConnectFailure::Configuration;
            assert_eq!(of_connect(*failure) == Class::Permanent, permanent, "{failure:?}");
        }
    }
}
