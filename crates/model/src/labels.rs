//! Stands for `src/labels/mod.rs`.

/// The states, with the numbers that the packed state has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    Creating,
    Idle,
    Used,
    Closing,
}

/// What a checkout waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queue,
    Suspended,
    Connect,
}

impl Phase {
    pub(crate) const fn is_wait_for_turn(self) -> bool {
        matches!(self, Self::Suspended)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    Transient,
    LocalResource,
    ServerDown,
    TooManyConnections,
    #[allow(dead_code, reason = "named by the modelled file")]
    Configuration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    Dirty,
    IdleTimeout,
    Overflow,
    Resized,
    Shutdown,
}
