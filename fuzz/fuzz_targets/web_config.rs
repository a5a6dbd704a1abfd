//! Reads arbitrary bytes as a web configuration: it is valid, or the error is one line.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| poolscope::fuzzing::web_config(content));
