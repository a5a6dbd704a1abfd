//! Prepared statements that do anything else than work, by name: to run one says only its name.

use super::statements::{Deeds, Text};

/// How many are kept; what is too much is said of every statement.
const MOST: usize = 32;

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

    /// Answers whether all is known that is of interest.
    pub(super) fn read(&mut self, part: &[u8]) -> bool {
        let text = self.name.read(part);
        self.text.read(text);
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

/// What the prepared statements of a connection do, but for those that only work.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    list: Vec<(Name, Deeds)>,
    /// What any statement may do whose name is too long.
    long: Deeds,
    /// What any statement may do, since more than can be kept do it.
    any: Deeds,
    /// What any portal may do that has a name.
    portals: Deeds,
}

impl Prepared {
    /// Whether there is nothing but work.
    pub(super) fn is_plain(&self) -> bool {
        self.list.is_empty() && self.long.is_empty() && self.any.is_empty()
    }

    pub(super) fn parsed(&mut self, parse: &Parse) {
        self.forget(&parse.name);
        let deeds = parse.text.deeds();
        if deeds == Deeds::WORK {
            return;
        }
        if parse.name.is_long() {
            self.long.add(deeds);
        } else if self.list.len() < MOST {
            self.list.push((parse.name, deeds));
        } else {
            self.any.add(deeds);
        }
    }

    pub(super) fn closed(&mut self, close: &Close) {
        if close.kind == b'S' {
            self.forget(&close.name);
        }
    }

    fn forget(&mut self, name: &Name) {
        self.list.retain(|(known, _)| known != name);
    }

    /// What a statement does that is bound to a portal.
    pub(super) fn bound(&mut self, bind: &Bind) -> Deeds {
        let known = self.list.iter().find(|(name, _)| *name == bind.statement);
        let mut deeds = known.map_or(Deeds::WORK, |(_, deeds)| *deeds);
        deeds.add(self.any);
        if bind.statement.is_long() {
            deeds.add(self.long);
        }
        if !bind.portal.is_empty() && deeds != Deeds::WORK {
            self.portals.add(deeds);
        }
        deeds
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
        let _ = body.chunks(1).any(|byte| parse.read(byte));
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
    fn a_statement_does_what_its_text_said_until_it_is_closed_or_prepared_anew() {
        let mut prepared = Prepared::default();
        prepared.parsed(&parse("s1", "SELECT 1"));
        assert!(prepared.is_plain());
        prepared.parsed(&parse("s2", "COMMIT"));
        prepared.parsed(&parse("", "COMMIT"));
        assert_eq!(["s1", "s2", ""].map(|name| prepared.bound(&bind("", name))), [Deeds::WORK, commit(), commit()]);
        prepared.parsed(&parse("", "SELECT 1"));
        prepared.closed(&close("s2"));
        assert!(prepared.is_plain());
        assert_eq!(prepared.portals(), Deeds::NONE);
    }

    #[test]
    fn what_cannot_be_kept_is_said_of_more_and_never_of_less() {
        let long = "s".repeat(LONGEST_NAME + 1);
        let mut prepared = Prepared::default();
        prepared.parsed(&parse(&long, "COMMIT"));
        assert!(prepared.bound(&bind("", &long)).are_mixed());
        assert!(prepared.bound(&bind("", &"t".repeat(300))).are_mixed());
        assert_eq!(prepared.bound(&bind("", "s")), Deeds::WORK);
        for number in 0..=MOST {
            prepared.parsed(&parse(&format!("s{number}"), "COMMIT"));
        }
        assert!(prepared.bound(&bind("", "s")).are_mixed());
        assert_eq!(prepared.portals(), Deeds::NONE);
        assert_eq!(prepared.bound(&bind("p", "s1")), commit());
        assert_eq!(prepared.portals(), commit());
    }
}
