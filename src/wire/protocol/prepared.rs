//! The prepared statements of a connection, by name: executing one sends only its name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::wire::hash::FoldHasher;
use crate::wire::sql::{EffectScanner, QueryRef, StatementEffects};

/// The number of statements kept. Further ones count as the query `other`, and their effects are attributed to every
/// unknown statement.
const MAX_STATEMENTS: usize = 1000;

/// The number of statements that are found without a look-up. A power of two.
const RECENT_STATEMENTS: usize = 16;

/// The longest name kept, in bytes. Those of tokio-postgres have about five.
const MAX_NAME_BYTES: usize = 30;

/// A zero-terminated name, read as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectName {
    bytes: [u8; MAX_NAME_BYTES],
    /// Exceeds [`MAX_NAME_BYTES`] if the name is longer.
    length: u8,
    complete: bool,
}

impl ObjectName {
    /// Reads the part of the name in `part`, and returns the rest.
    fn read<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        if self.complete {
            return part;
        }
        for (at, byte) in part.iter().enumerate() {
            if *byte == 0 {
                self.complete = true;
                return &part[at + 1..];
            }
            if let Some(slot) = self.bytes.get_mut(usize::from(self.length)) {
                *slot = *byte;
            }
            self.length = self.length.saturating_add(1);
        }
        &[]
    }

    fn is_truncated(&self) -> bool {
        usize::from(self.length) > MAX_NAME_BYTES
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn short(&self) -> Option<ShortName> {
        let [word @ .., _] = self.bytes.first_chunk::<8>()?;
        (self.length < 8).then(|| ShortName(word_of(word)))
    }
}

/// A name of less than eight bytes, as those of tokio-postgres are, in one word: its bytes, and zeros behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ShortName(u64);

impl ShortName {
    /// Returns the zero-terminated name at the beginning of `bytes`, if it is short, and what is behind it.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let word = match bytes.first_chunk() {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => word_of(bytes),
        };
        // The lowest bit that is set is that of the first zero byte.
        let zeros = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
        let length = zeros.trailing_zeros() / 8;
        let rest = bytes.get(length as usize + 1..)?;
        (length < 8).then(|| (Self(word & ((1 << (8 * length)) - 1)), rest))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the position of the name among the recent ones: the highest bits of a product, on which all bytes have an
    /// effect.
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "has four bits")]
    fn slot(self) -> usize {
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - RECENT_STATEMENTS.ilog2())) as usize
    }
}

/// Returns less than eight bytes as a word.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

impl Hash for ObjectName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The rest of the buffer is zero.
        state.write(&self.bytes);
    }
}

/// The body of a `Parse`: a statement's name and text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parse {
    name: ObjectName,
    scanner: EffectScanner,
}

impl Parse {
    pub(super) fn new() -> Self {
        Self { name: ObjectName::default(), scanner: EffectScanner::new() }
    }

    /// Returns whether the statement has a name, under which it can be bound later.
    pub(super) fn is_named(&self) -> bool {
        !self.name.is_empty()
    }

    /// Returns what of `part` belongs to the text.
    pub(super) fn read<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        let text = self.name.read(part);
        self.scanner.read(text);
        text
    }

    /// Returns whether the first keyword of the text is known.
    pub(super) fn is_keyword_known(&self) -> bool {
        self.scanner.is_keyword_known()
    }
}

/// The body of a `Bind`: the names of a portal and of a statement.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bind {
    portal: ObjectName,
    statement: ObjectName,
}

impl Bind {
    /// Returns whether both names are complete.
    pub(super) fn read(&mut self, part: &[u8]) -> bool {
        let part = self.portal.read(part);
        self.statement.read(part);
        self.statement.complete
    }
}

/// The body of a `Close`: `S` or `P`, and a name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Close {
    kind: Option<u8>,
    name: ObjectName,
}

impl Close {
    /// Returns whether the name is complete.
    pub(super) fn read(&mut self, part: &[u8]) -> bool {
        let rest = match part.split_first() {
            Some((kind, rest)) if self.kind.is_none() => {
                self.kind = Some(*kind);
                rest
            }
            _ => part,
        };
        self.name.read(rest);
        self.name.complete
    }
}

/// A prepared statement: its effects, the query that it is, and the generation in which it was prepared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PreparedStatement {
    pub(super) effects: StatementEffects,
    pub(super) query: QueryRef,
    pub(super) generation: u32,
}

/// The prepared statements of a connection. Laid out in declaration order; see [`ProtocolState`](super::ProtocolState).
#[derive(Debug)]
#[repr(C)]
pub(super) struct PreparedStatements {
    /// The effects that a named portal may have.
    portal_effects: StatementEffects,
    /// The effects that a statement missing in `known` and `long` may have.
    unknown_effects: StatementEffects,
    /// The number of times that the statements prepared so far were dropped from the caches, counted from one.
    generation: u32,
    /// Of `known`, the ones that were bound last, by a hash of the name: most are bound again and again.
    recent: [(ShortName, PreparedStatement); RECENT_STATEMENTS],
    /// Those with short names.
    known: HashMap<ShortName, PreparedStatement, BuildHasherDefault<FoldHasher>>,
    /// Those with longer names.
    long: HashMap<ObjectName, PreparedStatement, BuildHasherDefault<FoldHasher>>,
}

impl Default for PreparedStatements {
    fn default() -> Self {
        Self {
            known: HashMap::default(),
            recent: [Self::NO_RECENT; RECENT_STATEMENTS],
            long: HashMap::default(),
            unknown_effects: StatementEffects::default(),
            portal_effects: StatementEffects::default(),
            generation: 1,
        }
    }
}

impl PreparedStatements {
    /// An entry without a statement: no name has these bytes.
    const NO_RECENT: (ShortName, PreparedStatement) = (
        ShortName(u64::MAX),
        PreparedStatement { effects: StatementEffects::NONE, query: QueryRef::OTHER, generation: 0 },
    );

    pub(super) fn parse(&mut self, parse: &Parse, query: QueryRef) {
        let effects = parse.scanner.effects();
        if let Some(name) = parse.name.short() {
            return self.parse_short(name, effects, query);
        }
        self.long.remove(&parse.name);
        if self.has_room() && !parse.name.is_truncated() {
            let statement = PreparedStatement { effects, query, generation: self.generation };
            self.long.insert(parse.name, statement);
        } else {
            self.unknown_effects.add(effects);
        }
    }

    pub(super) fn parse_short(&mut self, name: ShortName, effects: StatementEffects, query: QueryRef) {
        self.forget_recent(name);
        let statement = PreparedStatement { effects, query, generation: self.generation };
        let has_room = self.has_room();
        if let Some(known) = self.known.get_mut(&name) {
            *known = statement;
        } else if has_room {
            self.known.insert(name, statement);
        } else {
            self.unknown_effects.add(effects);
        }
    }

    fn has_room(&self) -> bool {
        self.known.len() + self.long.len() < MAX_STATEMENTS
    }

    pub(super) fn close(&mut self, close: &Close) {
        if close.kind != Some(b'S') {
            return;
        }
        match close.name.short() {
            Some(name) => self.close_short(name),
            None => drop(self.long.remove(&close.name)),
        }
    }

    pub(super) fn close_short(&mut self, name: ShortName) {
        self.forget_recent(name);
        self.known.remove(&name);
    }

    /// Returns the statement that is bound to a portal.
    pub(super) fn bind(&mut self, bind: &Bind) -> PreparedStatement {
        let mut statement = match bind.statement.short() {
            Some(name) => self.bind_short(name),
            None => self.long.get(&bind.statement).copied().unwrap_or_else(|| self.unknown()),
        };
        if bind.statement.is_truncated() {
            statement.effects.add(self.unknown_effects);
        }
        if !bind.portal.is_empty() && statement.effects != StatementEffects::TRANSACTIONAL {
            self.portal_effects.add(statement.effects);
        }
        statement
    }

    /// Returns the statement that is bound to the portal without a name.
    #[inline(always)]
    pub(super) fn bind_short(&mut self, name: ShortName) -> PreparedStatement {
        let recent = &self.recent[name.slot()];
        if recent.0 == name { recent.1 } else { self.look_up(name) }
    }

    #[inline(never)]
    fn look_up(&mut self, name: ShortName) -> PreparedStatement {
        let Some(statement) = self.known.get(&name) else { return self.unknown() };
        self.recent[name.slot()] = (name, *statement);
        *statement
    }

    fn forget_recent(&mut self, name: ShortName) {
        let recent = &mut self.recent[name.slot()];
        if recent.0 == name {
            *recent = Self::NO_RECENT;
        }
    }

    /// Returns what a statement may be that is not known.
    #[cold]
    fn unknown(&self) -> PreparedStatement {
        let mut effects = StatementEffects::TRANSACTIONAL;
        effects.add(self.unknown_effects);
        PreparedStatement { effects, query: QueryRef::OTHER, generation: self.generation }
    }

    /// Begins a new generation if a statement of `generation`, which the server refused, may be in a cache. Returns
    /// whether it may: one that was prepared before the caches were last dropped is held by the caller itself.
    pub(super) fn refused(&mut self, generation: u32) -> bool {
        let may_be_cached = generation == self.generation;
        self.generation = self.generation.wrapping_add(u32::from(may_be_cached)).max(1);
        may_be_cached
    }

    /// Returns all but the recent statements, which do not change what is returned.
    #[cfg(any(test, fuzzing))]
    pub(super) fn state(&self) -> impl PartialEq + std::fmt::Debug + '_ {
        let Self { known, long, unknown_effects, portal_effects, generation, .. } = self;
        (known, long, unknown_effects, portal_effects, generation)
    }

    /// Returns the effects that a portal bound in an earlier request may have.
    #[inline]
    pub(super) fn portal_effects(&self) -> StatementEffects {
        self.portal_effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Parse {
        let mut parse = Parse::new();
        let body = [name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat();
        let texts: Vec<_> = body.chunks(1).flat_map(|byte| parse.read(byte).to_vec()).collect();
        assert_eq!(texts, [text.as_bytes(), b"\0\0\0"].concat());
        parse
    }

    fn bind(portal: &str, statement: &str) -> Bind {
        let mut bind = Bind::default();
        assert!(bind.read(&[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"].concat()));
        bind
    }

    fn close(name: &str) -> Close {
        let mut close = Close::default();
        assert!(close.read(&[b"S", name.as_bytes(), b"\0"].concat()));
        close
    }

    #[test]
    fn short_names_are_read_from_any_position() {
        for name in ["", "a", "s1", "s12345", "seven77"] {
            for behind in [&b""[..], b"\0", b"\x01", b"\0\0\0\0", b"\x80\xff\0abcdefgh"] {
                let bytes = [name.as_bytes(), b"\0", behind].concat();
                let (short, rest) = ShortName::read(&bytes).unwrap();
                assert_eq!((rest, short.is_empty()), (behind, name.is_empty()), "{name}");
                assert_eq!(bind("", name).statement.short(), Some(short), "{name}");
            }
        }
        for bytes in [&b""[..], b"a", b"seven77", b"eight888\0", b"eight888", b"\x80\x81\x82\x83\x84\x85\x86\x87\0"] {
            assert_eq!(ShortName::read(bytes).map(|(name, _)| name), None, "{bytes:?}");
        }
        assert_eq!(bind("", "eight888").statement.short(), None);
        assert_eq!(ShortName::read(b"\x01\0\x01\0").map(|(_, rest)| rest.len()), Some(2));
    }

    #[test]
    fn close_is_read_in_any_parts() {
        for body in [&b"Ss1\0"[..], b"Ps1\0", b"\0\0Ss1\0", b"\0s1\0"] {
            let (mut whole, mut bytewise) = (Close::default(), Close::default());
            let mut bytes = body.chunks(1);
            assert!(whole.read(body) && bytes.any(|byte| bytewise.read(byte)), "{body:?}");
            assert_eq!((whole.kind, whole.name), (bytewise.kind, bytewise.name), "{body:?}");
        }
    }

    /// Returns the effects of a COMMIT.
    fn commit() -> StatementEffects {
        parse("", "COMMIT").scanner.effects()
    }

    #[test]
    fn statement_is_known_until_closed_or_replaced() {
        let mut prepared = PreparedStatements::default();
        let (select, end) = (QueryRef::without_text(1), QueryRef::without_text(2));
        prepared.parse(&parse("s1", "SELECT 1"), select);
        prepared.parse(&parse("s2", "COMMIT"), end);
        prepared.parse(&parse("", "COMMIT"), end);
        let selects = PreparedStatement { effects: StatementEffects::TRANSACTIONAL, query: select, generation: 1 };
        let ends = PreparedStatement { effects: commit(), query: end, generation: 1 };
        assert_eq!(["s1", "s2", ""].map(|name| prepared.bind(&bind("", name))), [selects, ends, ends]);
        prepared.parse(&parse("", "SELECT 1"), select);
        prepared.close(&close("s2"));
        let other =
            PreparedStatement { effects: StatementEffects::TRANSACTIONAL, query: QueryRef::OTHER, generation: 1 };
        assert_eq!(["s1", "s2", ""].map(|name| prepared.bind(&bind("", name))), [selects, other, selects]);
        assert_eq!(prepared.portal_effects(), StatementEffects::NONE);
    }

    #[test]
    fn refused_statement_ends_its_generation_once() {
        let mut prepared = PreparedStatements::default();
        prepared.parse(&parse("s1", "SELECT 1"), QueryRef::OTHER);
        prepared.parse(&parse("s2", "SELECT 2"), QueryRef::OTHER);
        let generation = |prepared: &mut PreparedStatements, name| prepared.bind(&bind("", name)).generation;
        let (first, second) = (generation(&mut prepared, "s1"), generation(&mut prepared, "s2"));
        assert!(prepared.refused(first), "it may be cached");
        assert!(!prepared.refused(first) && !prepared.refused(second), "no cache has either");
        prepared.parse(&parse("s3", "SELECT 3"), QueryRef::OTHER);
        let third = generation(&mut prepared, "s3");
        assert!(prepared.refused(third) && !prepared.refused(third));
        // One that is not remembered may be cached.
        let unknown = generation(&mut prepared, "s4");
        assert!(prepared.refused(unknown));
    }

    #[test]
    fn effects_of_unknown_statements_are_overestimated() {
        let long = "s".repeat(MAX_NAME_BYTES + 1);
        let mut prepared = PreparedStatements::default();
        prepared.parse(&parse(&long, "COMMIT"), QueryRef::OTHER);
        assert!(prepared.bind(&bind("", &long)).effects.are_mixed());
        assert!(prepared.bind(&bind("", &"t".repeat(300))).effects.are_mixed());
        let mut prepared = PreparedStatements::default();
        for number in 0..=MAX_STATEMENTS {
            prepared.parse(&parse(&format!("s{number}"), "COMMIT"), QueryRef::OTHER);
        }
        assert!(prepared.bind(&bind("", "s")).effects.are_mixed());
        assert!(prepared.bind(&bind("", &format!("s{MAX_STATEMENTS}"))).effects.are_mixed());
        assert_eq!(prepared.portal_effects(), StatementEffects::NONE);
        assert_eq!(prepared.bind(&bind("p", "s1")).effects, commit());
        assert_eq!(prepared.portal_effects(), commit());
    }
}
