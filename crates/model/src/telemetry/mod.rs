//! Stands for `src/telemetry`.

pub(crate) mod connection;
pub(crate) mod ledger;
#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of the file")]
#[path = "../../../../src/telemetry/owned.rs"]
pub(crate) mod owned;
#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of the file")]
#[path = "../../../../src/telemetry/ledger/queue.rs"]
pub(crate) mod queue;
#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of the file")]
#[path = "../../../../src/telemetry/ledger/shards.rs"]
pub(crate) mod shards;

pub(crate) mod clock {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Nanos(u64);

    impl Nanos {
        pub(crate) const fn from_nanos(nanos: u64) -> Self {
            Self(nanos)
        }

        pub(crate) const fn as_nanos(self) -> u64 {
            self.0
        }

        pub(crate) const fn since(self, earlier: Self) -> u64 {
            self.0 - earlier.0
        }
    }
}

pub(crate) mod operations {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct OperationId(usize);

    impl OperationId {
        pub(crate) const OTHER: Self = Self(0);

        pub(crate) const fn index(self) -> usize {
            self.0
        }

        pub(crate) fn from_index(index: u64) -> Self {
            Self(usize::try_from(index).unwrap_or_default())
        }
    }
}

pub(crate) mod wire {
    /// The states that matter to the connection's task.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum SessionStatus {
        Clean,
        Dirty,
        /// Work whose end is awaited.
        #[allow(dead_code, reason = "named by the modelled file")]
        Ending,
    }

    impl SessionStatus {
        pub(crate) fn is_clean(self) -> bool {
            self == Self::Clean
        }
    }
}
