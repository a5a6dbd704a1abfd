//! Parses arbitrary `traceparent` and `tracestate` headers.
#![no_main]

libfuzzer_sys::fuzz_target!(|headers: &str| poolscope::fuzzing::traceparent(headers));
