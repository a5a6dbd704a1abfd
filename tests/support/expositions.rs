//! The exposition in both formats, compared with the encoder of the `prometheus` crate.

use poolscope::Collector;
use poolscope::exporter::{Exposition, Format, Page};
use prometheus::{Registry, TextEncoder};

use super::pages::{self, Family, samples};
use super::waits::poll_until;

/// Returns the text format and OpenMetrics as soon as they are complete and equal to what the crate writes: some values,
/// such as the retry budget, change with time.
pub(crate) async fn equal_expositions(
    collector: Collector,
    registry: &Registry,
    is_complete: impl Fn(&[Family]) -> bool,
) -> (Vec<Family>, Vec<Family>) {
    let mut exposition = Exposition::new(collector);
    let mut page = Page::new();
    let mut ours = |format| {
        exposition.write(format, &mut page).unwrap();
        pages::read(format, &page.to_text())
    };
    poll_until("three equal expositions", async || {
        let (text, open_metrics) = (ours(Format::Text), ours(Format::OpenMetrics));
        let theirs = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let same = samples(&text) == samples(&pages::read(Format::Text, &theirs));
        (is_complete(&text) && same && samples(&text) == samples(&open_metrics)).then_some((text, open_metrics))
    })
    .await
}
