//! Stands for `src/labels.rs`.

/// The states, with the numbers that the packed state has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    Creating,
    Idle,
    Used,
    Closing,
}
