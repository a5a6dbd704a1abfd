//! Text in columns.

use std::time::SystemTime;

use ratatui::text::Span;

/// Returns the width of a text in columns.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Cuts a text to this many columns. A cut text ends with `~`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut free = columns.saturating_sub(1);
    for character in text.chars() {
        let wide = width(character.encode_utf8(&mut [0; 4]));
        if wide > free {
            break;
        }
        free -= wide;
        shown.push(character);
    }
    if columns > 0 {
        shown.push('~');
    }
    shown
}

/// Returns `left` and `right` at the ends of a line; `right` has precedence.
pub(super) fn spread(left: &str, right: &str, columns: usize) -> String {
    let right = cut(right, columns);
    let left = cut(left, columns.saturating_sub(width(&right) + usize::from(!right.is_empty())));
    let gap = columns.saturating_sub(width(&left) + width(&right));
    left + &" ".repeat(gap) + &right
}

/// Breaks a text into lines of at most `columns` columns, between words if possible.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= columns => *line += &format!(" {word}"),
            _ => lines.extend(broken(word, columns)),
        }
    }
    lines
}

/// Breaks a word into parts of at most `columns` columns, and at least one character.
fn broken(word: &str, columns: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for character in word.chars() {
        let wide = width(character.encode_utf8(&mut [0; 4]));
        if used > 0 && used + wide > columns {
            parts.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// Returns the time of day, in UTC.
pub(crate) fn clock(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_columns() {
        for (text, columns, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab~"),
            ("abc", 0, ""),
            ("東京都", 6, "東京都"),
            ("東京都", 5, "東京~"),
            ("東京", 3, "東~"),
        ] {
            assert_eq!(cut(text, columns), shown);
        }
        assert_eq!(spread("left", "right", 12), "left   right");
        assert_eq!(spread("left", "right", 8), "l~ right");
        assert_eq!(spread("left", "right", 3), "ri~");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefgh b", 3), ["a", "abc", "def", "gh", "b"]);
        assert_eq!(wrap("東京都", 3), ["東", "京", "都"]);
        assert_eq!(wrap("東京", 1), ["東", "京"]);
        assert!(wrap("  ", 5).is_empty());
    }

    #[test]
    fn clock_is_the_time_of_day() {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400 * 3 + 3_661);
        assert_eq!(clock(time), "01:01:01 UTC");
    }
}
