//! What reading the wire costs: our pool with `read_wire` on, against the same with it off.
//!
//! Each variant needs a connection of its own, and no two sockets and server processes are equally fast. So each
//! comparison is made several times, with new connections for all, and the median of the ratios counts.

use std::pin::pin;
use std::time::Instant;

use futures_util::StreamExt;
use poolscope::demo::server::Server;
use poolscope::telemetry::Collector;
use poolscope::{Connection, Pool};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;

use crate::affinity::Pinned;
use crate::comparison::{Rounds, median, middle_mean, ratio};
use crate::pools::POOL_SIZE;
use crate::queries::{BATCH, Cost, cpu};
use crate::report::Row;
use crate::{Failure, Scale};

/// What one statement sends in the bulk measurements.
const ROWS: u32 = 1_000_000;
const COPIED_ROWS: u32 = 1_024 * 1_024;

/// Without, without once more, and with.
struct Variants([Pool; 3]);

impl Variants {
    async fn open(server: &Server, pool_size: usize) -> Result<(Self, Vec<i32>), Failure> {
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

pub(crate) fn measure(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Vec<Row>, Failure> {
    let mut rows = vec![select(scale, runtime, server)?];
    rows.extend(many_tasks(scale, server)?);
    rows.extend(bulk(scale, runtime, server)?);
    Ok(rows)
}

fn select(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Row, Failure> {
    let (mut ratios, mut controls) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(15).max(2) {
        let (variants, servers) = runtime.block_on(Variants::open(server, 1))?;
        let _pinned = Pinned::apart(&servers);
        let mut rounds = Rounds::new();
        let places = [0, 1, 2].map(|place| {
            let pool = &variants.0[place];
            rounds.add(move || query(pool))
        });
        let times = runtime.block_on(rounds.run(scale.of(10_000)))?;
        let [off, control, on] = places.map(|place| middle_mean(&times[place]));
        ratios.push(on / off);
        controls.push(control / off);
    }
    let what = "checkout, SELECT 1 and return, with the wire read over without";
    Ok(Row::ratio("wire_select1", what, median(ratios)).control(median(controls)).at_most(1.01))
}

async fn query(pool: &Pool) -> Result<f64, Failure> {
    let begun = Instant::now();
    let connection = pool.get().await?;
    let select = connection.prepare_cached("SELECT 1").await?;
    connection.query_one(&select, &[]).await?;
    drop(connection);
    Ok(begun.elapsed().as_secs_f64())
}

/// Connections that change hands all the time, on two threads: each must have been left in order by the one before.
fn many_tasks(scale: Scale, server: &Server) -> Result<Vec<Row>, Failure> {
    const TASKS: usize = 64;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut samples = Samples::default();
    for _ in 0..scale.of(5) {
        let (variants, _) = runtime.block_on(Variants::open(server, POOL_SIZE))?;
        let mut rounds = Rounds::new();
        let places = [0, 1, 2].map(|place| {
            let (pool, runtime) = (&variants.0[place], &runtime);
            rounds.add(move || batch(pool, runtime, TASKS))
        });
        let costs = runtime.block_on(rounds.run(scale.of(30)))?;
        for (samples, place) in samples.0.iter_mut().zip(places) {
            samples.extend(&costs[place]);
        }
    }
    Ok(vec![
        samples.row(
            |cost| cost.wall,
            "wire_select1_64",
            "time of as many by 64 tasks, with the wire read over without",
        ),
        samples.row(|cost| cost.cpu, "wire_select1_64_cpu", "the same, the client's CPU alone"),
    ])
}

async fn batch(pool: &Pool, runtime: &Runtime, tasks: usize) -> Result<Cost, Failure> {
    let (cpu_before, begun) = (cpu()?, Instant::now());
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for _ in 0..BATCH / tasks {
                    query(&pool).await?;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu()? - cpu_before })
}

fn bulk(scale: Scale, runtime: &Runtime, server: &Server) -> Result<Vec<Row>, Failure> {
    let (mut rows, mut copies) = (Samples::default(), Samples::default());
    for _ in 0..scale.of(8) {
        let (variants, servers) = runtime.block_on(Variants::open(server, 1))?;
        let _pinned = Pinned::apart(&servers);
        let mut rounds = Rounds::new();
        let places = [0, 1, 2].map(|place| {
            let pool = &variants.0[place];
            let rows = rounds
                .add(move || async move { timed(pool, async |connection| receive(connection, scale).await).await });
            let copy =
                rounds.add(move || async move { timed(pool, async |connection| copy(connection, scale).await).await });
            (rows, copy)
        });
        let costs = runtime.block_on(rounds.run(1))?;
        rows.take(places.map(|(rows, _)| costs[rows][0]));
        copies.take(places.map(|(_, copy)| costs[copy][0]));
    }
    Ok(vec![
        rows.row(|cost| cost.wall, "wire_bulk_rows", "a million rows, with the wire read over without").at_most(1.02),
        rows.row(|cost| cost.cpu, "wire_bulk_rows_cpu", "the same, the client's CPU alone"),
        copies.row(|cost| cost.wall, "wire_bulk_copy", "1 GiB by COPY, with the wire read over without").at_most(1.02),
        copies.row(|cost| cost.cpu, "wire_bulk_copy_cpu", "the same, the client's CPU alone"),
    ])
}

/// What the three variants cost, by turns.
#[derive(Default)]
struct Samples([Vec<Cost>; 3]);

impl Samples {
    fn take(&mut self, costs: [Cost; 3]) {
        for (samples, cost) in self.0.iter_mut().zip(costs) {
            samples.push(cost);
        }
    }

    fn row(&self, of: fn(&Cost) -> f64, key: &'static str, what: &'static str) -> Row {
        let [off, control, on] = [0, 1, 2].map(|place| self.0[place].iter().map(of).collect::<Vec<_>>());
        Row::ratio(key, what, ratio(&on, &off)).control(ratio(&control, &off))
    }
}

async fn timed(pool: &Pool, work: impl AsyncFn(&Connection) -> Result<(), Failure>) -> Result<Cost, Failure> {
    let connection = pool.get().await?;
    let (cpu_before, begun) = (cpu()?, Instant::now());
    work(&connection).await?;
    Ok(Cost { wall: begun.elapsed().as_secs_f64(), cpu: cpu()? - cpu_before })
}

async fn receive(connection: &Connection, scale: Scale) -> Result<(), Failure> {
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

async fn copy(connection: &Connection, scale: Scale) -> Result<(), Failure> {
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
