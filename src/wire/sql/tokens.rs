//! Splits a query's text into tokens. Comments are skipped.
//!
//! Source: PostgreSQL's documentation, "Lexical Structure".

/// A token of a query's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A keyword or an unquoted name.
    Word(&'a [u8]),
    /// A quoted name, with its quotes.
    Quoted(&'a [u8]),
    Open,
    Close,
    Comma,
    Dot,
    Semicolon,
    /// A literal, a parameter or an operator.
    Other,
}

/// An iterator over the tokens of a text. If the text is truncated, so is its last token.
#[derive(Clone, Debug)]
pub(crate) struct Tokenizer<'a> {
    rest: &'a [u8],
}

impl<'a> Tokenizer<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Takes up to `length` bytes.
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, matches: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !matches(*byte)).unwrap_or(self.rest.len());
        self.take(length)
    }

    /// Takes a quoted text, from its opening quote through its closing one. A quote inside is doubled or, if `escapes`
    /// is set, escaped with a backslash.
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

    /// Takes a literal in which a backslash is an ordinary byte, which is the default. If `standard_conforming_strings`
    /// is off, it is an escape; the end of a literal with a backslash is therefore unknown, and the rest of the text is
    /// taken.
    fn take_literal(&mut self) {
        if self.take_quoted(b'\'', false).contains(&b'\\') {
            self.rest = &[];
        }
    }

    /// Takes a dollar-quoted text, if one begins here: `$$…$$` or `$tag$…$tag$`. Returns whether one does.
    fn take_dollar_quoted(&mut self) -> bool {
        let tag = self.rest[1..].iter().position(|byte| !is_word_byte(*byte) || *byte == b'$').map(|end| end + 2);
        let Some(tag) = tag.filter(|end| self.rest.get(end - 1) == Some(&b'$') && !self.rest[1].is_ascii_digit())
        else {
            return false;
        };
        let (delimiter, text) = self.rest.split_at(tag);
        let end = text.windows(tag).position(|here| here == delimiter).map_or(text.len(), |end| end + tag);
        self.take(tag + end);
        true
    }

    /// Takes a block comment, which may be nested.
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

/// Returns whether `byte` may be part of a keyword or name. Bytes of non-ASCII characters may.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

impl<'a> Tokenizer<'a> {
    /// Returns the next token, its text, and whether space or a comment separates it from the token before.
    pub(crate) fn next_token(&mut self) -> Option<(Token<'a>, &'a [u8], bool)> {
        let mut separated = false;
        loop {
            let from = self.rest;
            let first = *from.first()?;
            let second = from.get(1).copied();
            let token = match first {
                b'-' if second == Some(b'-') => {
                    self.take_while(|byte| !matches!(byte, b'\n' | b'\r'));
                    separated = true;
                    continue;
                }
                b'/' if second == Some(b'*') => {
                    self.take_comment();
                    separated = true;
                    continue;
                }
                0 => return None,
                space if space.is_ascii_whitespace() => {
                    self.take(1);
                    separated = true;
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
                b'$' if self.rest.len() > 1 && self.take_dollar_quoted() => Token::Other,
                b'$' => {
                    // A parameter, or a truncated dollar quote.
                    self.take(1);
                    let is_parameter = second.is_some_and(|byte| byte.is_ascii_digit());
                    self.take_while(|byte| if is_parameter { byte.is_ascii_digit() } else { is_word_byte(byte) });
                    Token::Other
                }
                digit if digit.is_ascii_digit() => {
                    // A dollar is not part of a number, but may begin a dollar-quoted text.
                    self.take_while(|byte| (is_word_byte(byte) && byte != b'$') || byte == b'.');
                    Token::Other
                }
                letter if is_word_byte(letter) => Token::Word(self.take_while(is_word_byte)),
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
            return Some((token, &from[..from.len() - self.rest.len()], separated));
        }
    }
}

impl<'a> Iterator for Tokenizer<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        self.next_token().map(|(token, ..)| token)
    }
}
