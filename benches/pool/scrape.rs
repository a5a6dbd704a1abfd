//! Scrapes, against gathering and encoding by the `prometheus` crate.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Instant;

use poolscope::config::Settings;
use poolscope::exporter::{Exporter, Exposition, Format, Page};
use poolscope::pool::Pool;
use poolscope::telemetry::Collector;
use prometheus::{Registry, TextEncoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::comparison::{Comparison, median, ratio};
use crate::pools::NoIoManager;
use crate::report::Row;
use crate::{BoxError, Scale};

/// Operations per pool, as in a medium-sized service.
const OPERATIONS: usize = 20;

/// Pools with some activity, and their collector.
struct Pools {
    collector: Collector,
    pools: Vec<Pool<NoIoManager>>,
}

impl Pools {
    async fn new(count: usize) -> Result<Self, BoxError> {
        let collector = Collector::new();
        let mut pools = Vec::with_capacity(count);
        for number in 0..count {
            pools.push(Pool::new(NoIoManager, &format!("tenant_{number:04}"), &Settings::default(), &collector)?);
        }
        let pools = Self { collector, pools };
        pools.use_all().await?;
        Ok(pools)
    }

    /// Uses each operation of each pool once, which changes a third of a page's lines.
    async fn use_all(&self) -> Result<(), BoxError> {
        for pool in &self.pools {
            for operation in 0..OPERATIONS {
                let operation = pool.operation(&format!("operation_{operation:02}"));
                operation.run(async |_| Ok::<_, std::convert::Infallible>(())).await?;
            }
        }
        Ok(())
    }
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let count = if scale.is_quick() { 20 } else { 1_000 };
    let pools = runtime.block_on(Pools::new(count))?;
    let mut rows = times(scale, &runtime, &pools)?;
    rows.push(allocations(&runtime, &pools.collector)?);
    rows.extend(runtime.block_on(over_http(scale, &pools.collector))?);
    Ok(rows)
}

/// Returns the seconds to write a page again.
fn write(writing: &RefCell<(Exposition, Page)>, format: Format) -> Result<f64, BoxError> {
    let (exposition, page) = &mut *writing.borrow_mut();
    let start = Instant::now();
    exposition.write(format, page)?;
    Ok(start.elapsed().as_secs_f64())
}

fn times(scale: Scale, runtime: &Runtime, pools: &Pools) -> Result<Vec<Row>, BoxError> {
    let writing = || RefCell::new((Exposition::new(pools.collector.clone()), Page::new()));
    let ours = |format| {
        let writing = writing();
        move || {
            // Nothing has changed since this page.
            let again = write(&writing, format).and_then(|_| write(&writing, format));
            std::future::ready(again)
        }
    };
    let registry = Registry::new();
    registry.register(Box::new(pools.collector.clone()))?;
    let used_page = writing();
    let mut comparison = Comparison::new();
    let theirs = comparison.add(|| async {
        let start = Instant::now();
        black_box(TextEncoder::new().encode_to_string(&registry.gather())?);
        Ok::<_, BoxError>(start.elapsed().as_secs_f64())
    });
    let text = comparison.add(ours(Format::Text));
    let open_metrics = comparison.add(ours(Format::OpenMetrics));
    let used = comparison.add(async || {
        write(&used_page, Format::Text)?;
        pools.use_all().await?;
        write(&used_page, Format::Text)
    });
    let times = runtime.block_on(comparison.run(scale.of(10)))?;
    let millis = |times: &[f64]| median(times.to_vec()) * 1e3;
    Ok(vec![
        Row::ratio(
            "scrape_1000_pools",
            "time to write 1,000 unchanged pools as text again, over the prometheus crate's gather and TextEncoder",
            ratio(&times[text], &times[theirs]),
        )
        .at_most(0.04),
        Row::ratio(
            "scrape_1000_pools_open_metrics",
            "the same as OpenMetrics",
            ratio(&times[open_metrics], &times[theirs]),
        ),
        Row::ratio(
            "scrape_1000_pools_used",
            "as text, if each operation was used once since the last page",
            ratio(&times[used], &times[theirs]),
        ),
        Row::count("scrape_1000_pools_ms", "milliseconds, Poolscope", millis(&times[text])),
        Row::count("scrape_1000_pools_gather_ms", "milliseconds, the prometheus crate", millis(&times[theirs])),
    ])
}

/// Allocations for pools in the steady state: those of a scrape with all pools, less those of a scrape without pools.
#[allow(clippy::cast_precision_loss, reason = "a count of allocations")]
fn allocations(runtime: &Runtime, collector: &Collector) -> Result<Row, BoxError> {
    let _entered = runtime.enter();
    let count = |collector: &Collector| -> Result<f64, BoxError> {
        let (mut exposition, mut page) = (Exposition::new(collector.clone()), Page::new());
        for format in [Format::Text, Format::OpenMetrics, Format::Text] {
            exposition.write(format, &mut page)?;
        }
        // A number that has got longer may need more memory once.
        let mut least = u64::MAX;
        for _ in 0..5 {
            let mut written = Ok(());
            let counted = allocation_counter::measure(|| written = exposition.write(Format::Text, &mut page));
            written?;
            least = least.min(counted.count_total);
        }
        Ok(least as f64)
    };
    let (all, rest) = (count(collector)?, count(&Collector::new())?);
    Ok(Row::count(
        "scrape_allocations",
        "allocations for pools in a scrape; control: those of the registry itself",
        all - rest,
    )
    .control(rest)
    .at_most(0.0))
}

/// Scrapes over a socket as Prometheus does, with and without gzip.
async fn over_http(scale: Scale, collector: &Collector) -> Result<Vec<Row>, BoxError> {
    let exporter = Exporter::new(collector.clone()).bind("127.0.0.1:0").await?;
    let address = exporter.local_addr();
    tokio::spawn(exporter.serve(std::future::pending()));
    let turn = async |encoding: &str| -> Result<(f64, usize), BoxError> {
        let mut stream = TcpStream::connect(address).await?;
        let start = Instant::now();
        let head =
            format!("GET /metrics HTTP/1.1\r\nHost: bench\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let (mut chunk, mut len) = (vec![0; 256 * 1024], 0);
        loop {
            match stream.read(&mut chunk).await? {
                0 => return Ok((start.elapsed().as_secs_f64(), len)),
                read => len += read,
            }
        }
    };
    let (mut plain, mut gzip, mut sizes) = (Vec::new(), Vec::new(), (0, 0));
    for round in 0..scale.of(10) + 1 {
        let (plain_result, gzip_result) = (turn("identity").await?, turn("gzip").await?);
        sizes = (plain_result.1, gzip_result.1);
        // The first round warms up the exporter.
        if round > 0 {
            plain.push(plain_result.0);
            gzip.push(gzip_result.0);
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a count of bytes")]
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    Ok(vec![
        Row::ratio("scrape_gzip", "a scrape over HTTP, with gzip over without", ratio(&gzip, &plain)),
        Row::count("scrape_gzip_ms", "milliseconds, with gzip", median(gzip) * 1e3),
        Row::count("scrape_gzip_mb", "megabytes, with gzip", megabytes(sizes.1)),
        Row::count("scrape_mb", "megabytes, without", megabytes(sizes.0)),
    ])
}
