//! A query's text, taken apart into words: what is a comment is nothing, and what is a value is told apart.
//!
//! Source: PostgreSQL's documentation, "Lexical Structure".

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, or a name that is not quoted.
    Word(&'a [u8]),
    /// A name in its quotes.
    Quoted(&'a [u8]),
    Open,
    Close,
    Comma,
    Dot,
    Semicolon,
    /// A value, a parameter, an operator.
    Other,
}

/// The pieces of a text. What is cut in its midst is a piece as it is.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Takes so many bytes, or what there is.
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Takes bytes as long as they are such.
    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !is(*byte)).unwrap_or(self.rest.len());
        self.take(length)
    }

    /// Takes everything up to the end of what is quoted, which began with a quote that was not taken. A quote within is
    /// doubled or, if so, escaped.
    fn take_quoted(&mut self, quote: u8, escapes: bool) -> &'a [u8] {
        let text = self.rest;
        let mut at = 1;
        while let Some(byte) = text.get(at) {
            at += 1;
            if *byte == b'\\' && escapes {
                at += 1;
            } else if *byte == quote {
                if text.get(at) != Some(&quote) {
                    break;
                }
                at += 1;
            }
        }
        self.take(at)
    }

    /// Takes a literal whose backslashes are bytes like others, as is the default. Where `standard_conforming_strings` is off
    /// they are not: it is not known then where this one ends, so that the rest is taken as well.
    fn take_literal(&mut self) {
        if self.take_quoted(b'\'', false).contains(&b'\\') {
            self.rest = &[];
        }
    }

    /// Takes a text in dollars, if one begins here: `$$…$$` or `$tag$…$tag$`.
    fn take_dollars(&mut self) -> bool {
        let tag = self.rest[1..].iter().position(|byte| !is_of_word(*byte) || *byte == b'$').map(|end| end + 2);
        let Some(tag) = tag.filter(|end| self.rest.get(end - 1) == Some(&b'$') && !self.rest[1].is_ascii_digit())
        else {
            return false;
        };
        let (delimiter, text) = self.rest.split_at(tag);
        let end = text.windows(tag).position(|here| here == delimiter).map_or(text.len(), |end| end + tag);
        self.take(tag + end);
        true
    }

    /// Takes a comment in which there may be others.
    fn take_comment(&mut self) {
        let mut depth = 0_u32;
        while !self.rest.is_empty() {
            if self.rest.starts_with(b"/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with(b"*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(1);
            }
        }
    }
}

/// Whether it may stand in a word. What is not ASCII may.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

impl<'a> Tokens<'a> {
    /// The next piece, what stands there, and whether it stands apart from the one before.
    pub(super) fn piece(&mut self) -> Option<(Token<'a>, &'a [u8], bool)> {
        let mut apart = false;
        loop {
            let from = self.rest;
            let first = *from.first()?;
            let second = from.get(1).copied();
            let token = match first {
                b'-' if second == Some(b'-') => {
                    self.take_while(|byte| !matches!(byte, b'\n' | b'\r'));
                    apart = true;
                    continue;
                }
                b'/' if second == Some(b'*') => {
                    self.take_comment();
                    apart = true;
                    continue;
                }
                0 => return None,
                space if space.is_ascii_whitespace() => {
                    self.take(1);
                    apart = true;
                    continue;
                }
                b'"' => Token::Quoted(self.take_quoted(b'"', false)),
                b'\'' => {
                    self.take_literal();
                    Token::Other
                }
                b'e' | b'E' if second == Some(b'\'') => {
                    self.take(1);
                    self.take_quoted(b'\'', true);
                    Token::Other
                }
                b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if second == Some(b'\'') => {
                    self.take(1);
                    self.take_literal();
                    Token::Other
                }
                b'$' if self.rest.len() > 1 && self.take_dollars() => Token::Other,
                b'$' => {
                    // A parameter; or the beginning of a text in dollars that is cut there.
                    self.take(1);
                    let is_parameter = second.is_some_and(|byte| byte.is_ascii_digit());
                    self.take_while(|byte| if is_parameter { byte.is_ascii_digit() } else { is_of_word(byte) });
                    Token::Other
                }
                digit if digit.is_ascii_digit() => {
                    // No dollar is part of a number: a text in dollars may follow.
                    self.take_while(|byte| (is_of_word(byte) && byte != b'$') || byte == b'.');
                    Token::Other
                }
                letter if is_of_word(letter) => Token::Word(self.take_while(is_of_word)),
                other => {
                    self.take(1);
                    match other {
                        b'(' => Token::Open,
                        b')' => Token::Close,
                        b',' => Token::Comma,
                        b'.' => Token::Dot,
                        b';' => Token::Semicolon,
                        _ => Token::Other,
                    }
                }
            };
            return Some((token, &from[..from.len() - self.rest.len()], apart));
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        self.piece().map(|(token, ..)| token)
    }
}
