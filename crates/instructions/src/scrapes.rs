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

/// What happens between two scrapes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// Each operation of each pool is used once.
    OneUse,
}

async fn use_operations(pools: &[Pool<NoIoManager>]) -> Result<(), BoxError> {
    for pool in pools {
        for operation in 0..OPERATIONS {
            let operation = pool.operation(&format!("operation_{operation:02}"));
            operation.run(async |_| Ok::<_, Infallible>(())).await?;
        }
    }
    Ok(())
}

fn scrapes(format: Format, between: Between) -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let collector = Collector::new();
    let create = |number| Pool::new(NoIoManager, &format!("tenant_{number:04}"), &Settings::default(), &collector);
    let pools = (0..POOLS).map(create).collect::<Result<Vec<_>, _>>()?;
    runtime.block_on(use_operations(&pools))?;
    let (mut exposition, mut page) = (Exposition::new(collector), Page::new());
    let scrapes = repeat_times(2, 10, || {
        if between == Between::OneUse {
            runtime.block_on(use_operations(&pools))?;
        }
        let _entered = runtime.enter();
        Ok(counted_step(|| exposition.write(format, &mut page))?)
    })?;
    Ok(scrapes * POOLS)
}

pub(crate) fn text() -> Result<u32, BoxError> {
    scrapes(Format::Text, Between::Nothing)
}

pub(crate) fn open_metrics() -> Result<u32, BoxError> {
    scrapes(Format::OpenMetrics, Between::Nothing)
}

pub(crate) fn used_text() -> Result<u32, BoxError> {
    scrapes(Format::Text, Between::OneUse)
}
