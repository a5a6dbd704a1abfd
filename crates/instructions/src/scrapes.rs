//! Scrapes, per pool with some operations.

use std::convert::Infallible;

use poolscope::config::Settings;
use poolscope::exporter::{Exposition, Format, Page};
use poolscope::pool::Pool;
use poolscope::telemetry::Collector;

use crate::BoxError;
use crate::callgrind::{counted_step, repeat_times};
use crate::checkouts::{NoIoManager, runtime};

/// So many that the registry's own metrics do not matter.
const POOLS: u32 = 50;
const OPERATIONS: usize = 20;

fn scrapes(format: Format) -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let collector = Collector::new();
    let mut pools = Vec::new();
    for number in 0..POOLS {
        let pool = Pool::new(NoIoManager, &format!("tenant_{number:04}"), &Settings::default(), &collector)?;
        runtime.block_on(async {
            for operation in 0..OPERATIONS {
                let operation = pool.operation(&format!("operation_{operation:02}"));
                operation.run(async |_| Ok::<_, Infallible>(())).await?;
            }
            Ok::<_, BoxError>(())
        })?;
        pools.push(pool);
    }
    let _entered = runtime.enter();
    let (mut exposition, mut page) = (Exposition::new(collector), Page::new());
    let scrapes = repeat_times(2, 10, || Ok(counted_step(|| exposition.write(format, &mut page))?))?;
    Ok(scrapes * POOLS)
}

pub(crate) fn text() -> Result<u32, BoxError> {
    scrapes(Format::Text)
}

pub(crate) fn open_metrics() -> Result<u32, BoxError> {
    scrapes(Format::OpenMetrics)
}
