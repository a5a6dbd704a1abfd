//! The cost of the protocol observer: the pool with `read_wire` on, against the same with it off.
//!
//! Each variant needs its own connection, and no two sockets and server processes are equally fast. Each comparison is
//! therefore repeated with new connections, and the median of the ratios is reported.

use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt;
use poolscope::telemetry::Collector;
use poolscope::{Connection, Pool};
use poolscope_testing::server::Server;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;

use crate::affinity::Pinned;
use crate::comparison::{Comparison, interquartile_mean, median, ratio};
use crate::pools::POOL_SIZE;
use crate::queries::{BATCH, Cost, cpu};
use crate::report::Row;
use crate::{BoxError, Scale};

/// Rows of one statement in the bulk measurements.
const ROWS: u32 = 1_000_000;
const COPIED_ROWS: u32 = 1_024 * 1_024;

/// Pools with `read_wire` off, off (the control) and on.
struct Variants([Pool; 3]);

impl Variants {
    async fn open(server: &Server, pool_size: usize) -> Result<(Self, Vec<i32>), BoxError> {
        let pool = |read_wire| {
            let builder = Pool::builder().url(&server.url()).collector(Collector::new());
            builder.pool_size(pool_size).max_overflow(0).read_wire(read_wire).build()
        };
        let pools = [pool(false)?, pool(false)?, pool(true)?];
        let mut servers = Vec::new();
        for pool in &pools {
            servers.push(pool.get().await?.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?);
        }
        Ok((Self(pools), servers))
    }
}

pub(crate) fn measure(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Vec<Row>, BoxError> {
    let mut rows = vec![select(scale, runtime, server)?];
    rows.extend(many_tasks(scale, server)?);
    rows.extend(bulk(scale, runtime, server)?);
    Ok(rows)
}

fn select(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Row, BoxError> {
    let (mut ratios, mut controls) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(15).max(2) {
        let (variants, servers) = runtime.block_on(Variants::open(server, 1))?;
        let _pinned = Pinned::on_separate_cores(&servers);
        let mut comparison = Comparison::new();
        let variant_ids = [0, 1, 2].map(|index| {
            let pool = &variants.0[index];
            comparison.add(move || query(pool))
        });
        let times = runtime.block_on(comparison.run(scale.of(10_000)))?;
        let [off, control, on] = variant_ids.map(|index| interquartile_mean(&times[index]));
        ratios.push(on / off);
        controls.push(control / off);
    }
    let what = "checkout, SELECT 1 and return, read_wire on over off";
    Ok(Row::ratio("wire_select1", what, median(ratios)).control(median(controls)).at_most(1.01))
}

async fn query(pool: &Pool) -> Result<f64, BoxError> {
    let start = Instant::now();
    let connection = pool.get().await?;
    let select = connection.prepare_cached("SELECT 1").await?;
    connection.query_one(&select, &[]).await?;
    drop(connection);
    Ok(start.elapsed().as_secs_f64())
}

/// Connections that constantly change holders on two threads, which includes the check for dirty returns.
fn many_tasks(scale: Scale, server: &Server) -> Result<Vec<Row>, BoxError> {
    const TASKS: usize = 64;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut samples = Samples::default();
    for _ in 0..scale.of(5) {
        let (variants, _) = runtime.block_on(Variants::open(server, POOL_SIZE))?;
        let mut comparison = Comparison::new();
        let variant_ids = [0, 1, 2].map(|index| {
            let (pool, runtime) = (&variants.0[index], &runtime);
            comparison.add(move || batch(pool, runtime, TASKS))
        });
        let costs = runtime.block_on(comparison.run(scale.of(30)))?;
        for (samples, index) in samples.0.iter_mut().zip(variant_ids) {
            samples.extend(&costs[index]);
        }
    }
    Ok(vec![
        samples.row(|cost| cost.wall, "wire_select1_64", "the same by 64 tasks"),
        samples.row(|cost| cost.cpu, "wire_select1_64_cpu", "the same, client CPU time only"),
    ])
}

async fn batch(pool: &Pool, runtime: &Runtime, tasks: usize) -> Result<Cost, BoxError> {
    let (cpu_before, start) = (cpu()?, Instant::now());
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for _ in 0..BATCH / tasks {
                    query(&pool).await?;
                }
                Ok::<_, BoxError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu()? - cpu_before })
}

/// The variants of the bulk measurements: off, off again on the same connection (the control), off on another connection,
/// and on. Two connections differ by more than the observer costs, which the third one shows; the median over many pairs
/// of them removes that.
const BULK_POOLS: [usize; 4] = [0, 0, 1, 2];
const BULK_ROUNDS: usize = 4;

fn bulk(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Vec<Row>, BoxError> {
    let (mut rows, mut copies) = (BulkSamples::default(), BulkSamples::default());
    for _ in 0..scale.of(10) {
        let (variants, servers) = runtime.block_on(Variants::open(server, 1))?;
        let _pinned = Pinned::on_separate_cores(&servers);
        let mut comparison = Comparison::new();
        let variant_ids = BULK_POOLS.map(|index| {
            let pool = &variants.0[index];
            let rows = comparison.add(move || async move {
                measure_cost(pool, async |connection| receive(connection, scale).await).await
            });
            let copy = comparison
                .add(move || async move { measure_cost(pool, async |connection| copy(connection, scale).await).await });
            (rows, copy)
        });
        let costs = runtime.block_on(comparison.run(scale.of(BULK_ROUNDS)))?;
        rows.push(variant_ids.map(|(rows, _)| typical(&costs[rows])));
        copies.push(variant_ids.map(|(_, copy)| typical(&costs[copy])));
    }
    let (row_title, copy_title) = ("a million rows, read_wire on over off", "1 GiB by COPY, read_wire on over off");
    Ok(vec![
        rows.row(|cost| cost.wall, "wire_bulk_rows", row_title).at_most(1.02),
        rows.row(|cost| cost.cpu, "wire_bulk_rows_cpu", "the same, client CPU time only"),
        rows.connections("wire_bulk_rows_connections", "a million rows, off over off on another connection"),
        copies.row(|cost| cost.wall, "wire_bulk_copy", copy_title).at_most(1.02),
        copies.row(|cost| cost.cpu, "wire_bulk_copy_cpu", "the same, client CPU time only"),
        copies.connections("wire_bulk_copy_connections", "1 GiB by COPY, off over off on another connection"),
    ])
}

/// Returns the typical cost of the turns of one variant.
fn typical(costs: &[Cost]) -> Cost {
    let mean = |of: fn(&Cost) -> f64| interquartile_mean(&costs.iter().map(of).collect::<Vec<_>>());
    Cost { wall: mean(|cost| cost.wall), cpu: mean(|cost| cost.cpu) }
}

/// Costs of the variants of the bulk measurements, by [`BULK_POOLS`].
#[derive(Default)]
struct BulkSamples([Vec<Cost>; BULK_POOLS.len()]);

impl BulkSamples {
    fn push(&mut self, costs: [Cost; BULK_POOLS.len()]) {
        for (samples, cost) in self.0.iter_mut().zip(costs) {
            samples.push(cost);
        }
    }

    fn ratio(&self, variant: usize, of: fn(&Cost) -> f64) -> f64 {
        let [off, compared] = [0, variant].map(|index| self.0[index].iter().map(of).collect::<Vec<_>>());
        ratio(&compared, &off)
    }

    fn row(&self, of: fn(&Cost) -> f64, key: &'static str, what: &'static str) -> Row {
        Row::ratio(key, what, self.ratio(3, of)).control(self.ratio(1, of))
    }

    fn connections(&self, key: &'static str, what: &'static str) -> Row {
        Row::ratio(key, what, self.ratio(2, |cost| cost.wall))
    }
}

/// Costs of the three variants.
#[derive(Default)]
struct Samples([Vec<Cost>; 3]);

impl Samples {
    fn row(&self, of: fn(&Cost) -> f64, key: &'static str, what: &'static str) -> Row {
        let [off, control, on] = [0, 1, 2].map(|index| self.0[index].iter().map(of).collect::<Vec<_>>());
        Row::ratio(key, what, ratio(&on, &off)).control(ratio(&control, &off))
    }
}

async fn measure_cost(pool: &Pool, work: impl AsyncFn(&Connection) -> Result<(), BoxError>) -> Result<Cost, BoxError> {
    let connection = pool.get().await?;
    let (cpu_before, start) = (cpu()?, Instant::now());
    work(&connection).await?;
    Ok(Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu()? - cpu_before })
}

async fn receive(connection: &Connection, scale: Scale) -> Result<(), BoxError> {
    let rows = if scale.is_quick() { ROWS / 100 } else { ROWS };
    let select = connection.prepare_cached("SELECT n, n::text FROM generate_series(1, $1::int) AS n").await?;
    let parameter: &(dyn ToSql + Sync) = &i32::try_from(rows)?;
    let mut stream = pin!(connection.query_raw(&select, [parameter]).await?);
    let mut received = 0;
    while let Some(row) = stream.next().await {
        row?;
        received += 1;
    }
    if received == rows { Ok(()) } else { Err(format!("{received} rows instead of {rows}").into()) }
}

async fn copy(connection: &Connection, scale: Scale) -> Result<(), BoxError> {
    let rows = if scale.is_quick() { COPIED_ROWS / 100 } else { COPIED_ROWS };
    let query = format!("COPY (SELECT repeat('x', 1023) FROM generate_series(1, {rows})) TO STDOUT");
    let mut stream = pin!(connection.copy_out(&query).await?);
    let mut received = 0;
    while let Some(chunk) = stream.next().await {
        received += chunk?.len();
    }
    let expected = rows as usize * 1024;
    if received == expected { Ok(()) } else { Err(format!("{received} bytes instead of {expected}").into()) }
}
