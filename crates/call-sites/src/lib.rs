//! A hundred thousand places from which one function is called: more than any program has, and fifty times as many as a
//! pool's table of call sites has room for. They are generated, and take some seconds to compile.

/// What is called.
pub trait Callee {
    /// Sees the call site as [`Location::caller`](std::panic::Location::caller), if the implementation has the attribute
    /// too.
    #[track_caller]
    fn called(&mut self);
}

include!(concat!(env!("OUT_DIR"), "/calls.rs"));
