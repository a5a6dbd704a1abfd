//! Stands for `src/pool/release`.

#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of the file")]
#[path = "../../../../src/pool/release/surplus.rs"]
pub(crate) mod surplus;

mod reset {
    use crate::telemetry::wire::SessionStatus;

    pub(super) fn dirt_of(status: SessionStatus) -> Option<()> {
        (!status.is_clean()).then_some(())
    }
}

/// Returns a connection, as the guard of a holder does.
pub(crate) fn return_connection<M: super::backend::Backend>(object: super::connection::Pooled<M>) {
    let recorder = &object.meta.shared.recorder;
    recorder.connection_idle(&object.meta.stats, recorder.now());
    surplus::return_and_close_surplus(object);
}
