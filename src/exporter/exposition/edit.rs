//! Edits a text from its start to its end, in place as long as the lengths stay the same.

/// An edit of a text. It is of use only once it is [finished](Self::finish): until then, what it has replaced may be
/// elsewhere.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    text: &'a mut Vec<u8>,
    /// How much of the text was passed.
    at: usize,
    /// Scratch memory: what will follow the first `start` bytes of the text, once a length has changed.
    moved: &'a mut Vec<u8>,
    start: usize,
    /// How much of the text `moved` covers.
    covered: Option<usize>,
}

/// A list with a smaller capacity does not shrink.
const MIN_SHRINK_BYTES: usize = 512;

/// Releases memory so that a list keeps at most a quarter more than it needs, and many pools do not take twice the memory of
/// their page.
#[inline]
pub(super) fn shrink<T>(list: &mut Vec<T>) {
    let bytes = |len: usize| len * size_of::<T>();
    if bytes(list.capacity()) > MIN_SHRINK_BYTES.max(bytes(list.len() + list.len() / 4)) {
        list.shrink_to(list.len() + list.len() / 8);
    }
}

impl<'a> Edit<'a> {
    /// Begins at the start of `text`.
    pub(super) fn new(text: &'a mut Vec<u8>, moved: &'a mut Vec<u8>) -> Self {
        Self { text, at: 0, moved, start: 0, covered: None }
    }

    /// Leaves the next `len` bytes as they are.
    #[inline]
    pub(super) fn keep(&mut self, len: usize) {
        self.at += len;
    }

    /// Replaces the next `len` bytes with `new`.
    #[inline]
    pub(super) fn replace(&mut self, len: usize, new: &[u8]) {
        let end = self.at + len;
        if len == new.len() {
            self.text[self.at..end].copy_from_slice(new);
        } else {
            self.resize(end, new);
        }
        self.at = end;
    }

    fn resize(&mut self, end: usize, new: &[u8]) {
        match self.covered {
            Some(covered) => self.moved.extend_from_slice(&self.text[covered..self.at]),
            None => {
                self.moved.clear();
                self.start = self.at;
            }
        }
        self.moved.extend_from_slice(new);
        self.covered = Some(end);
    }

    /// Removes the rest of the text. What is appended to the returned text is the new rest, which is edited next.
    pub(super) fn rest(&mut self) -> &mut Vec<u8> {
        self.text.truncate(self.at);
        self.text
    }

    /// Removes the rest of the text, and completes it.
    pub(super) fn finish(self) {
        let Self { text, at, moved, start, covered } = self;
        text.truncate(at);
        if let Some(covered) = covered {
            moved.extend_from_slice(&text[covered..]);
            text.truncate(start);
            // Numbers grow by a digit from time to time; doubling the memory for that is too much.
            if text.capacity() - start < moved.len() {
                text.reserve_exact(moved.len() + moved.len() / 8);
            }
            text.extend_from_slice(moved);
        }
        shrink(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One step of an edit.
    #[derive(Clone, Debug)]
    enum Step {
        Keep(usize),
        Replace(usize, Vec<u8>),
        Rest(Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let new = || prop::collection::vec(any::<u8>(), 0..6);
        prop_oneof![
            4 => (0..8usize).prop_map(Step::Keep),
            4 => new().prop_map(|new| Step::Replace(new.len(), new)),
            2 => (0..6usize, new()).prop_map(|(len, new)| Step::Replace(len, new)),
            1 => new().prop_map(Step::Rest),
        ]
    }

    proptest! {
        #[test]
        fn edits_equal_those_of_a_copy(mut text in prop::collection::vec(any::<u8>(), 0..60), steps in prop::collection::vec(step(), 0..20)) {
            // Of an earlier edit.
            let mut moved = b"moved".to_vec();
            let (mut rest, mut expected) = (text.clone(), Vec::new());
            let mut edit = Edit::new(&mut text, &mut moved);
            for step in steps {
                match step {
                    Step::Keep(len) if len <= rest.len() => {
                        expected.extend(rest.drain(..len));
                        edit.keep(len);
                    }
                    Step::Replace(len, new) if len <= rest.len() => {
                        rest.drain(..len);
                        edit.replace(len, &new);
                        expected.extend(new);
                    }
                    Step::Rest(new) => {
                        edit.rest().extend(&new);
                        rest = new;
                    }
                    Step::Keep(_) | Step::Replace(..) => {}
                }
            }
            edit.finish();
            prop_assert_eq!(text, expected);
        }
    }

    #[test]
    fn memory_is_bounded_by_the_length() {
        let (mut text, mut moved) = (Vec::new(), Vec::new());
        let mut edit = Edit::new(&mut text, &mut moved);
        edit.rest().resize(100_000, b'x');
        edit.keep(50_000);
        edit.replace(0, b"longer");
        edit.keep(50_000);
        edit.finish();
        assert!(text.len() == 100_006 && text.capacity() < 120_000, "{}", text.capacity());
        let mut edit = Edit::new(&mut text, &mut moved);
        edit.keep(1_000);
        edit.finish();
        assert!(text.len() == 1_000 && text.capacity() < 1_200, "{}", text.capacity());
    }
}
