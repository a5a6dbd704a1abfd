//! Who reads along.

/// Sees what goes over one connection, in order.
#[derive(Debug)]
pub(crate) struct Eyes;

impl Eyes {
    /// Bytes that went to the server.
    #[allow(clippy::needless_pass_by_ref_mut, clippy::unused_self)]
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// Bytes that came from the server.
    #[allow(clippy::needless_pass_by_ref_mut, clippy::unused_self)]
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }
}
