//! Pages are sent in parts, and perhaps not to their end.

use hyper::body::Buf;
use poolscope::exporter::{Format, Page};

use super::fixtures::{Metrics, Pool, Step, Trace, block_on};

#[test]
fn partly_sent_page_is_whole_when_written_again() {
    block_on(async {
        let metrics = Metrics::new();
        let mut pools: Vec<_> = (0..3).map(|number| Pool::new(&format!("pool {number}"), &metrics.collector)).collect();
        for format in [Format::Text, Format::OpenMetrics] {
            let (mut exposition, mut page) = (metrics.exposition(), Page::new());
            for portion in [1, 7, 1000, usize::MAX] {
                // Numbers get longer, and lines are added.
                let step = Step::Run {
                    operation: format!("operation {portion}"),
                    micros: 1500,
                    fails: portion == 7,
                    trace: Trace { number: 1, sampled: true },
                };
                for pool in &mut pools {
                    for _ in 0..4 {
                        pool.apply(&step).await;
                    }
                }
                exposition.write(format, &mut page).unwrap();
                assert_eq!((page.remaining(), page.to_text().len()), (page.len(), page.len()));
                let mut read = Vec::new();
                while page.has_remaining() {
                    let chunk = page.chunk();
                    let count = portion.min(chunk.len());
                    read.extend_from_slice(&chunk[..count]);
                    page.advance(count);
                }
                assert_eq!(String::from_utf8(read).unwrap(), page.to_text());
                exposition.write(format, &mut page).unwrap();
                // Its client goes away.
                page.advance(page.len() / 3);
                assert_eq!(page.remaining(), page.len() - page.len() / 3);
            }
        }
    });
}
