//! The lasting effects of statements, inferred from their first keywords.
//!
//! A failed operation can be retried only if it is known whether it took effect. A statement's effects last once its
//! transaction commits, which is immediately if there is no transaction block. So statements are sorted into those that
//! commit, those without lasting effects, and those that may commit midway and then fail. Where the text does not tell,
//! the worst case is assumed.
//!
//! Source: PostgreSQL's documentation of the statements and "Message Flow", in particular "Multiple Statements in a
//! Simple Query".

use crate::telemetry::evidence::Risk;
use crate::wire::transaction::TransactionStatus;

/// The set of effects that a request's statements have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StatementEffects(u8);

impl StatementEffects {
    pub(crate) const NONE: Self = Self(0);
    /// Takes effect when its transaction commits.
    pub(crate) const TRANSACTIONAL: Self = Self(1);
    /// Has no effect that outlives the session.
    const SESSION_ONLY: Self = Self(1 << 1);
    /// Rolls back the transaction block, if there is one.
    const ROLLBACK: Self = Self(1 << 2);
    /// Commits the transaction block.
    const COMMIT: Self = Self(1 << 3);
    /// May commit midway, outside a transaction block.
    const COMMITS_MIDWAY: Self = Self(1 << 4);
    /// Several statements: any of the above, in any order.
    pub(crate) const MULTIPLE: Self = Self(1 << 5);

    /// Returns the effects of a statement that starts with `keyword`.
    fn of_keyword(keyword: &[u8]) -> Self {
        let word = match keyword.len() {
            ..=WORD_BYTES => word(keyword),
            _ if keyword.eq_ignore_ascii_case(b"SAVEPOINT") => return Self::SESSION_ONLY,
            _ if keyword.eq_ignore_ascii_case(b"DEALLOCATE") => return Self::SESSION_ONLY,
            _ => return Self::TRANSACTIONAL,
        };
        Self::KEYWORDS.iter().find(|(known, _)| *known == word).map_or(Self::TRANSACTIONAL, |(_, effects)| *effects)
    }

    /// The effects of statements that start with these keywords. Others are transactional.
    const KEYWORDS: [(u64, Self); 26] = [
        (word(b"BEGIN"), Self::SESSION_ONLY),
        (word(b"COMMIT"), Self::COMMIT),
        (word(b"ROLLBACK"), Self::ROLLBACK),
        (word(b"SET"), Self::SESSION_ONLY),
        (word(b"START"), Self::SESSION_ONLY),
        (word(b"RELEASE"), Self::SESSION_ONLY),
        (word(b"RESET"), Self::SESSION_ONLY),
        (word(b"SHOW"), Self::SESSION_ONLY),
        (word(b"LISTEN"), Self::SESSION_ONLY),
        (word(b"UNLISTEN"), Self::SESSION_ONLY),
        (word(b"DISCARD"), Self::SESSION_ONLY),
        (word(b"CLOSE"), Self::SESSION_ONLY),
        // The statement may have been prepared through the protocol, and may be a COMMIT.
        (word(b"EXECUTE"), Self::MULTIPLE),
        (word(b"ABORT"), Self::ROLLBACK),
        (word(b"END"), Self::COMMIT),
        (word(b"PREPARE"), Self::COMMIT),
        (word(b"CALL"), Self::COMMITS_MIDWAY),
        (word(b"DO"), Self::COMMITS_MIDWAY),
        (word(b"VACUUM"), Self::COMMITS_MIDWAY),
        (word(b"ANALYZE"), Self::COMMITS_MIDWAY),
        (word(b"CLUSTER"), Self::COMMITS_MIDWAY),
        (word(b"REINDEX"), Self::COMMITS_MIDWAY),
        (word(b"REPACK"), Self::COMMITS_MIDWAY),
        (word(b"CREATE"), Self::COMMITS_MIDWAY),
        (word(b"DROP"), Self::COMMITS_MIDWAY),
        (word(b"ALTER"), Self::COMMITS_MIDWAY),
    ];

    /// Returns the effects of a whole text, if they are clear without scanning it: it begins with its keyword, and has no
    /// semicolon, behind which another statement might follow. The same as those that an [`EffectScanner`] finds.
    #[inline]
    pub(crate) fn of_single(text: &[u8]) -> Option<Self> {
        const FREQUENT: [u64; 4] = [word(b"SELECT"), word(b"INSERT"), word(b"UPDATE"), word(b"DELETE")];
        if has_semicolon_or_zero(text) {
            return None;
        }
        // No other keyword begins with one of these.
        if let Some(first) = text.first_chunk()
            && FREQUENT.contains(&(u64::from_le_bytes(*first) & (UPPER_CASE >> 16)))
        {
            return Some(Self::TRANSACTIONAL);
        }
        Self::of_first_word(text)
    }

    fn of_first_word(text: &[u8]) -> Option<Self> {
        let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = text.iter().position(|byte| !is_letter(byte)).unwrap_or(text.len());
        text.first()?.is_ascii_alphabetic().then(|| Self::of_keyword(&text[..length]))
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns whether the server's command tags say more than the text: which of several statements were executed, or
    /// that a ROLLBACK is a ROLLBACK PREPARED.
    pub(crate) fn need_command_tags(self) -> bool {
        self.are_mixed() || self == Self::ROLLBACK
    }

    /// Returns whether there may be statements of several kinds, so that only the server's answers tell which were
    /// executed.
    pub(crate) const fn are_mixed(self) -> bool {
        self.has(Self::MULTIPLE) || self.0.count_ones() > 1
    }

    /// Returns whether the request may have committed something by the time it was answered. `reported` is whether the
    /// server reported a commit.
    pub(crate) fn may_have_committed(
        self,
        before: TransactionStatus,
        after: TransactionStatus,
        failed: bool,
        reported: bool,
    ) -> bool {
        if reported {
            return true;
        }
        match (before, failed) {
            (TransactionStatus::Idle, true) => self.has(Self::COMMITS_MIDWAY),
            (_, true) => false,
            (TransactionStatus::Idle, false) => {
                after == TransactionStatus::Idle && self != Self::SESSION_ONLY && self != Self::ROLLBACK
            }
            (TransactionStatus::Open, false) => {
                self.has(Self::COMMIT) || (after == TransactionStatus::Idle && self != Self::ROLLBACK)
            }
            // A failed transaction block can only end in a rollback.
            (TransactionStatus::Failed, false) => after == TransactionStatus::Idle && self.are_mixed(),
        }
    }

    /// Returns whether the request only ends a transaction block without committing, and so succeeds whatever failed
    /// before.
    pub(crate) fn only_roll_back(self, before: TransactionStatus) -> bool {
        self == Self::ROLLBACK || before == TransactionStatus::Failed
    }

    /// Returns what remains unknown of the request if it is not answered.
    fn risk(self, before: TransactionStatus) -> Risk {
        let commits = self.has(Self::COMMIT) || self.are_mixed();
        match before {
            TransactionStatus::Idle if self == Self::SESSION_ONLY => Risk::None,
            TransactionStatus::Idle if self.has(Self::COMMIT) => Risk::Commit,
            TransactionStatus::Idle => Risk::Statement,
            TransactionStatus::Open if commits => Risk::Commit,
            TransactionStatus::Failed if self.are_mixed() => Risk::Commit,
            TransactionStatus::Open | TransactionStatus::Failed => Risk::None,
        }
    }

    /// Returns the risk of a request. `before` is the transaction status when it begins. Most failed requests are known to
    /// have had no effect.
    #[inline]
    pub(crate) fn risk_of_one(self, failed: bool, before: TransactionStatus) -> Risk {
        if !failed || self.are_mixed() || self.has(Self::COMMITS_MIDWAY) { self.risk(before) } else { Risk::None }
    }

    /// Returns the worst risk of the pending requests, which are given in their order, each with whether it has failed.
    /// `transaction` is the status that the server last reported.
    pub(crate) fn risk_of(requests: impl Iterator<Item = (Self, bool)>, transaction: TransactionStatus) -> Risk {
        let mut before = transaction;
        let mut worst = Risk::None;
        for (effects, failed) in requests {
            worst = worst.max(effects.risk_of_one(failed, before));
            // Anything but a transactional statement may change the status for the requests behind it.
            if effects != Self::TRANSACTIONAL {
                before = TransactionStatus::Idle;
            }
        }
        worst
    }
}

const WORD_BYTES: usize = 8;

/// Makes letters of a word capital. No other byte becomes a letter.
const UPPER_CASE: u64 = u64::from_le_bytes([!0x20; WORD_BYTES]);

/// Returns a keyword of at most eight letters in capitals, as a number.
const fn word(keyword: &[u8]) -> u64 {
    let (mut bytes, mut at) = ([0; WORD_BYTES], 0);
    while at < keyword.len() {
        bytes[at] = keyword[at];
        at += 1;
    }
    u64::from_le_bytes(bytes) & UPPER_CASE
}

/// Returns whether a text has a semicolon or a zero byte.
#[inline]
fn has_semicolon_or_zero(text: &[u8]) -> bool {
    const CHUNK: usize = 16;
    // Without branches, so that the compiler uses vector instructions.
    let found = |bytes: &[u8; CHUNK]| bytes.iter().fold(false, |found, byte| found | (*byte == b';') | (*byte == 0));
    let Some(last) = text.last_chunk() else {
        return text.iter().any(|byte| matches!(byte, b';' | 0));
    };
    // The last chunk overlaps the one before.
    text.as_chunks().0.iter().any(found) || found(last)
}

/// Scans a query's text as it arrives, for the keyword of the first statement and for whether a second statement
/// follows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EffectScanner {
    state: ScanState,
    keyword: [u8; MAX_KEYWORD_BYTES],
    length: u8,
    effects: StatementEffects,
}

/// Returns whether the server skips `byte` between tokens. Since PostgreSQL 16 it skips the vertical tab too.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// The length of the longest known keyword, and one more, so that a longer word is not mistaken for it.
const MAX_KEYWORD_BYTES: usize = "DEALLOCATE".len() + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    /// In front of the first keyword.
    Start,
    /// In front of it, after a character that may begin a comment.
    MaybeComment(u8),
    LineComment,
    /// In a block comment at this nesting depth, after this character.
    BlockComment(u32, u8),
    Keyword,
    /// Behind the first keyword.
    Statement,
    AfterSemicolon,
    End,
}

impl EffectScanner {
    pub(crate) const fn new() -> Self {
        Self {
            state: ScanState::Start,
            keyword: [0; MAX_KEYWORD_BYTES],
            length: 0,
            effects: StatementEffects::SESSION_ONLY,
        }
    }

    /// Returns whether the first keyword is known, or that there is none.
    pub(crate) fn is_keyword_known(&self) -> bool {
        matches!(self.state, ScanState::Statement | ScanState::AfterSemicolon | ScanState::End)
    }

    /// Returns whether the rest of the text cannot change the effects.
    pub(crate) fn is_done(&self) -> bool {
        self.state == ScanState::End
    }

    pub(crate) fn read(&mut self, part: &[u8]) {
        let mut rest = part;
        while let Some((byte, behind)) = rest.split_first() {
            rest = behind;
            self.state = match (self.state, *byte) {
                (ScanState::End, _) => return,
                (ScanState::Keyword, letter) if letter.is_ascii_alphanumeric() || letter == b'_' => {
                    self.push_letter(letter)
                }
                (ScanState::Keyword, byte) => {
                    self.look_up_keyword();
                    Self::after_keyword(byte)
                }
                (_, 0) => ScanState::End,
                (ScanState::Start | ScanState::AfterSemicolon, space) if is_space(space) => self.state,
                (ScanState::Start | ScanState::AfterSemicolon, b';') => self.state,
                (ScanState::AfterSemicolon, _) => {
                    // Or the semicolon is inside a literal or a name.
                    self.effects.add(StatementEffects::MULTIPLE);
                    ScanState::End
                }
                (ScanState::Start, mark @ (b'-' | b'/')) => ScanState::MaybeComment(mark),
                (ScanState::Start, letter) if letter.is_ascii_alphabetic() => self.push_letter(letter),
                (ScanState::MaybeComment(b'-'), b'-') => ScanState::LineComment,
                (ScanState::MaybeComment(b'/'), b'*') => ScanState::BlockComment(1, 0),
                // A parenthesis, for example.
                (ScanState::Start | ScanState::MaybeComment(_), _) => {
                    self.effects = StatementEffects::TRANSACTIONAL;
                    ScanState::Statement
                }
                (ScanState::LineComment, b'\n' | b'\r') => ScanState::Start,
                (ScanState::LineComment, _) => ScanState::LineComment,
                (ScanState::BlockComment(1, b'*'), b'/') => ScanState::Start,
                (ScanState::BlockComment(depth, b'*'), b'/') => ScanState::BlockComment(depth - 1, 0),
                (ScanState::BlockComment(depth, b'/'), b'*') => ScanState::BlockComment(depth.saturating_add(1), 0),
                (ScanState::BlockComment(depth, _), byte) => ScanState::BlockComment(depth, byte),
                (ScanState::Statement, b';') => ScanState::AfterSemicolon,
                (ScanState::Statement, _) => {
                    // Most of the text: skip to the next byte of interest.
                    let next = rest.iter().position(|byte| matches!(byte, 0 | b';')).unwrap_or(rest.len());
                    rest = &rest[next..];
                    ScanState::Statement
                }
            };
        }
    }

    fn push_letter(&mut self, letter: u8) -> ScanState {
        if let Some(slot) = self.keyword.get_mut(usize::from(self.length)) {
            *slot = letter;
            self.length += 1;
        }
        ScanState::Keyword
    }

    fn look_up_keyword(&mut self) {
        self.effects = StatementEffects::of_keyword(&self.keyword[..usize::from(self.length)]);
    }

    fn after_keyword(byte: u8) -> ScanState {
        match byte {
            0 => ScanState::End,
            b';' => ScanState::AfterSemicolon,
            _ => ScanState::Statement,
        }
    }

    /// Returns the effects of the text read so far. Final once [`is_done`](Self::is_done) or the whole text was read.
    pub(crate) fn effects(mut self) -> StatementEffects {
        if self.state == ScanState::Keyword {
            self.look_up_keyword();
        } else if !self.is_keyword_known() {
            return StatementEffects::MULTIPLE;
        }
        self.effects
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Compares the effects of a text with those that the scanner finds. Returns whether it needed no scan.
    fn is_single(text: &[u8]) -> bool {
        let Some(effects) = StatementEffects::of_single(text) else { return false };
        let mut scanner = EffectScanner::new();
        scanner.read(&[text, b"\0"].concat());
        assert_eq!((effects, scanner.is_done()), (scanner.effects(), true), "{:?}", String::from_utf8_lossy(text));
        true
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

        #[test]
        fn effects_without_a_scan_are_those_of_the_scanner(
            parts in proptest::collection::vec(
                prop_oneof![
                    select(&["SELECT", "insert", "Update", "DELETE", "WITH", "BEGIN", "COMMIT", "ROLLBACK", "END", "SET"][..]),
                    select(&["DEALLOCATE", "SAVEPOINT", "RELEASE", "CALL", "DO", "EXECUTE", "UNLISTEN", "SELECTS", "SEL"][..]),
                    select(&[" ", " ", " ", "\n", "\u{b}", ";", "; ", "'", "\"", "(", ")", "--", "/*", "*/", "$$", "_"][..]),
                    select(&["f(1)", "a", "1", "\u{e9}", "\u{c1}", "\0", "[", "{", "@", "`"][..]),
                ],
                0..12,
            ),
        ) {
            is_single(parts.concat().as_bytes());
        }

        #[test]
        fn effects_of_arbitrary_bytes_are_those_of_the_scanner(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            is_single(&bytes);
        }
    }

    #[test]
    fn common_statements_need_no_scan() {
        for text in [
            "SELECT n FROM numbers",
            "select",
            "INSERT INTO t VALUES (1)",
            "BEGIN",
            "COMMIT",
            "with a as (select 1) select",
        ] {
            assert!(is_single(text.as_bytes()), "{text}");
        }
        // Wherever a semicolon is, another statement may follow.
        for length in 0..80 {
            for at in 0..length {
                let mut text = "SELECT ".bytes().chain(std::iter::repeat(b'x')).take(length).collect::<Vec<_>>();
                assert!(is_single(&text));
                for byte in [b';', 0] {
                    text[at] = byte;
                    assert_eq!(StatementEffects::of_single(&text), None, "{at} of {length}");
                }
            }
        }
        for text in ["", " SELECT 1", "(SELECT 1)", "/**/SELECT 1", "--\nSELECT 1", "_SELECT", "1", "\u{e9}"] {
            assert_eq!(StatementEffects::of_single(text.as_bytes()), None, "{text}");
        }
    }

    fn effects(text: &str) -> StatementEffects {
        let bytes = [text.as_bytes(), b"\0;COMMIT"].concat();
        let (mut whole, mut slow) = (EffectScanner::new(), EffectScanner::new());
        whole.read(&bytes);
        bytes.chunks(1).for_each(|byte| slow.read(byte));
        assert_eq!((whole.effects(), whole.is_done()), (slow.effects(), true), "{text}");
        whole.effects()
    }

    #[test]
    fn first_keyword_determines_effects() {
        let multiple = |mut effects: StatementEffects| {
            effects.add(StatementEffects::MULTIPLE);
            effects
        };
        for (text, expected) in [
            ("SELECT 1", StatementEffects::TRANSACTIONAL),
            ("insert into t values (1)", StatementEffects::TRANSACTIONAL),
            ("(SELECT 1)", StatementEffects::TRANSACTIONAL),
            ("- 1", StatementEffects::TRANSACTIONAL),
            ("", StatementEffects::SESSION_ONLY),
            (" ; ", StatementEffects::SESSION_ONLY),
            ("BEGIN", StatementEffects::SESSION_ONLY),
            ("begin isolation level serializable", StatementEffects::SESSION_ONLY),
            ("START TRANSACTION;", StatementEffects::SESSION_ONLY),
            ("DEALLOCATE s1", StatementEffects::SESSION_ONLY),
            ("DEALLOCATES", StatementEffects::TRANSACTIONAL),
            ("SETS", StatementEffects::TRANSACTIONAL),
            ("set_config", StatementEffects::TRANSACTIONAL),
            ("COMMIT", StatementEffects::COMMIT),
            ("COMMIT;", StatementEffects::COMMIT),
            (" \n;commit and chain ; ", StatementEffects::COMMIT),
            ("end", StatementEffects::COMMIT),
            ("ENDED", StatementEffects::TRANSACTIONAL),
            ("PREPARE TRANSACTION 'x'", StatementEffects::COMMIT),
            ("-- why\n COMMIT", StatementEffects::COMMIT),
            ("--COMMIT", StatementEffects::SESSION_ONLY),
            ("/* a /* b */ */COMMIT", StatementEffects::COMMIT),
            ("/**/COMMIT/**/", StatementEffects::COMMIT),
            ("/*COMMIT", StatementEffects::SESSION_ONLY),
            ("ROLLBACK", StatementEffects::ROLLBACK),
            ("rollback to a", StatementEffects::ROLLBACK),
            ("\u{b}COMMIT", StatementEffects::COMMIT),
            ("EXECUTE s0", StatementEffects::MULTIPLE),
            ("CALL f()", StatementEffects::COMMITS_MIDWAY),
            ("DO $$ BEGIN END $$", StatementEffects::COMMITS_MIDWAY),
            ("create index concurrently on t (a)", StatementEffects::COMMITS_MIDWAY),
            ("SELECT 1; COMMIT", multiple(StatementEffects::TRANSACTIONAL)),
            ("BEGIN;;SELECT 1", multiple(StatementEffects::SESSION_ONLY)),
            ("SELECT ';'", multiple(StatementEffects::TRANSACTIONAL)),
            ("DO $$ BEGIN COMMIT; RAISE 'no'; END $$", multiple(StatementEffects::COMMITS_MIDWAY)),
        ] {
            assert_eq!(effects(text), expected, "{text}");
        }
    }

    #[test]
    fn answer_shows_whether_anything_committed() {
        use TransactionStatus::{Failed, Idle, Open};
        let mixed = StatementEffects(StatementEffects::TRANSACTIONAL.0 | StatementEffects::SESSION_ONLY.0);
        for (effects, before, after, failed, committed) in [
            (StatementEffects::TRANSACTIONAL, Idle, Idle, false, true),
            (StatementEffects::TRANSACTIONAL, Idle, Idle, true, false),
            (StatementEffects::TRANSACTIONAL, Open, Open, false, false),
            (StatementEffects::TRANSACTIONAL, Open, Failed, true, false),
            (StatementEffects::SESSION_ONLY, Idle, Open, false, false),
            (StatementEffects::SESSION_ONLY, Idle, Idle, false, false),
            (StatementEffects::COMMIT, Open, Idle, false, true),
            (StatementEffects::COMMIT, Open, Idle, true, false),
            // COMMIT AND CHAIN
            (StatementEffects::COMMIT, Open, Open, false, true),
            (StatementEffects::COMMIT, Failed, Idle, false, false),
            (StatementEffects::COMMIT, Failed, Open, false, false),
            (StatementEffects::ROLLBACK, Open, Idle, false, false),
            (StatementEffects::ROLLBACK, Open, Open, false, false),
            (StatementEffects::ROLLBACK, Failed, Idle, false, false),
            // Except for ROLLBACK PREPARED, which the server reports.
            (StatementEffects::ROLLBACK, Idle, Idle, false, false),
            (StatementEffects::COMMITS_MIDWAY, Idle, Idle, true, true),
            (StatementEffects::COMMITS_MIDWAY, Open, Failed, true, false),
            (StatementEffects::MULTIPLE, Idle, Idle, true, false),
            (StatementEffects::MULTIPLE, Idle, Idle, false, true),
            (StatementEffects::MULTIPLE, Idle, Open, false, false),
            (StatementEffects::MULTIPLE, Failed, Idle, false, true),
            (mixed, Idle, Idle, false, true),
            (mixed, Open, Idle, false, true),
        ] {
            let case = (effects, before, after, failed);
            assert_eq!(effects.may_have_committed(before, after, failed, false), committed, "{case:?}");
            assert!(effects.may_have_committed(before, after, failed, true), "{case:?}");
        }
    }

    #[test]
    fn unanswered_request_is_a_risk_if_it_may_commit() {
        use TransactionStatus::{Failed, Idle, Open};
        for (requests, transaction, risk) in [
            (&[][..], Idle, Risk::None),
            (&[StatementEffects::TRANSACTIONAL], Idle, Risk::Statement),
            (&[StatementEffects::TRANSACTIONAL], Open, Risk::None),
            (&[StatementEffects::TRANSACTIONAL, StatementEffects::TRANSACTIONAL], Open, Risk::None),
            (&[StatementEffects::TRANSACTIONAL, StatementEffects::COMMIT], Open, Risk::Commit),
            (&[StatementEffects::SESSION_ONLY], Idle, Risk::None),
            (&[StatementEffects::SESSION_ONLY, StatementEffects::TRANSACTIONAL], Idle, Risk::Statement),
            (&[StatementEffects::COMMIT], Open, Risk::Commit),
            (&[StatementEffects::COMMIT], Failed, Risk::None),
            (&[StatementEffects::ROLLBACK], Open, Risk::None),
            (&[StatementEffects::ROLLBACK, StatementEffects::TRANSACTIONAL], Open, Risk::Statement),
            (&[StatementEffects::COMMITS_MIDWAY], Open, Risk::None),
            (&[StatementEffects::COMMITS_MIDWAY], Idle, Risk::Statement),
            (&[StatementEffects::MULTIPLE], Open, Risk::Commit),
            (&[StatementEffects::MULTIPLE], Failed, Risk::Commit),
            (&[StatementEffects::MULTIPLE], Idle, Risk::Statement),
        ] {
            let found =
                |failed| StatementEffects::risk_of(requests.iter().map(|effects| (*effects, failed)), transaction);
            assert_eq!(found(false), risk, "{requests:?} {transaction:?}");
            let known = !requests
                .iter()
                .any(|effects| [StatementEffects::MULTIPLE, StatementEffects::COMMITS_MIDWAY].contains(effects));
            assert_eq!(found(true), if known { Risk::None } else { risk }, "{requests:?} {transaction:?}");
        }
    }
}
