//! Stands for `src/pool`. The gate, the places and the closing of surplus connections are the library's.

pub(crate) mod admission;
pub(crate) mod backend;
pub(crate) mod connection;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a model uses only a part of each file")]
#[path = "../../../../src/pool/gate/mod.rs"]
pub(crate) mod gate;
pub(crate) mod release;
pub(crate) mod returning;
