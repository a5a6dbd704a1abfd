//! Displays texts of foreign origin, and names that users choose, on one line and at a bounded length.
//!
//! The text of a server's error, or of a collector's answer, may contain line breaks that forge log lines, escape
//! sequences that a terminal obeys, controls that reorder the text around them, or megabytes. The same holds for names
//! that an application takes from its input. Every such text passes through this module before it is shown.

mod server_message;

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Display, Write};

use tokio_postgres::error::DbError;

use self::server_message::ServerMessage;

/// The maximum length of a displayed text in characters, including its escapes and the `…` that marks a cut.
pub const MAX_CHARS: usize = 500;

/// Displays a value with its unprintable characters escaped as in Rust, such as `\n` and `\u{1b}`, and cut at
/// [`MAX_CHARS`].
///
/// Unprintable are control characters (C0, DEL and C1), line and paragraph separators, and the controls of bidirectional
/// text. Other characters, backslashes included, stay as they are, so the escapes are for reading and not for parsing.
///
/// ```
/// use poolscope::text::Printable;
///
/// assert_eq!(Printable("no\nline \u{1b}[31mof its own").to_string(), r"no\nline \u{1b}[31mof its own");
/// assert_eq!(Printable("x".repeat(1_000_000)).to_string().chars().count(), poolscope::text::MAX_CHARS);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaper = Escaper { out: f, free: MAX_CHARS - 1, is_cut: false };
        let result = write!(escaper, "{}", self.0);
        // The error of a cut only ends the value's own formatting.
        if escaper.is_cut { f.write_char('…') } else { result }
    }
}

/// Displays an error and its sources on one line, separated by colons, as [`Printable`].
///
/// The line may be logged: of an error that PostgreSQL reported, it omits DETAIL and HINT, and the message if that may
/// quote literals, parameters or values of rows, also if the error is the outermost. [`DbError`] has all of them.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable(Unescaped(self.0)).fmt(f)
    }
}

/// An error and its sources as they are.
struct Unescaped<'a>(&'a (dyn Error + 'static));

impl Display for Unescaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |error: &(dyn Error + 'static)| match error.downcast_ref::<DbError>() {
            Some(error) => ServerMessage(error).to_string(),
            None => error.to_string(),
        };
        let mut written = text(self.0);
        f.write_str(&written)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = text(error);
            // Some errors of other crates display their source.
            if !written.ends_with(&text) {
                write!(f, ": {text}")?;
                written = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

/// Returns the text as [`Printable`] displays it, without an allocation if it stays as it is.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    // No longer in characters than in bytes.
    if text.len() < MAX_CHARS && !text.contains(is_unprintable) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(Printable(text).to_string())
    }
}

/// Returns the first characters of a text that take at most `max_bytes` together.
pub(crate) fn prefix(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes what is written to it, and fails once the text is cut.
struct Escaper<'a, W> {
    out: &'a mut W,
    /// The number of characters that may still be written, without the `…` of a cut.
    free: usize,
    is_cut: bool,
}

impl<W: Write> Escaper<'_, W> {
    /// Writes a text of `length` characters, or cuts before it.
    fn write(&mut self, text: impl Display, length: usize) -> fmt::Result {
        if length > self.free {
            self.is_cut = true;
            return Err(fmt::Error);
        }
        self.free -= length;
        write!(self.out, "{text}")
    }

    /// Writes a text without unprintable characters.
    fn write_clean(&mut self, text: &str) -> fmt::Result {
        match text.char_indices().nth(self.free) {
            None => self.write(text, text.chars().count()),
            Some((end, _)) => {
                self.write(&text[..end], self.free)?;
                self.write("", 1)
            }
        }
    }
}

impl<W: Write> Write for Escaper<'_, W> {
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some(at) = text.find(is_unprintable) {
            self.write_clean(&text[..at])?;
            let mut rest = text[at..].chars();
            if let Some(unprintable) = rest.next() {
                let escape = unprintable.escape_debug();
                self.write(&escape, escape.len())?;
            }
            text = rest.as_str();
        }
        self.write_clean(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unprintable_characters_are_escaped() {
        for (text, shown) in [
            ("", ""),
            ("Grüße, 東京 👩‍👧 \\n \"'", "Grüße, 東京 👩‍👧 \\n \"'"),
            ("a\r\nb\tc\0", r"a\r\nb\tc\0"),
            ("\u{1b}[31mred\u{7f}", r"\u{1b}[31mred\u{7f}"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            ("a\u{2028}b\u{2029}", r"a\u{2028}b\u{2029}"),
            ("\u{61c}\u{200e}\u{200f}", r"\u{61c}\u{200e}\u{200f}"),
            ("\u{202a}\u{202e}\u{2066}\u{2069}", r"\u{202a}\u{202e}\u{2066}\u{2069}"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
            assert_eq!(printable(text), shown);
        }
    }

    #[test]
    fn long_text_is_cut_between_escapes() {
        let free = MAX_CHARS - 1;
        for (text, shown) in [
            ("é".repeat(free), "é".repeat(free)),
            ("é".repeat(MAX_CHARS), "é".repeat(free) + "…"),
            ("é".repeat(1_000_000), "é".repeat(free) + "…"),
            ("x".repeat(free - 2) + "\n", "x".repeat(free - 2) + r"\n"),
            ("x".repeat(free - 1) + "\nxx", "x".repeat(free - 1) + "…"),
            ("x".repeat(free - 5) + "\u{1b}", "x".repeat(free - 5) + "…"),
        ] {
            assert_eq!(Printable(&text).to_string(), shown);
            assert_eq!(printable(&text), shown);
            assert_eq!(printable(&shown), shown, "what is printable stays as it is");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Failure(String, #[source] Option<Box<Self>>);

    #[test]
    fn error_chain_is_one_bounded_line() {
        let cause = |text: &str| Some(Box::new(Failure(text.to_owned(), None)));
        let shown = |text: &str| ErrorChain(&Failure("cannot connect".to_owned(), cause(text))).to_string();
        assert_eq!(shown("FATAL: no\nok"), r"cannot connect: FATAL: no\nok");
        let nested = Failure("cannot connect: refused".to_owned(), cause("refused"));
        assert_eq!(ErrorChain(&nested).to_string(), "cannot connect: refused", "a cause is displayed once");
        assert_eq!(shown(&"x".repeat(300_000)).chars().count(), MAX_CHARS);
    }

    proptest! {
        #[test]
        fn output_is_bounded_and_printable(parts in prop::collection::vec(prop_oneof![any::<String>(), "\\PC{0,300}", "[\0-\u{9f}\u{2000}-\u{2070}]{0,99}"], 0..8)) {
            let text = parts.concat();
            let shown = printable(&text);
            prop_assert!(shown.chars().count() <= MAX_CHARS);
            prop_assert!(!shown.contains(is_unprintable) && !shown.contains(char::is_control));
            prop_assert_eq!(&*printable(&shown), &*shown);
            // A value that writes in pieces is cut at the same place.
            struct Pieces(Vec<String>);
            impl Display for Pieces {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.iter().try_for_each(|piece| f.write_str(piece))
                }
            }
            prop_assert_eq!(Printable(Pieces(parts)).to_string(), shown);
        }
    }
}
