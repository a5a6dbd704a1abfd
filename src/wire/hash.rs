//! A fast hash for statement names and query texts, which a connection sends again and again.

use std::hash::Hasher;

/// Hashes eight bytes at a time, with a tenth of the instructions that the standard library's hasher needs for a name.
/// It does not resist deliberate collisions: names and texts are the program's own, and the tables they are kept in are
/// bounded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoldHasher(u64);

/// The digits of pi: odd, with about as many ones as zeros.
const FACTOR: u64 = 0x243f_6a88_85a3_08d3;

impl FoldHasher {
    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.write(bytes);
        hash.finish()
    }
}

impl Hasher for FoldHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        // The last eight bytes, some of which were hashed before, or all of a shorter text.
        let last = match bytes.last_chunk() {
            Some(last) => u64::from_le_bytes(*last),
            None => rest.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
        };
        self.write_u64(last ^ ((rest.len() as u64) << 60));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from((self.0 ^ word).wrapping_add(FACTOR)) * u128::from(FACTOR);
        // Both halves, so that each bit of the word affects each bit of the hash.
        #[allow(clippy::cast_possible_truncation, reason = "splits the product into its halves")]
        let (low, high) = (product as u64, (product >> 64) as u64);
        self.0 = low ^ high;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_differing_in_a_bit_or_in_length_hash_apart() {
        let text: Vec<u8> = (1..=40).collect();
        let mut texts: Vec<Vec<u8>> = (0..=text.len()).map(|length| text[..length].to_vec()).collect();
        for position in 0..text.len() {
            for bit in 0..8 {
                let mut other = text.clone();
                other[position] ^= 1 << bit;
                texts.push(other);
            }
        }
        let count = texts.len();
        let hashes: HashSet<_> = texts.iter().map(|text| FoldHasher::of(text)).collect();
        assert_eq!(hashes.len(), count);
        let buckets: HashSet<_> = hashes.iter().map(|hash| hash % 32).collect();
        assert_eq!(buckets.len(), 32, "the hashes spread over all buckets");
    }
}
