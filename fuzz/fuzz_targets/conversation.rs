//! Feeds what passes on a wire to its reader. The rules that it must keep are in `conversation_tests/witness.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| poolscope::fuzzing::conversation(bytes));
