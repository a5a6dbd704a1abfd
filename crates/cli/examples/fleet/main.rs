//! A fleet on one machine: serves the page of one exporter as that of a thousand instances, for a Prometheus to scrape.
//!
//! Two readings of a real exporter, some seconds apart, say how fast each of its series grows. From then on every
//! instance has a page of its own, in which each counter grows at that rate times the instance's own factor, and each
//! gauge moves between the two readings.
//!
//! With `make demo` running in another terminal:
//!
//! ```console
//! $ cargo run --release --example fleet -- --from http://127.0.0.1:9719/metrics
//! 1000 instances, 1046 samples each, for http_sd_configs at http://127.0.0.1:9800/targets
//! ```
//!
//! `make fleet` does this and more (`--measure`): a demo, a fleet with its page, a Prometheus that scrapes it, evaluates
//! the rules and sends everything on to a VictoriaMetrics; and it prints the table that stands in docs/scale.md.

#![allow(clippy::print_stdout, reason = "what it says is its result")]

mod measure;
mod page;
mod serve;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;

use self::page::Model;

#[derive(Debug, Parser)]
#[command(about = "Serve the page of one exporter as that of a thousand instances")]
struct Args {
    /// The exporter whose page it is, as http://127.0.0.1:9719/metrics
    #[arg(long, value_name = "URL", required_unless_present = "measure")]
    from: Option<String>,
    /// How many instances
    #[arg(long, default_value_t = 1000)]
    instances: usize,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9800")]
    listen: SocketAddr,
    /// How long between the two readings
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    apart: u64,
    /// Start all that it takes (the demo, Prometheus, VictoriaMetrics), and print what it needs; the demo's binary
    #[arg(long, value_name = "BINARY", conflicts_with = "from")]
    measure: Option<String>,
    /// How long to measure
    #[arg(long, default_value_t = 5, value_name = "MINUTES", requires = "measure")]
    minutes: u64,
    /// How often instances are scraped while it is measured
    #[arg(long, default_value_t = 15, value_name = "SECONDS", requires = "measure")]
    interval: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let apart = Duration::from_secs(args.apart);
    if let Some(demo) = &args.measure {
        let plan = measure::Plan {
            demo: demo.into(),
            instances: args.instances,
            listen: args.listen,
            apart,
            minutes: args.minutes,
            interval: args.interval,
        };
        return plan.carry_out().await;
    }
    let url = args.from.unwrap_or_default();
    let (first, second) = page::read_twice(&url, apart).await?;
    let model = Model::new(&first, &second, apart)?;
    let (instances, samples, listen) = (args.instances, model.samples(), args.listen);
    println!("{instances} instances, {samples} samples each, for http_sd_configs at http://{listen}/targets");
    serve::serve(listen, instances, model).await
}
