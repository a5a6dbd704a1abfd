//! Stands for `src/pool/backend.rs`.

use std::fmt::Debug;

/// What a pool is generic over.
pub(crate) trait Backend: Debug {}

/// The only backend of the models.
#[derive(Debug)]
pub(crate) struct NoBackend;

impl Backend for NoBackend {}
