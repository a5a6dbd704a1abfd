//! Whether what failed is tried again.

use super::class::{Class, Effects, of_connect, of_work};
use crate::error::CheckoutError;
use crate::labels::{ErrorCode, GiveUp};
use crate::pool::{Backend, code_of};
use crate::telemetry::evidence::{Evidence, Risk};

/// A failure as far as it matters for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) class: Class,
    /// What it says of itself; `None` if it was not the database's.
    pub(super) code: Option<ErrorCode>,
    pub(super) effects: Effects,
}

impl Failure {
    /// There was no connection for the attempt, so nothing was done.
    pub(super) fn of_checkout<M: Backend>(error: &CheckoutError<M::Error>) -> Self {
        let code = code_of::<M>(error);
        let class = match (error, code) {
            (CheckoutError::Connect { .. } | CheckoutError::Unavailable { .. }, Some(code)) => of_connect(code),
            _ => Class::Permanent,
        };
        Self { class, code, effects: Effects::None }
    }

    /// The work failed, and the wire has seen this of it.
    pub(super) fn of_work(evidence: Option<Evidence>) -> Self {
        let Some(evidence) = evidence else {
            return Self { class: Class::Unseen, code: None, effects: Effects::Unseen };
        };
        let class = match evidence.error {
            Some(code) => of_work(code, evidence.stale_plan, evidence.ended),
            None if evidence.ended => Class::Lost,
            None => Class::Application,
        };
        // A session that ends without a word.
        let code = evidence.error.or(evidence.ended.then_some(ErrorCode::IO));
        Self { class, code, effects: effects(evidence) }
    }

    /// Whether it is repeated, as far as that is the failure's affair.
    pub(super) fn verdict(&self, idempotent: bool) -> Result<(), GiveUp> {
        match self.class {
            Class::Permanent | Class::Application => Err(GiveUp::Permanent),
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

/// What may have taken effect of what was asked in a hold.
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
        let error = Some(ErrorCode::word(code)).filter(|_| code != "none");
        Failure::of_work(Some(Evidence { error, stale_plan: false, committed, risk, ended: code == "57P01" }))
    }

    #[test]
    fn what_took_no_effect_is_repeated_by_its_class_alone() {
        for (code, verdict) in [
            ("40001", Ok(())),
            ("57P01", Ok(())),
            ("25006", Ok(())),
            ("26000", Ok(())),
            ("40003", Err(GiveUp::NotIdempotent)),
            ("53200", Err(GiveUp::NotIdempotent)),
            ("23505", Err(GiveUp::Permanent)),
            ("none", Err(GiveUp::Permanent)),
        ] {
            assert_eq!(failure(code, false, Risk::None).verdict(false), verdict, "{code}");
            let permanent = verdict == Err(GiveUp::Permanent);
            assert_eq!(failure(code, true, Risk::Commit).verdict(true).is_err(), permanent, "{code}");
        }
    }

    #[test]
    fn what_may_have_taken_effect_is_repeated_only_if_it_is_idempotent() {
        for (committed, risk, reason, effects) in [
            (true, Risk::None, GiveUp::NotIdempotent, Effects::Committed),
            (true, Risk::Commit, GiveUp::NotIdempotent, Effects::Committed),
            (false, Risk::Statement, GiveUp::NotIdempotent, Effects::StatementUnknown),
            (false, Risk::Commit, GiveUp::CommitUnknown, Effects::CommitUnknown),
        ] {
            for code in ["40001", "57P01", "40003", "53200"] {
                let failure = failure(code, committed, risk);
                assert_eq!((failure.verdict(false), failure.verdict(true)), (Err(reason), Ok(())), "{code}");
                assert_eq!(failure.effects, effects);
            }
        }
    }

    #[test]
    fn a_session_that_ended_without_a_word_is_lost_and_what_nobody_saw_is_not_repeated() {
        let ended = Failure::of_work(Some(Evidence { ended: true, ..Evidence::default() }));
        assert_eq!((ended.class, ended.code, ended.verdict(false)), (Class::Lost, Some(ErrorCode::IO), Ok(())));
        let unseen = Failure::of_work(None);
        assert_eq!((unseen.class, unseen.verdict(true)), (Class::Unseen, Err(GiveUp::Unseen)));
    }
}
