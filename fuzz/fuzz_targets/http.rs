//! Sends arbitrary requests to the exporter's routes: path, query, and the headers for the format and the encoding.
#![no_main]

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

libfuzzer_sys::fuzz_target!(|head: &str| RUNTIME.block_on(poolscope::fuzzing::http(head)));
