//! Feeds arbitrary bytes to the protocol observer, and checks the invariants in `src/wire/protocol/checker.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| poolscope::fuzzing::protocol(bytes));
