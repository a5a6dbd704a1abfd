//! A hash for what a connection sends again and again: names of statements, and their texts.

use std::hash::Hasher;

/// Takes eight bytes at a time, and a tenth of the standard library's instructions for a name. It keeps nobody from
/// making names or texts collide: they are the program's own, and what is kept of them is bounded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Folded(u64);

/// Odd, and with as many ones as zeros: the digits of pi.
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;

impl Folded {
    pub(super) fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.write(bytes);
        hash.finish()
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last) ^ ((rest.len() as u64) << 60));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from((self.0 ^ word).wrapping_add(FACTOR)) * u128::from(FACTOR);
        // Both halves, so that each bit of the word has a part in each of the hash.
        #[allow(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        self.0 = low ^ high;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_that_differ_in_a_byte_or_in_length_have_different_hashes() {
        let text: Vec<u8> = (1..=40).collect();
        let mut texts: Vec<Vec<u8>> = (0..=text.len()).map(|length| text[..length].to_vec()).collect();
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut other = text.clone();
                other[place] ^= 1 << bit;
                texts.push(other);
            }
        }
        let count = texts.len();
        let hashes: HashSet<_> = texts.iter().map(|text| Folded::of(text)).collect();
        assert_eq!(hashes.len(), count);
        let places: HashSet<_> = hashes.iter().map(|hash| hash % 32).collect();
        assert_eq!(places.len(), 32, "they spread");
    }
}
