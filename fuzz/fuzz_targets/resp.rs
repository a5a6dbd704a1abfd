//! Feeds arbitrary bytes to the observer of Redis's protocol, and checks the invariants in `src/wire/resp/checker.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| poolscope::fuzzing::resp(bytes));
