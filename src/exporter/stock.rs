//! Things that cost something to make, kept until they are needed again.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::{Buf, Bytes};

use super::exposition::Page;

/// Things to be used again. A clone shares them.
#[derive(Debug)]
pub(super) struct Stock<T> {
    kept: Arc<Mutex<Vec<T>>>,
    /// How many are kept at most.
    most: usize,
}

impl<T> Clone for Stock<T> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept), most: self.most }
    }
}

impl<T> Stock<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    /// One that was used before, else a new one.
    pub(super) fn take(&self, make: impl FnOnce() -> T) -> T {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(make)
    }

    /// Keeps one, unless there are enough.
    pub(super) fn put(&self, thing: T) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.most {
            kept.push(thing);
        }
    }
}

/// A page that goes back to the stock when it was sent, or nobody wants it any more.
#[derive(Debug)]
pub(super) struct Lent {
    page: Page,
    home: Stock<Page>,
}

impl Lent {
    pub(super) fn new(home: &Stock<Page>) -> Self {
        Self { page: home.take(Page::new), home: home.clone() }
    }

    pub(super) fn page(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.page));
    }
}

/// What the body of an answer is read from.
#[derive(Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    Page(Lent),
}

impl<T: Into<Bytes>> From<T> for Content {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Buf for Content {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::Page(lent) => lent.page.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::Page(lent) => lent.page.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.chunks_vectored(slices),
            Self::Page(lent) => lent.page.chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Page(lent) => lent.page.advance(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_lent_comes_back_and_no_more_are_kept_than_are_wanted() {
        let stock = Stock::new(1);
        let (mut one, other) = (Lent::new(&stock), Lent::new(&stock));
        one.page().only().extend_from_slice(&[b'x'; 5000]);
        drop(one);
        drop(other);
        let mut again = Lent::new(&stock);
        assert!(again.page().only().capacity() >= 5000, "it is the one that was used");
        assert_eq!(Lent::new(&stock).page().only().capacity(), 0);
    }
}
