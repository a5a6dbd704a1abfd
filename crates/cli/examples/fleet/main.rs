//! Simulates a fleet: serves the metrics of one exporter as those of a thousand instances, for Prometheus to scrape.
//!
//! Two scrapes of a real exporter, some seconds apart, give the growth rate of each series. Each instance then serves its own
//! metrics, in which counters grow at that rate times the instance's factor, and gauges move between the two values.
//!
//! With `make demo` running in another terminal:
//!
//! ```console
//! $ cargo run --release --example fleet -- --from http://127.0.0.1:9719/metrics
//! 1000 instances, 1046 samples each, for http_sd_configs at http://127.0.0.1:9800/targets
//! ```
//!
//! `make fleet` (`--measure`) also runs the demo, a Prometheus that scrapes the fleet, evaluates the rules and forwards everything
//! to VictoriaMetrics, and prints the table of docs/scale.md.

#![allow(clippy::print_stdout, reason = "the output is the result")]

mod measure;
mod page;
mod serve;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;

use self::page::Model;

#[derive(Debug, Parser)]
#[command(about = "Serve the metrics of one exporter as those of many instances")]
struct Args {
    /// The exporter to scrape, as http://127.0.0.1:9719/metrics
    #[arg(long, value_name = "URL", required_unless_present = "measure")]
    from: Option<String>,
    /// Number of instances
    #[arg(long, default_value_t = 1000)]
    instances: usize,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:9800")]
    listen: SocketAddr,
    /// Time between the two scrapes
    #[arg(long = "apart", default_value_t = 20, value_name = "SECONDS")]
    scrape_gap: u64,
    /// Start the demo with this binary, Prometheus and VictoriaMetrics, and print their resource use
    #[arg(long, value_name = "BINARY", conflicts_with = "from")]
    measure: Option<String>,
    /// Duration of the measurement
    #[arg(long, default_value_t = 5, value_name = "MINUTES", requires = "measure")]
    minutes: u64,
    /// Scrape interval during the measurement
    #[arg(long, default_value_t = 15, value_name = "SECONDS", requires = "measure")]
    interval: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let scrape_gap = Duration::from_secs(args.scrape_gap);
    if let Some(demo) = &args.measure {
        let measurement = measure::Measurement {
            demo: demo.into(),
            instances: args.instances,
            listen: args.listen,
            scrape_gap,
            minutes: args.minutes,
            interval: args.interval,
        };
        return measurement.run().await;
    }
    let url = args.from.unwrap_or_default();
    let (first, second) = page::scrape_twice(&url, scrape_gap).await?;
    let model = Model::new(&first, &second, scrape_gap)?;
    let (instances, samples, listen) = (args.instances, model.samples(), args.listen);
    println!("{instances} instances, {samples} samples each, for http_sd_configs at http://{listen}/targets");
    serve::serve(listen, instances, model).await
}
