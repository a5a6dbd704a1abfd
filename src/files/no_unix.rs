//! Stands in for Unix on other systems.

use std::fs::Metadata;

use super::read::SecretKind;

pub(super) fn is_fifo(_: &Metadata) -> bool {
    false
}

pub(super) fn version(_: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

/// Access control lists are not checked.
pub(super) fn readable_by_others(_: &Metadata, _: SecretKind) -> bool {
    false
}
