//! What statements do that lasts, as far as their first words tell.
//!
//! Who wants to do again what failed must know whether it took effect. A statement's effects last once its transaction
//! is committed, which is at once if it is in none. So what matters is which statements commit, which do nothing that
//! lasts, and which may commit in their midst and fail after that. Where the text does not tell, the worst is assumed.
//!
//! Source: PostgreSQL's documentation of the statements, and "Message Flow" there, "Multiple Statements in a Simple
//! Query" above all.

use super::listener::Transaction;
use crate::telemetry::evidence::Risk;

/// What a request's statements do, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deeds(u8);

impl Deeds {
    pub(super) const NONE: Self = Self(0);
    /// Whatever it does lasts when its transaction is committed.
    pub(super) const WORK: Self = Self(1);
    /// Nothing that outlives the session.
    const NOTHING: Self = Self(1 << 1);
    /// It takes the transaction back, if it is in one.
    const ROLLBACK: Self = Self(1 << 2);
    /// It commits the transaction it is in.
    const COMMIT: Self = Self(1 << 3);
    /// It may commit in its midst, if it is in no transaction.
    const PARTS: Self = Self(1 << 4);
    /// Several statements: any of the above, in any order.
    pub(super) const SEVERAL: Self = Self(1 << 5);

    /// By the first word of a statement.
    fn of(word: &[u8]) -> Self {
        const WORDS: [(&[u8], Deeds); 28] = [
            (b"BEGIN", Deeds::NOTHING),
            (b"START", Deeds::NOTHING),
            (b"SAVEPOINT", Deeds::NOTHING),
            (b"RELEASE", Deeds::NOTHING),
            (b"SET", Deeds::NOTHING),
            (b"RESET", Deeds::NOTHING),
            (b"SHOW", Deeds::NOTHING),
            (b"LISTEN", Deeds::NOTHING),
            (b"UNLISTEN", Deeds::NOTHING),
            (b"DISCARD", Deeds::NOTHING),
            (b"DEALLOCATE", Deeds::NOTHING),
            (b"CLOSE", Deeds::NOTHING),
            // Of a statement that may have been prepared by the protocol, a COMMIT too.
            (b"EXECUTE", Deeds::SEVERAL),
            (b"ROLLBACK", Deeds::ROLLBACK),
            (b"ABORT", Deeds::ROLLBACK),
            (b"COMMIT", Deeds::COMMIT),
            (b"END", Deeds::COMMIT),
            (b"PREPARE", Deeds::COMMIT),
            (b"CALL", Deeds::PARTS),
            (b"DO", Deeds::PARTS),
            (b"VACUUM", Deeds::PARTS),
            (b"ANALYZE", Deeds::PARTS),
            (b"CLUSTER", Deeds::PARTS),
            (b"REINDEX", Deeds::PARTS),
            (b"REPACK", Deeds::PARTS),
            (b"CREATE", Deeds::PARTS),
            (b"DROP", Deeds::PARTS),
            (b"ALTER", Deeds::PARTS),
        ];
        let known = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        known.map_or(Self::WORK, |(_, deeds)| *deeds)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the server's answers tell more than the text: which of several were done, or that it is a ROLLBACK
    /// PREPARED.
    pub(super) fn want_tags(self) -> bool {
        self.are_mixed() || self == Self::ROLLBACK
    }

    /// Whether there may be statements of several kinds, so that only the server's answers tell which were done.
    pub(super) const fn are_mixed(self) -> bool {
        self.has(Self::SEVERAL) || self.0.count_ones() > 1
    }

    /// Whether the request may have committed something by the time it was answered. `told` is whether the server said
    /// that it committed.
    pub(super) fn have_lasted(self, before: Transaction, after: Transaction, failed: bool, told: bool) -> bool {
        if told {
            return true;
        }
        match (before, failed) {
            (Transaction::None, true) => self.has(Self::PARTS),
            (_, true) => false,
            (Transaction::None, false) => after == Transaction::None && self != Self::NOTHING && self != Self::ROLLBACK,
            (Transaction::Open, false) => {
                self.has(Self::COMMIT) || (after == Transaction::None && self != Self::ROLLBACK)
            }
            // Whatever ends a transaction that failed takes it back.
            (Transaction::Failed, false) => after == Transaction::None && self.are_mixed(),
        }
    }

    /// Whether the request does nothing but take back a transaction: it succeeds whatever failed before.
    pub(super) fn only_end(self, before: Transaction) -> bool {
        self == Self::ROLLBACK || before == Transaction::Failed
    }

    /// What becomes of the request's work is not known if no answer comes to it.
    fn risk(self, before: Transaction) -> Risk {
        let commits = self.has(Self::COMMIT) || self.are_mixed();
        match before {
            Transaction::None if self == Self::NOTHING => Risk::None,
            Transaction::None if self.has(Self::COMMIT) => Risk::Commit,
            Transaction::None => Risk::Statement,
            Transaction::Open if commits => Risk::Commit,
            Transaction::Failed if self.are_mixed() => Risk::Commit,
            Transaction::Open | Transaction::Failed => Risk::None,
        }
    }

    /// The risk of requests that are not answered, in their order, when the last answer said `transaction`. Of each it
    /// is said whether it has failed: most are known to have come to nothing then.
    pub(super) fn risk_of(requests: impl Iterator<Item = (Self, bool)>, transaction: Transaction) -> Risk {
        let mut before = transaction;
        let mut worst = Risk::None;
        for (deeds, failed) in requests {
            if !failed || deeds.are_mixed() || deeds.has(Self::PARTS) {
                worst = worst.max(deeds.risk(before));
            }
            // What comes behind may find another transaction, or none: only work leaves it as it is.
            if deeds != Self::WORK {
                before = Transaction::None;
            }
        }
        worst
    }
}

/// Reads a statement's text as it comes, up to its first word; and, if asked, for whether there is another behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    place: Place,
    word: [u8; LONGEST_WORD],
    length: u8,
    deeds: Deeds,
}

/// What the server skips between words: since version 16 the vertical tab as well.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// As long as the longest word that is known, and one more so that a longer one is not taken for it.
const LONGEST_WORD: usize = "DEALLOCATE".len() + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In front of the first word.
    Lead,
    /// In front of it, behind one character of what may begin a comment.
    Mark(u8),
    /// In a comment that ends with its line.
    Line,
    /// In a comment so many comments deep, behind this character.
    Block(u32, u8),
    Word,
    /// Behind the first word.
    Rest,
    /// Behind a semicolon.
    Behind,
    /// Behind the end.
    Over,
}

impl Text {
    pub(super) const fn new() -> Self {
        Self { place: Place::Lead, word: [0; LONGEST_WORD], length: 0, deeds: Deeds::NOTHING }
    }

    /// Whether the first word is known, or that there is none.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.place, Place::Rest | Place::Behind | Place::Over)
    }

    /// Whether nothing behind it can change what it does.
    pub(super) fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    pub(super) fn read(&mut self, part: &[u8]) {
        let mut rest = part;
        while let Some((byte, behind)) = rest.split_first() {
            rest = behind;
            self.place = match (self.place, *byte) {
                (Place::Over, _) => return,
                (Place::Word, letter) if letter.is_ascii_alphanumeric() || letter == b'_' => self.spell(letter),
                (Place::Word, byte) => {
                    self.name();
                    Self::behind_word(byte)
                }
                (_, 0) => Place::Over,
                (Place::Lead | Place::Behind, space) if is_space(space) => self.place,
                (Place::Lead | Place::Behind, b';') => self.place,
                (Place::Behind, _) => {
                    // Or there is a semicolon in the midst of one.
                    self.deeds.add(Deeds::SEVERAL);
                    Place::Over
                }
                (Place::Lead, mark @ (b'-' | b'/')) => Place::Mark(mark),
                (Place::Lead, letter) if letter.is_ascii_alphabetic() => self.spell(letter),
                (Place::Mark(b'-'), b'-') => Place::Line,
                (Place::Mark(b'/'), b'*') => Place::Block(1, 0),
                // A parenthesis, say.
                (Place::Lead | Place::Mark(_), _) => {
                    self.deeds = Deeds::WORK;
                    Place::Rest
                }
                (Place::Line, b'\n' | b'\r') => Place::Lead,
                (Place::Line, _) => Place::Line,
                (Place::Block(1, b'*'), b'/') => Place::Lead,
                (Place::Block(depth, b'*'), b'/') => Place::Block(depth - 1, 0),
                (Place::Block(depth, b'/'), b'*') => Place::Block(depth.saturating_add(1), 0),
                (Place::Block(depth, _), byte) => Place::Block(depth, byte),
                (Place::Rest, b';') => Place::Behind,
                (Place::Rest, _) => {
                    // Most of a text: nothing else in it is of interest.
                    let next = rest.iter().position(|byte| matches!(byte, 0 | b';')).unwrap_or(rest.len());
                    rest = &rest[next..];
                    Place::Rest
                }
            };
        }
    }

    fn spell(&mut self, letter: u8) -> Place {
        if let Some(place) = self.word.get_mut(usize::from(self.length)) {
            *place = letter;
            self.length += 1;
        }
        Place::Word
    }

    fn name(&mut self) {
        self.deeds = Deeds::of(&self.word[..usize::from(self.length)]);
    }

    fn behind_word(byte: u8) -> Place {
        match byte {
            0 => Place::Over,
            b';' => Place::Behind,
            _ => Place::Rest,
        }
    }

    /// What the statement does, as far as it was read: to be asked when it was read as far as need be.
    pub(super) fn deeds(mut self) -> Deeds {
        if self.place == Place::Word {
            self.name();
        } else if !self.is_known() {
            return Deeds::SEVERAL;
        }
        self.deeds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deeds(text: &str) -> Deeds {
        let bytes = [text.as_bytes(), b"\0;COMMIT"].concat();
        let (mut whole, mut slow) = (Text::new(), Text::new());
        whole.read(&bytes);
        bytes.chunks(1).for_each(|byte| slow.read(byte));
        assert_eq!((whole.deeds(), whole.is_over()), (slow.deeds(), true), "{text}");
        whole.deeds()
    }

    #[test]
    fn the_first_word_says_what_a_statement_does() {
        let several = |mut deeds: Deeds| {
            deeds.add(Deeds::SEVERAL);
            deeds
        };
        for (text, expected) in [
            ("SELECT 1", Deeds::WORK),
            ("insert into t values (1)", Deeds::WORK),
            ("(SELECT 1)", Deeds::WORK),
            ("- 1", Deeds::WORK),
            ("", Deeds::NOTHING),
            (" ; ", Deeds::NOTHING),
            ("BEGIN", Deeds::NOTHING),
            ("begin isolation level serializable", Deeds::NOTHING),
            ("START TRANSACTION;", Deeds::NOTHING),
            ("DEALLOCATE s1", Deeds::NOTHING),
            ("DEALLOCATES", Deeds::WORK),
            ("SETS", Deeds::WORK),
            ("set_config", Deeds::WORK),
            ("COMMIT", Deeds::COMMIT),
            ("COMMIT;", Deeds::COMMIT),
            (" \n;commit and chain ; ", Deeds::COMMIT),
            ("end", Deeds::COMMIT),
            ("ENDED", Deeds::WORK),
            ("PREPARE TRANSACTION 'x'", Deeds::COMMIT),
            ("-- why\n COMMIT", Deeds::COMMIT),
            ("--COMMIT", Deeds::NOTHING),
            ("/* a /* b */ */COMMIT", Deeds::COMMIT),
            ("/**/COMMIT/**/", Deeds::COMMIT),
            ("/*COMMIT", Deeds::NOTHING),
            ("ROLLBACK", Deeds::ROLLBACK),
            ("rollback to a", Deeds::ROLLBACK),
            ("\u{b}COMMIT", Deeds::COMMIT),
            ("EXECUTE s0", Deeds::SEVERAL),
            ("CALL f()", Deeds::PARTS),
            ("DO $$ BEGIN END $$", Deeds::PARTS),
            ("create index concurrently on t (a)", Deeds::PARTS),
            ("SELECT 1; COMMIT", several(Deeds::WORK)),
            ("BEGIN;;SELECT 1", several(Deeds::NOTHING)),
            ("SELECT ';'", several(Deeds::WORK)),
            ("DO $$ BEGIN COMMIT; RAISE 'no'; END $$", several(Deeds::PARTS)),
        ] {
            assert_eq!(deeds(text), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_says_whether_a_request_may_have_lasted() {
        use Transaction::{Failed, None, Open};
        let mixed = Deeds(Deeds::WORK.0 | Deeds::NOTHING.0);
        for (deeds, before, after, failed, lasted) in [
            (Deeds::WORK, None, None, false, true),
            (Deeds::WORK, None, None, true, false),
            (Deeds::WORK, Open, Open, false, false),
            (Deeds::WORK, Open, Failed, true, false),
            (Deeds::NOTHING, None, Open, false, false),
            (Deeds::NOTHING, None, None, false, false),
            (Deeds::COMMIT, Open, None, false, true),
            (Deeds::COMMIT, Open, None, true, false),
            // COMMIT AND CHAIN
            (Deeds::COMMIT, Open, Open, false, true),
            (Deeds::COMMIT, Failed, None, false, false),
            (Deeds::COMMIT, Failed, Open, false, false),
            (Deeds::ROLLBACK, Open, None, false, false),
            (Deeds::ROLLBACK, Open, Open, false, false),
            (Deeds::ROLLBACK, Failed, None, false, false),
            // But for ROLLBACK PREPARED, which the server says it was.
            (Deeds::ROLLBACK, None, None, false, false),
            (Deeds::PARTS, None, None, true, true),
            (Deeds::PARTS, Open, Failed, true, false),
            (Deeds::SEVERAL, None, None, true, false),
            (Deeds::SEVERAL, None, None, false, true),
            (Deeds::SEVERAL, None, Open, false, false),
            (Deeds::SEVERAL, Failed, None, false, true),
            (mixed, None, None, false, true),
            (mixed, Open, None, false, true),
        ] {
            let case = (deeds, before, after, failed);
            assert_eq!(deeds.have_lasted(before, after, failed, false), lasted, "{case:?}");
            assert!(deeds.have_lasted(before, after, failed, true), "{case:?}");
        }
    }

    #[test]
    fn what_is_not_answered_is_a_risk_where_it_may_commit() {
        use Transaction::{Failed, None, Open};
        for (requests, transaction, risk) in [
            (&[][..], None, Risk::None),
            (&[Deeds::WORK], None, Risk::Statement),
            (&[Deeds::WORK], Open, Risk::None),
            (&[Deeds::WORK, Deeds::WORK], Open, Risk::None),
            (&[Deeds::WORK, Deeds::COMMIT], Open, Risk::Commit),
            (&[Deeds::NOTHING], None, Risk::None),
            (&[Deeds::NOTHING, Deeds::WORK], None, Risk::Statement),
            (&[Deeds::COMMIT], Open, Risk::Commit),
            (&[Deeds::COMMIT], Failed, Risk::None),
            (&[Deeds::ROLLBACK], Open, Risk::None),
            (&[Deeds::ROLLBACK, Deeds::WORK], Open, Risk::Statement),
            (&[Deeds::PARTS], Open, Risk::None),
            (&[Deeds::PARTS], None, Risk::Statement),
            (&[Deeds::SEVERAL], Open, Risk::Commit),
            (&[Deeds::SEVERAL], Failed, Risk::Commit),
            (&[Deeds::SEVERAL], None, Risk::Statement),
        ] {
            let found = |failed| Deeds::risk_of(requests.iter().map(|deeds| (*deeds, failed)), transaction);
            assert_eq!(found(false), risk, "{requests:?} {transaction:?}");
            let told = !requests.iter().any(|deeds| [Deeds::SEVERAL, Deeds::PARTS].contains(deeds));
            assert_eq!(found(true), if told { Risk::None } else { risk }, "{requests:?} {transaction:?}");
        }
    }
}
