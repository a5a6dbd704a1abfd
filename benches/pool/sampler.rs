//! The cost of sampling pools for their diagnosis, as a share of a core.

use std::hint::black_box;
use std::time::Duration;

use poolscope::config::Settings;
use poolscope::pool::Pool;
use poolscope::telemetry::Collector;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::pools::NoIoManager;
use crate::queries::cpu;
use crate::report::Row;
use crate::{BoxError, Scale};

/// Operations per pool, as in a medium-sized service.
const OPERATIONS: usize = 20;

/// The maximum size of a pool, all of which is in use where the pool is under load.
const CONNECTIONS: usize = 30;

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    Ok(vec![
        Row::count("sampler_at_rest", "percent of a core per sampled pool, at rest", percent_of_core(scale, false)?)
            .at_most(0.1),
        Row::count(
            "sampler_loaded",
            "percent of a core per sampled pool, 30 connections in use",
            percent_of_core(scale, true)?,
        )
        .at_most(0.1),
    ])
}

/// Returns the CPU time of sampling, in percent of a core for one pool. It samples many pools, so that it exceeds the
/// resolution of the clock.
fn percent_of_core(scale: Scale, loaded: bool) -> Result<f64, BoxError> {
    let (pools, seconds) = if scale.is_quick() { (10, 2) } else { (300, 20) };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let collector = Collector::new();
        let mut held = Vec::new();
        let mut samplers = JoinSet::new();
        for number in 0..pools {
            let settings = Settings::default();
            let pool = Pool::new(NoIoManager, &format!("tenant_{number:03}"), &settings, &collector)?;
            for connection in 0..CONNECTIONS {
                let operation = pool.operation(&format!("operation_{:02}", connection % OPERATIONS));
                let guard = operation.get().await?;
                held.push((loaded.then_some(guard), pool.clone()));
            }
            samplers.spawn(pool.watch());
        }
        // The first samples allocate.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = cpu()?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let used = cpu()? - before;
        black_box(held);
        Ok(used / Duration::from_secs(seconds).as_secs_f64() / f64::from(pools) * 100.0)
    })
}
