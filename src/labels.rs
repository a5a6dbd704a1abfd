//! The closed sets of label values: the outcome of a checkout, the reason why a connection was closed, and the like.
//!
//! Each value has one spelling, used in metrics, logs, spans and JSON alike.

/// Defines a closed set of words: the enum, `ALL`, `COUNT` and `as_str`.
macro_rules! label_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every word of the set, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word as it stands in label values and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Its place in [`Self::ALL`].
            #[must_use]
            pub const fn index(self) -> usize { self as usize }
        }
    };
}

pub(crate) use label_enum;

label_enum! {
    /// How a checkout ended. Each checkout has exactly one outcome, also when its future is dropped.
    Outcome {
        /// The caller got what it asked for.
        Ok => "ok",
        /// The deadline over the whole checkout passed.
        Timeout => "timeout",
        /// Connecting failed, or, for a named operation, the operation itself did.
        Error => "error",
        /// The pool was closed.
        Closed => "closed",
        /// The checkout was refused because the pool was overloaded.
        Shed => "shed",
        /// The caller dropped the future before it was done.
        Cancelled => "cancelled",
    }
}

label_enum! {
    /// What a checkout in flight is waiting for.
    Phase {
        /// For capacity: every connection is taken.
        Queue => "queue",
        /// For a new connection.
        Connect => "connect",
        /// For the answer to a pre-ping.
        Ping => "ping",
        /// For a connection to be cleaned.
        Clean => "clean",
        /// For its turn to connect, as connecting has failed and is left to others.
        Suspended => "suspended",
        /// For its turn among its route's checkouts, which may hold no more of the pool.
        Share => "share",
    }
}

impl Phase {
    /// Whether it is a wait for a turn, when a connection is likely to be had.
    pub(crate) const fn is_turn(self) -> bool {
        matches!(self, Self::Suspended | Self::Share)
    }
}

label_enum! {
    /// Why a connection was closed.
    CloseReason {
        /// It was never established: connecting failed.
        ConnectFailed => "connect_failed",
        /// It was never established: the checkout that was connecting gave up or was dropped.
        ConnectAbandoned => "connect_abandoned",
        /// It was older than `recycle_after`.
        Recycled => "recycled",
        /// It came back when `pool_size` connections were idle already.
        Overflow => "overflow",
        /// It did not answer a pre-ping.
        PingFailed => "ping_failed",
        /// The checkout that was pinging it gave up or was dropped.
        PingAbandoned => "ping_abandoned",
        /// It was made before a ping that failed was sent.
        Invalidated => "invalidated",
        /// It was found closed, by the server or by the network.
        Broken => "broken",
        /// Its server no longer takes writes: another is the primary now.
        ReadOnly => "read_only",
        /// It came back dirty, and could not be cleaned in time.
        Dirty => "dirty",
        /// Its holder asked for it to be closed instead of returned.
        Discarded => "discarded",
        /// The pool was closed or dropped.
        Shutdown => "shutdown",
    }
}

label_enum! {
    /// What was under way when a connection reported an error.
    ErrorPhase {
        /// Connecting, from the first socket to the server's readiness.
        Connect => "connect",
        /// A pre-ping.
        Ping => "ping",
        /// A query, as read off the wire; or whatever else the server reported while the connection was in the pool.
        Query => "query",
        /// Cleaning a connection that came back dirty.
        Reset => "reset",
    }
}

label_enum! {
    /// What a connection that is held does.
    Activity {
        /// The server works: from the first byte of a request until it is ready for the next.
        Executing => "executing",
        /// Nothing, and no transaction is open.
        Idle => "idle",
        /// Nothing, and a transaction is open, or failed and not ended.
        IdleInTransaction => "idle_in_transaction",
    }
}

label_enum! {
    /// In what way a connection came back dirty.
    Dirt {
        /// A transaction was open.
        InTransaction => "in_transaction",
        /// A transaction had failed and was not ended.
        FailedTransaction => "failed_transaction",
        /// The server was still at a query that nobody waits for.
        Busy => "busy",
        /// Settings were changed with SET.
        Settings => "settings",
        /// Advisory locks of the session were held.
        AdvisoryLocks => "advisory_locks",
        /// The session listened for notifications.
        Listen => "listen",
        /// There were temporary tables.
        TemporaryTables => "temporary_tables",
    }
}

label_enum! {
    /// Why an operation that failed was not tried again.
    GiveUp {
        /// It cannot succeed by being repeated: the statement is wrong, a constraint is violated, the work itself said no.
        Permanent => "permanent",
        /// Something of it may have taken effect, and it was not said to be idempotent.
        NotIdempotent => "not_idempotent",
        /// Whether its COMMIT took effect is not known, and it was not said to be idempotent.
        CommitUnknown => "commit_unknown",
        /// What failed is not known, since the wire is not read, or was not understood.
        Unseen => "unseen",
        /// It was tried as often as the policy allows.
        Attempts => "attempts",
        /// The policy's deadline passed, or would have during the backoff.
        Deadline => "deadline",
        /// The pool's budget for retries was spent.
        Budget => "budget",
    }
}

label_enum! {
    /// A direction on the wire.
    Direction {
        /// To the server.
        Sent => "sent",
        /// From the server.
        Received => "received",
    }
}

label_enum! {
    /// What a connection is doing.
    ConnectionState {
        /// Being established for a checkout.
        Creating => "creating",
        /// In the pool, at nobody's disposal but the next checkout's.
        Idle => "idle",
        /// Held by a caller, or being pinged for one.
        Used => "used",
    }
}

/// What an error says about itself in the `sqlstate` label: the server's five characters or, where the server
/// sent none, one word for the kind of failure.
///
/// Always short and from a small set; never a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode([u8; 8]);

impl ErrorCode {
    /// The connection was closed or broke: no SQLSTATE was received.
    pub const IO: Self = Self::word("io");
    /// No answer in time.
    pub const TIMEOUT: Self = Self::word("timeout");
    /// The TLS handshake failed.
    pub const TLS: Self = Self::word("tls");
    /// The client could not authenticate and the server sent no SQLSTATE.
    pub const AUTH: Self = Self::word("auth");
    /// Nothing failed that would have a code.
    pub const NONE: Self = Self::word("none");
    /// None of the others.
    pub const OTHER: Self = Self(*b"other\0\0\0");

    /// A code of at most eight ASCII letters, digits or underscores; anything else is [`Self::OTHER`].
    #[must_use]
    pub const fn word(word: &str) -> Self {
        let bytes = word.as_bytes();
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

    /// The code as a number, which is never zero.
    pub(crate) const fn to_bits(self) -> u64 {
        u64::from_be_bytes(self.0)
    }

    /// The code of such a number; none of zero.
    pub(crate) const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits.to_be_bytes())) }
    }

    /// Whether it is one of the server's, and not a word for what has none.
    #[must_use]
    pub fn is_sqlstate(&self) -> bool {
        let code = self.as_str();
        code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    }

    /// The code as it stands in label values and logs.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..len]).unwrap_or("other")
    }
}
