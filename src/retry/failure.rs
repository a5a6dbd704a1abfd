//! The decision whether a failure is retried.

use super::class::{Class, Effects, of_connect, of_work};
use crate::error::CheckoutError;
use crate::labels::{ErrorCode, GiveUp};
use crate::pool::{Backend, error_code};
use crate::telemetry::evidence::{Evidence, Risk};

/// The properties of a failure that decide whether it is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// The error's code; `None` if the database reported none.
    pub(super) code: Option<ErrorCode>,
    pub(super) effects: Effects,
}

impl Failure {
    /// Classifies a failed checkout, which executed nothing.
    pub(super) fn of_checkout<M: Backend>(error: &CheckoutError<M::Error>) -> Self {
        let class = match error {
            CheckoutError::Connect { source, .. } => of_connect(M::connect_failure(source)),
            CheckoutError::Unavailable { source, .. } => of_connect(source.failure),
            CheckoutError::Timeout(_) => Class::CheckoutTimeout,
            CheckoutError::Closed { .. } => Class::Permanent,
        };
        Self { class, code: error_code::<M>(error), effects: Effects::None }
    }

    /// Classifies a failure of the work by the evidence in the protocol messages, if they were read.
    pub(super) fn of_work(evidence: Option<Evidence>) -> Self {
        let Some(evidence) = evidence else {
            return Self { class: Class::Unseen, code: None, effects: Effects::Unseen };
        };
        let class = match evidence.error {
            Some(code) => of_work(code, evidence.stale_plan, evidence.ended),
            None if evidence.ended => Class::Lost,
            None => Class::Application,
        };
        // A session may end without an error message.
        let code = evidence.error.or(evidence.ended.then_some(ErrorCode::IO));
        Self { class, code, effects: effects(evidence) }
    }

    /// Returns whether the failure itself allows a retry, or the reason why not.
    pub(super) fn allows_retry(&self, idempotent: bool) -> Result<(), GiveUp> {
        match self.class {
            Class::Permanent | Class::Application => Err(GiveUp::Permanent),
            Class::CheckoutTimeout => Err(GiveUp::CheckoutTimeout),
            Class::Unseen => Err(GiveUp::Unseen),
            _ if idempotent => Ok(()),
            Class::Unknown if self.effects == Effects::None => Err(GiveUp::NotIdempotent),
            Class::Resources if self.effects == Effects::None => Err(GiveUp::NotIdempotent),
            _ => match self.effects {
                Effects::None => Ok(()),
                Effects::CommitUnknown => Err(GiveUp::CommitUnknown),
                Effects::StatementUnknown | Effects::Committed | Effects::Unseen => Err(GiveUp::NotIdempotent),
            },
        }
    }
}

/// Returns what may have taken effect while the connection was held.
pub(super) fn effects(evidence: Evidence) -> Effects {
    match (evidence.committed, evidence.risk) {
        (true, _) => Effects::Committed,
        (false, Risk::Commit) => Effects::CommitUnknown,
        (false, Risk::Statement) => Effects::StatementUnknown,
        (false, Risk::None) => Effects::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: &str, committed: bool, risk: Risk) -> Failure {
        let error = Some(ErrorCode::new(code)).filter(|_| code != "none");
        Failure::of_work(Some(Evidence { error, stale_plan: false, committed, risk, ended: code == "57P01" }))
    }

    #[test]
    fn failure_without_effects_is_retried_by_class() {
        for (code, decision) in [
            ("40001", Ok(())),
            ("57P01", Ok(())),
            ("25006", Ok(())),
            ("26000", Ok(())),
            ("40003", Err(GiveUp::NotIdempotent)),
            ("53200", Err(GiveUp::NotIdempotent)),
            ("23505", Err(GiveUp::Permanent)),
            ("none", Err(GiveUp::Permanent)),
        ] {
            assert_eq!(failure(code, false, Risk::None).allows_retry(false), decision, "{code}");
            let permanent = decision == Err(GiveUp::Permanent);
            assert_eq!(failure(code, true, Risk::Commit).allows_retry(true).is_err(), permanent, "{code}");
        }
    }

    #[test]
    fn possible_effects_require_idempotence() {
        for (committed, risk, reason, effects) in [
            (true, Risk::None, GiveUp::NotIdempotent, Effects::Committed),
            (true, Risk::Commit, GiveUp::NotIdempotent, Effects::Committed),
            (false, Risk::Statement, GiveUp::NotIdempotent, Effects::StatementUnknown),
            (false, Risk::Commit, GiveUp::CommitUnknown, Effects::CommitUnknown),
        ] {
            for code in ["40001", "57P01", "40003", "53200"] {
                let failure = failure(code, committed, risk);
                assert_eq!((failure.allows_retry(false), failure.allows_retry(true)), (Err(reason), Ok(())), "{code}");
                assert_eq!(failure.effects, effects);
            }
        }
    }

    #[test]
    fn silent_end_is_lost_and_unseen_is_not_retried() {
        let ended = Failure::of_work(Some(Evidence { ended: true, ..Evidence::default() }));
        assert_eq!((ended.class, ended.code, ended.allows_retry(false)), (Class::Lost, Some(ErrorCode::IO), Ok(())));
        let unseen = Failure::of_work(None);
        assert_eq!((unseen.class, unseen.allows_retry(true)), (Class::Unseen, Err(GiveUp::Unseen)));
    }
}
