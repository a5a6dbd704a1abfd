//! What prepared statements are, by name: to run one says only its name.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::hash::Folded;
use super::statements::{Deeds, Text};
use super::texts::Asked;

/// How many are kept. Those beyond are `other`, and what they do besides working is said of every statement.
const MOST: usize = 1000;

/// The longest name that is kept. tokio-postgres's have some five bytes.
const LONGEST_NAME: usize = 30;

/// A name as it comes, ended by a zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; LONGEST_NAME],
    /// More than there is place for if the name is longer.
    length: u8,
    over: bool,
}

impl Name {
    /// Takes what belongs to it; answers the rest.
    fn read<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        if self.over {
            return part;
        }
        for (at, byte) in part.iter().enumerate() {
            if *byte == 0 {
                self.over = true;
                return &part[at + 1..];
            }
            if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
                *place = *byte;
            }
            self.length = self.length.saturating_add(1);
        }
        &[]
    }

    fn is_long(&self) -> bool {
        usize::from(self.length) > LONGEST_NAME
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Behind the name there are zeros.
        state.write(&self.bytes);
    }
}

/// The body of a `Parse`: a name and a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parse {
    name: Name,
    text: Text,
}

impl Parse {
    pub(super) fn new() -> Self {
        Self { name: Name::default(), text: Text::new() }
    }

    /// Answers what of the part belongs to the text.
    pub(super) fn read<'a>(&mut self, part: &'a [u8]) -> &'a [u8] {
        let text = self.name.read(part);
        self.text.read(text);
        text
    }

    /// Whether the first word is known.
    pub(super) fn is_known(&self) -> bool {
        self.text.is_known()
    }
}

/// The body of a `Bind`: a portal's name and a statement's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bind {
    portal: Name,
    statement: Name,
}

impl Bind {
    pub(super) fn read(&mut self, part: &[u8]) -> bool {
        let part = self.portal.read(part);
        self.statement.read(part);
        self.statement.over
    }
}

/// The body of a `Close`: a letter and a name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Close {
    kind: u8,
    name: Name,
}

impl Close {
    pub(super) fn read(&mut self, part: &[u8]) -> bool {
        let rest = match part.split_first() {
            Some((kind, rest)) if self.kind == 0 => {
                self.kind = *kind;
                rest
            }
            _ => part,
        };
        self.name.read(rest);
        self.name.over
    }
}

/// What a statement is and does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) deeds: Deeds,
    pub(super) asked: Asked,
}

/// The prepared statements of a connection.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    known: HashMap<Name, Statement, BuildHasherDefault<Folded>>,
    /// What any statement may do that is not known.
    unknown: Deeds,
    /// What any portal may do that has a name.
    portals: Deeds,
}

impl Prepared {
    pub(super) fn parsed(&mut self, parse: &Parse, asked: Asked) {
        self.known.remove(&parse.name);
        let statement = Statement { deeds: parse.text.deeds(), asked };
        if self.known.len() < MOST && !parse.name.is_long() {
            self.known.insert(parse.name, statement);
        } else {
            self.unknown.add(statement.deeds);
        }
    }

    pub(super) fn closed(&mut self, close: &Close) {
        if close.kind == b'S' {
            self.known.remove(&close.name);
        }
    }

    /// What a statement is that is bound to a portal.
    pub(super) fn bound(&mut self, bind: &Bind) -> Statement {
        let mut statement = self.known.get(&bind.statement).copied().unwrap_or_else(|| {
            let mut deeds = Deeds::WORK;
            deeds.add(self.unknown);
            Statement { deeds, asked: Asked::OTHER }
        });
        if bind.statement.is_long() {
            statement.deeds.add(self.unknown);
        }
        if !bind.portal.is_empty() && statement.deeds != Deeds::WORK {
            self.portals.add(statement.deeds);
        }
        statement
    }

    /// What a portal may do that was bound in an earlier request.
    pub(super) fn portals(&self) -> Deeds {
        self.portals
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

    /// What a COMMIT does.
    fn commit() -> Deeds {
        parse("", "COMMIT").text.deeds()
    }

    #[test]
    fn a_statement_is_what_its_text_said_until_it_is_closed_or_prepared_anew() {
        let mut prepared = Prepared::default();
        let (select, end) = (Asked::of_kind(1), Asked::of_kind(2));
        prepared.parsed(&parse("s1", "SELECT 1"), select);
        prepared.parsed(&parse("s2", "COMMIT"), end);
        prepared.parsed(&parse("", "COMMIT"), end);
        let selects = Statement { deeds: Deeds::WORK, asked: select };
        let ends = Statement { deeds: commit(), asked: end };
        assert_eq!(["s1", "s2", ""].map(|name| prepared.bound(&bind("", name))), [selects, ends, ends]);
        prepared.parsed(&parse("", "SELECT 1"), select);
        prepared.closed(&close("s2"));
        let other = Statement { deeds: Deeds::WORK, asked: Asked::OTHER };
        assert_eq!(["s1", "s2", ""].map(|name| prepared.bound(&bind("", name))), [selects, other, selects]);
        assert_eq!(prepared.portals(), Deeds::NONE);
    }

    #[test]
    fn what_cannot_be_kept_is_said_of_more_and_never_of_less() {
        let long = "s".repeat(LONGEST_NAME + 1);
        let mut prepared = Prepared::default();
        prepared.parsed(&parse(&long, "COMMIT"), Asked::OTHER);
        assert!(prepared.bound(&bind("", &long)).deeds.are_mixed());
        assert!(prepared.bound(&bind("", &"t".repeat(300))).deeds.are_mixed());
        let mut prepared = Prepared::default();
        for number in 0..=MOST {
            prepared.parsed(&parse(&format!("s{number}"), "COMMIT"), Asked::OTHER);
        }
        assert!(prepared.bound(&bind("", "s")).deeds.are_mixed());
        assert!(prepared.bound(&bind("", &format!("s{MOST}"))).deeds.are_mixed());
        assert_eq!(prepared.portals(), Deeds::NONE);
        assert_eq!(prepared.bound(&bind("p", "s1")).deeds, commit());
        assert_eq!(prepared.portals(), commit());
    }
}
