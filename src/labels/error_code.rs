//! The codes of errors.

/// The code of an error: the server's SQLSTATE, the first word of Redis's error or, where the server sent none, a short
/// word for the kind of failure.
///
/// It is the value of the label `error_type`, and if it is an SQLSTATE, also that of the label `sqlstate`, which is empty
/// otherwise. Always short and from a small set; never an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode([u8; 8]);

/// The first words of Redis's errors that are distinguished, and one for an `ERR` that has no word of its own: the server
/// has as many clients as `maxclients` allows.
const REDIS_CODES: [&str; 36] = [
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "ERR",
    "EXECABORT",
    "INPROG",
    "INVALIDOBJ",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MAXCLIENTS",
    "MISCONF",
    "MOVED",
    "NOADDR",
    "NOAUTH",
    "NOGROUP",
    "NOMASTERLINK",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOSUB",
    "NOTBUSY",
    "NOTREADY",
    "OOM",
    "READONLY",
    "STALE",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

/// The first byte of a code of Redis; the second is its index. Not in any text.
const REDIS: u8 = 0xff;

const fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

impl ErrorCode {
    /// The connection was closed or broke, and no SQLSTATE was received.
    pub const IO: Self = Self::new("io");
    /// No reply in time.
    pub const TIMEOUT: Self = Self::new("timeout");
    /// Connecting took longer than its checkout could wait, which is `checkout_timeout`.
    pub const TOO_SLOW: Self = Self::new("too_slow");
    /// The checkout was dropped while it connected.
    pub const DROPPED: Self = Self::new("dropped");
    /// The TLS handshake failed.
    pub const TLS: Self = Self::new("tls");
    /// The client could not authenticate, and the server sent no SQLSTATE.
    pub const AUTH: Self = Self::new("auth");
    /// A hook of the service failed.
    pub const HOOK: Self = Self::new("hook");
    /// The code that used the connection panicked.
    pub const PANIC: Self = Self::new("panic");
    /// Nothing failed that would have a code.
    pub const NONE: Self = Self::new("none");
    /// Any other failure.
    pub const OTHER: Self = Self(*b"other\0\0\0");

    /// Returns the code with this text: one of Redis's, or one to eight ASCII letters, digits or underscores and nothing
    /// else. [`Self::OTHER`] for any other text.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        if let Some(code) = Self::of_redis(text) {
            return code;
        }
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.len() > 8 {
            return Self::OTHER;
        }
        let mut code = [0; 8];
        let mut i = 0;
        while i < bytes.len() {
            if !(bytes[i].is_ascii_alphanumeric() || bytes[i] == b'_') {
                return Self::OTHER;
            }
            code[i] = bytes[i];
            i += 1;
        }
        Self(code)
    }

    /// Returns the code with the first word of an error of Redis, unless it is an unknown one, as scripts can return.
    pub(crate) const fn of_redis(word: &str) -> Option<Self> {
        let mut index = 0;
        while index < REDIS_CODES.len() {
            if is_equal(REDIS_CODES[index].as_bytes(), word.as_bytes()) {
                #[allow(clippy::cast_possible_truncation, reason = "there are fewer than 256")]
                return Some(Self([REDIS, index as u8, 0, 0, 0, 0, 0, 0]));
            }
            index += 1;
        }
        None
    }

    /// Returns whether the server sent the code: an SQLSTATE, or the first word of an error of Redis.
    pub(crate) fn is_of_server(&self) -> bool {
        self.0[0] == REDIS || self.is_sqlstate()
    }

    /// Returns the code as a number other than zero.
    pub(crate) const fn to_bits(self) -> u64 {
        u64::from_be_bytes(self.0)
    }

    /// Returns the code that [`Self::to_bits`] made this number from, or `None` for zero.
    pub(crate) const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits.to_be_bytes())) }
    }

    /// Returns whether the code is an SQLSTATE.
    #[must_use]
    pub fn is_sqlstate(&self) -> bool {
        let code = self.as_str();
        self.0[0] != REDIS
            && code.len() == 5
            && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    }

    /// Returns the code if it is an SQLSTATE.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.is_sqlstate().then_some(self.as_str())
    }

    /// Returns the code as the values of the labels `sqlstate`, which is empty for a word, and `error_type`.
    pub(crate) fn labels(&self) -> [&str; 2] {
        [self.sqlstate().unwrap_or(""), self.as_str()]
    }

    /// Returns the code as the values of the log's fields `sqlstate` and `error_type`, of which one is omitted.
    pub(crate) fn fields(&self) -> (Option<&str>, Option<&str>) {
        let code = self.as_str();
        if self.is_sqlstate() { (Some(code), None) } else { (None, Some(code)) }
    }

    /// Returns the code as it is spelled in labels and logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        if let [REDIS, index, ..] = self.0 {
            return REDIS_CODES.get(usize::from(index)).copied().unwrap_or("other");
        }
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..len]).unwrap_or("other")
    }
}

#[test]
fn codes_of_redis_are_no_sqlstates() {
    for word in REDIS_CODES {
        let code = ErrorCode::new(word);
        assert_eq!((code.as_str(), code.labels(), code.is_of_server()), (word, ["", word], true));
        assert_eq!(ErrorCode::from_bits(code.to_bits()), Some(code));
    }
    assert_eq!(ErrorCode::of_redis("MYERR"), None);
    assert!(REDIS_CODES.is_sorted());
}

#[test]
fn words_are_no_sqlstates() {
    assert_eq!(ErrorCode::new("57P01").fields(), (Some("57P01"), None));
    assert_eq!(ErrorCode::new("57P01").labels(), ["57P01", "57P01"]);
    for word in ["io", "timeout", "too_slow", "dropped", "tls", "auth", "hook", "panic", "none", "other"] {
        let word = ErrorCode::new(word);
        assert_eq!(word.fields(), (None, Some(word.as_str())));
        assert_eq!((word.labels(), word.sqlstate()), (["", word.as_str()], None));
    }
}
