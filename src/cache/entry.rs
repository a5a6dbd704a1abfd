//! The header of stored values: when a value was loaded, and until when it may be used.

/// The first bytes of each stored value. The last of them is the version of the header.
const MAGIC: [u8; 3] = *b"PS\x01";

/// The length of the header.
pub(super) const HEADER_BYTES: usize = 32;

/// The codec id of an entry that stores that there is no value.
const NO_VALUE: u8 = 0;

/// What is stored beside a value. Times are in milliseconds since 1970, by the clock of the process that loaded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The codec of the value; `None` if there is no value.
    pub(super) codec: Option<u8>,
    /// When the load began: what was changed later is not in the value.
    pub(super) load_began: u64,
    /// How long the load took.
    pub(super) load_micros: u32,
    /// The end of the time to live.
    pub(super) fresh_until: u64,
    /// The end of the stale window.
    pub(super) stale_until: u64,
}

impl Entry {
    /// Appends the header to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.push(self.codec.unwrap_or(NO_VALUE));
        out.extend_from_slice(&self.load_micros.to_be_bytes());
        for time in [self.load_began, self.fresh_until, self.stale_until] {
            out.extend_from_slice(&time.to_be_bytes());
        }
    }

    /// Splits stored bytes into header and value. Returns `None` if they have no header of this version.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, value) = bytes.split_at_checked(HEADER_BYTES)?;
        let (magic, header) = header.split_at_checked(MAGIC.len())?;
        let (codec, header) = header.split_first()?;
        let (micros, times) = header.split_first_chunk::<4>()?;
        let time = |index: usize| Some(u64::from_be_bytes(times.get(8 * index..8 * index + 8)?.try_into().ok()?));
        let entry = Self {
            codec: (*codec != NO_VALUE).then_some(*codec),
            load_micros: u32::from_be_bytes(*micros),
            load_began: time(0)?,
            fresh_until: time(1)?,
            stale_until: time(2)?,
        };
        (magic == MAGIC).then_some((entry, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_round_trips() {
        let value = Entry { codec: Some(7), load_began: 1, load_micros: 2, fresh_until: 3, stale_until: u64::MAX };
        for entry in [value, Entry { codec: None, ..value }] {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            assert_eq!(bytes.len(), HEADER_BYTES);
            bytes.extend_from_slice(b"value");
            assert_eq!(Entry::read(&bytes), Some((entry, &b"value"[..])));
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let mut bytes = Vec::new();
        Entry { codec: None, load_began: 0, load_micros: 0, fresh_until: 0, stale_until: 0 }.write(&mut bytes);
        assert!(Entry::read(&bytes[..HEADER_BYTES - 1]).is_none());
        bytes[2] += 1;
        assert!(Entry::read(&bytes).is_none(), "another version");
        assert!(Entry::read(b"").is_none() && Entry::read(&[b'{'; 100]).is_none());
    }
}
