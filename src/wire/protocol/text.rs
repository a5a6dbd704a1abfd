//! The text of a query, collected as it arrives: its beginning and, if requested, its end.

/// The number of bytes of a query's text that are read.
pub(super) const MAX_HEAD_BYTES: usize = 2048;

/// The number of bytes at the end of a longer text that are kept: the comment that names its caller is there.
const MAX_TAIL_BYTES: usize = 1024;

/// The beginning and the end of a query's text.
#[derive(Debug)]
pub(super) struct QueryText {
    /// Allocated once.
    head: Vec<u8>,
    /// The last bytes of a text that is longer than the head, and at most as many again.
    tail: Vec<u8>,
    /// Whether the end of the text was read.
    ended: bool,
}

impl Default for QueryText {
    fn default() -> Self {
        Self { head: Vec::with_capacity(MAX_HEAD_BYTES), tail: Vec::new(), ended: false }
    }
}

impl QueryText {
    pub(super) fn clear(&mut self) {
        self.head.clear();
        self.tail.clear();
        self.ended = false;
    }

    /// Appends `part` up to the end of the text. Returns whether the rest is of no interest: the text has ended, or the
    /// head is full and the tail is not needed.
    pub(super) fn read(&mut self, part: &[u8], needs_tail: bool) -> bool {
        if self.ended {
            return true;
        }
        let end = part.iter().position(|byte| *byte == 0);
        self.ended = end.is_some();
        let part = &part[..end.unwrap_or(part.len())];
        let free = MAX_HEAD_BYTES - self.head.len();
        let (head, rest) = part.split_at(part.len().min(free));
        self.head.extend_from_slice(head);
        if !rest.is_empty() && needs_tail {
            self.extend_tail(rest);
        }
        self.ended || (!needs_tail && part.len() >= free)
    }

    #[cold]
    fn extend_tail(&mut self, part: &[u8]) {
        let part = &part[part.len().saturating_sub(MAX_TAIL_BYTES)..];
        if self.tail.len() + part.len() > 2 * MAX_TAIL_BYTES {
            let keep = self.tail.len().min(MAX_TAIL_BYTES);
            self.tail.drain(..self.tail.len() - keep);
        }
        self.tail.extend_from_slice(part);
    }

    /// Returns the beginning of the text, which is all of it unless there is a tail.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Returns the end of a long text; empty if the head is the whole text, or the tail was not needed.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail[self.tail.len().saturating_sub(MAX_TAIL_BYTES)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text in parts of this length.
    fn read(text: &[u8], length: usize, needs_tail: bool) -> QueryText {
        let mut read = QueryText::default();
        let is_read = text.chunks(length).any(|part| read.read(part, needs_tail));
        assert!(is_read);
        read
    }

    #[test]
    fn head_and_tail_are_kept_in_any_parts() {
        let long: Vec<u8> = (0..9000_u32).map(|number| b'a' + u8::try_from(number % 26).unwrap()).collect();
        let terminated = [&long[..], b"\0\0\x01"].concat();
        for length in [1, 7, 1000, 3000, 20_000] {
            let text = read(&terminated, length, true);
            assert_eq!((text.head(), text.tail()), (&long[..MAX_HEAD_BYTES], &long[long.len() - MAX_TAIL_BYTES..]));
            let text = read(&terminated, length, false);
            assert_eq!((text.head(), text.tail()), (&long[..MAX_HEAD_BYTES], &b""[..]));
            let text = read(b"SELECT 1\0\0\0", length, true);
            assert_eq!((text.head(), text.tail()), (&b"SELECT 1"[..], &b""[..]));
        }
    }
}
