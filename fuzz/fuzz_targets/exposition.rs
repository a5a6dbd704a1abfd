//! Exposes pools and operations with arbitrary names in both formats, and reads them with a strict parser.
#![no_main]

#[path = "../strict.rs"]
mod strict;

use std::sync::LazyLock;

use poolscope::exporter::{Exposition, Format, Page};
use poolscope::{Collector, Pool};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

libfuzzer_sys::fuzz_target!(|names: &str| {
    let collector = Collector::new();
    let mut names = names.split('\u{1}');
    let name = names.next().unwrap_or_default();
    // There is no such socket, so that connecting fails at once.
    let builder = Pool::builder().url("postgres://app@%2Fnonexistent/shop").collector(collector.clone());
    let Ok(pool) = builder.name(name).build() else { return };
    RUNTIME.block_on(async {
        for operation in names.take(8) {
            let _ = pool.operation(operation).get().await;
        }
    });
    let mut exposition = Exposition::new(collector);
    let mut page = Page::new();
    for (format, open_metrics) in [(Format::Text, false), (Format::OpenMetrics, true)] {
        exposition.write(format, &mut page).expect("a page");
        strict::check(&page.to_text(), open_metrics);
    }
});
