//! The exporter dashboard.

use serde_json::{Value, json};

use super::dashboard::Dashboard;
use super::layout::{Row, render};
use super::panel::{CRITICAL, Description, NEUTRAL, PanelBuilder};
use super::panel_id::PanelId;
use super::query::{
    CPU_SECONDS, ExternalMetric, MAX_FILES, OPEN_FILES, RESIDENT_MEMORY, SCRAPE_DURATION, SCRAPE_SAMPLES, START_TIME,
    Series, THREADS, UP, max, metric, sum, sum_by,
};
use super::unit::Unit;
use crate::monitoring::names::{MAX_OPERATIONS, POOL_LABEL};
use crate::monitoring::thresholds::Thresholds;

/// Series shown in panels that rank instances or pools.
const TOP_SERIES: usize = 10;

pub(super) fn dashboard(thresholds: &Thresholds) -> Value {
    let health = vec![instances(), uptime(), failed_scrapes(), scrape_p99(), lost_spans(thresholds), versions()];
    let rows = vec![
        Row::open("Health", health),
        Row::open("Scrapes", vec![scrapes(), scrape_time(), samples()]),
        Row::open("Spans", vec![spans(), span_queue()]),
        Row::open("Cardinality and protocol observation", vec![operation_cardinality(), wires_lost()]),
        Row::open("Process", vec![cpu(), memory(), files(), threads()]),
        Row::open("Versions", vec![versions_by_job()]),
    ];
    render(Dashboard::Exporter, rows, &[])
}

/// Selects the targets that report pool metrics, out of all that Prometheus scrapes.
fn of_targets(metric: ExternalMetric) -> String {
    format!("{} and on (job, instance) {}", Series::from(metric), metric!("poolscope_build_info"))
}

/// Selects the instances with the highest values.
fn top(metric: ExternalMetric) -> String {
    format!("topk({TOP_SERIES}, {})", of_targets(metric))
}

fn instances() -> PanelBuilder {
    let description = Description {
        shows: "Number of scraped instances.",
        normal: "As many as deployed. The state of the pools of missing instances is unknown.",
        action: "Read the scrape error on Prometheus' targets page.",
    };
    PanelBuilder::stat(PanelId::Instances, "Instances", description)
        .query(format!("count({})", of_targets(UP)), "instances")
}

fn uptime() -> PanelBuilder {
    let description = Description {
        shows: "Time since the most recent process start.",
        normal: "Since the last release. Repeatedly minutes: a process keeps restarting.",
        action: "The restart annotations have the time and the instance. Read its log.",
    };
    PanelBuilder::stat(PanelId::Uptime, "Last start", description)
        .query(format!("time() - {}", max(of_targets(START_TIME))), "ago")
        .unit(Unit::Seconds)
        .option("graphMode", json!("none"))
}

fn failed_scrapes() -> PanelBuilder {
    let description = Description {
        shows: "Share of scrapes with a status other than 200.",
        normal: "None. Failed scrapes leave gaps in all metrics.",
        action: "Check the status codes below.",
    };
    let all = metric!("poolscope_scrapes_total");
    let failed = all.clone().only(r#"code!="200""#);
    PanelBuilder::stat(PanelId::FailedScrapes, "Failed scrapes", description)
        .query(format!("{} / ({} > 0)", sum(failed.rate()), sum(all.rate())), "failed")
        .unit(Unit::Share)
        .default("noValue", json!("none"))
}

fn scrape_p99() -> PanelBuilder {
    let description = Description {
        shows: "99th percentile of the scrape time.",
        normal: "Well below Prometheus' scrape_timeout, 10 s by default.",
        action: "Check the samples per scrape, and which instance is slow.",
    };
    PanelBuilder::stat(PanelId::ScrapeP99, "Scrape time, p99", description)
        .query(metric!("poolscope_scrape_duration_seconds").quantile(0.99, &[]), "p99")
        .unit(Unit::Seconds)
        .link_to(PanelId::ScrapeTime, "Over time")
}

fn lost_spans(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "Share of ended spans that did not reach their destination. Empty if spans are not exported.",
        normal: "0 %. Red: most longer traces are incomplete.",
        action: "Check whether spans are dropped (the queue is full) or failed to export.",
    };
    let lost = sum(format!(
        "{} + {}",
        metric!("poolscope_spans_dropped_total").rate(),
        metric!("poolscope_spans_failed_total").rate()
    ));
    let ended = sum(metric!("poolscope_spans_ended_total").rate());
    PanelBuilder::stat(PanelId::LostSpans, "Lost spans", description)
        .query(format!("{lost} / ({ended} > 0)"), "lost")
        .unit(Unit::Share)
        .threshold(CRITICAL, &thresholds.span_loss_share)
        .link_to(PanelId::Spans, "Over time")
}

fn versions() -> PanelBuilder {
    let description = Description {
        shows: "Number of running versions of poolscope.",
        normal: "One, or two during a release.",
        action: "The table below lists them; the version annotations mark when each started.",
    };
    let versions = format!("count by (version) ({})", metric!("poolscope_build_info"));
    PanelBuilder::stat(PanelId::Versions, "Versions", description)
        .query(format!("count({versions})"), "versions")
        .link_to(PanelId::VersionsByJob, "Versions by job")
}

fn scrapes() -> PanelBuilder {
    let description = Description {
        shows: "Scrapes per second by status code: 200; 401 (missing or wrong credentials); 499 (the client disconnected); 500 \
                (a collector panicked, or encoding failed); 503 (too many at once).",
        normal: "200 only.",
        action: "500: the log has the cause. 503: too many Prometheus servers scrape at once. 499: raise \
                 scrape_timeout, or check why scrapes are slow.",
    };
    PanelBuilder::lines(PanelId::Scrapes, "Scrapes by status code", description)
        .query(sum_by(&["code"], metric!("poolscope_scrapes_total").rate()), "{{code}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colors(&[("200", "blue"), ("499", "yellow"), ("500", "red"), ("503", "orange")])
}

fn scrape_time() -> PanelBuilder {
    let description = Description {
        shows: "Scrape time as measured by the exporter, including time in its queue, and of the slowest scrape as \
                measured by Prometheus, including the network.",
        normal: "Well below a second. Prometheus far above the exporter: the network or the client is slow. Both: many \
                 samples, or a busy machine.",
        action: "Check the samples per scrape.",
    };
    let scrape = || metric!("poolscope_scrape_duration_seconds");
    PanelBuilder::lines(PanelId::ScrapeTime, "Scrape time", description)
        .query(scrape().quantile(0.5, &[]), "p50")
        .query(scrape().quantile(0.99, &[]), "p99")
        .query(max(of_targets(SCRAPE_DURATION)), "slowest, by Prometheus")
        .unit(Unit::Seconds)
        .colors(&[("p50", "light-blue"), ("p99", "blue"), ("slowest, by Prometheus", "purple")])
}

fn samples() -> PanelBuilder {
    let description = Description {
        shows: "Samples per scrape; the ten largest instances.",
        normal: "Levels off, since operations, query summaries and error pairs are bounded.",
        action: "Check which pool has many operations, below.",
    };
    PanelBuilder::lines(PanelId::Samples, "Samples per scrape", description).query(top(SCRAPE_SAMPLES), "{{instance}}")
}

fn spans() -> PanelBuilder {
    let description = Description {
        shows: "Ended spans per second, stacked: exported, dropped (the queue was full), failed (the export failed).",
        normal: "Exported only. dropped: more spans than the destination accepts. failed: the destination is down, \
                 slow or rejects them.",
        action: "dropped: raise OTEL_BSP_MAX_QUEUE_SIZE, or sample fewer traces. failed: the log has the collector's \
                 response.",
    };
    PanelBuilder::lines(PanelId::Spans, "Spans by outcome", description)
        .size(12, 8)
        .query(sum_by(&["destination"], metric!("poolscope_spans_exported_total").rate()), "exported · {{destination}}")
        .query(sum_by(&["destination"], metric!("poolscope_spans_dropped_total").rate()), "dropped · {{destination}}")
        .query(sum_by(&["destination"], metric!("poolscope_spans_failed_total").rate()), "failed · {{destination}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colors(&[
            ("exported · otlp", "blue"),
            ("exported · page", "light-blue"),
            ("dropped · otlp", "orange"),
            ("dropped · page", "light-orange"),
            ("failed · otlp", "red"),
            ("failed · page", "light-red"),
        ])
}

fn span_queue() -> PanelBuilder {
    let description = Description {
        shows: "Spans queued for export or being exported, at each scrape. The queue holds 2048 unless \
                OTEL_BSP_MAX_QUEUE_SIZE is set.",
        normal: "Well below the limit. New spans are dropped while the queue is full.",
        action: "Check whether the destination is slow or down.",
    };
    PanelBuilder::lines(PanelId::SpanQueue, "Queued spans", description)
        .size(12, 8)
        .query(sum_by(&["destination"], metric!("poolscope_spans_queued")), "{{destination}}")
        .colors(&[("otlp", "blue"), ("page", "light-blue")])
}

fn operation_cardinality() -> PanelBuilder {
    let description = Description {
        shows: "Number of distinct operations of each pool; the ten largest. The dashed line is the limit, beyond \
                which operations are counted as `other`.",
        normal: "Far below the line. At the line, names are probably built from data, such as one per user.",
        action: "Name operations by what they do, without parameters.",
    };
    let operations = format!("count by ({POOL_LABEL}, instance) ({})", metric!("poolscope_checkouts_started_total"));
    PanelBuilder::lines(PanelId::OperationCardinality, "Distinct operations", description)
        .size(12, 8)
        .query(format!("topk({TOP_SERIES}, {operations})"), &format!("{{{{{POOL_LABEL}}}}} · {{{{instance}}}}"))
        .query(format!("vector({MAX_OPERATIONS})"), "limit")
        .limit("limit", NEUTRAL)
}

fn wires_lost() -> PanelBuilder {
    let description = Description {
        shows: "Connections per second on which the protocol observer stopped after an unknown message. They keep \
                working, but their queries and their state on return are unknown.",
        normal: "0. Otherwise poolscope has a bug, or a proxy changes the protocol.",
        action: "Report a bug with the log line. read_wire=off disables the observer.",
    };
    PanelBuilder::lines(PanelId::WiresLost, "Connections no longer observed", description)
        .size(12, 8)
        .soft_max(1.0)
        .query(sum_by(&[POOL_LABEL], metric!("poolscope_wires_lost_total").rate()), &format!("{{{{{POOL_LABEL}}}}}"))
        .unit(Unit::PerSecond)
}

fn cpu() -> PanelBuilder {
    let description = Description {
        shows: "CPU cores used by the process, which is the whole service if the exporter is embedded; the ten largest \
                instances.",
        normal: "Below the available cores. Otherwise checkouts wait for CPU as well.",
        action: "Give it more CPU, or profile the service.",
    };
    let rate =
        format!("{} and on (job, instance) {}", Series::from(CPU_SECONDS).rate(), metric!("poolscope_build_info"));
    PanelBuilder::lines(PanelId::Cpu, "CPU", description)
        .size(6, 8)
        .query(format!("topk({TOP_SERIES}, {rate})"), "{{instance}}")
}

fn memory() -> PanelBuilder {
    let description = Description {
        shows: "Resident memory of the process; the ten largest instances.",
        normal: "Levels off. A line that climbs from start to restart is a leak.",
        action: "Check whether connections or waiting checkouts grow with it.",
    };
    PanelBuilder::lines(PanelId::Memory, "Memory", description)
        .size(6, 8)
        .query(top(RESIDENT_MEMORY), "{{instance}}")
        .unit(Unit::Bytes)
}

fn files() -> PanelBuilder {
    let description = Description {
        shows: "Open files including sockets; the ten largest instances. The dashed line is the lowest limit of any \
                instance.",
        normal: "Far below the line, beyond which no connection can be opened or accepted.",
        action: "Look for files that are not closed, then raise the limit (ulimit -n, LimitNOFILE).",
    };
    PanelBuilder::lines(PanelId::Files, "Open files", description)
        .size(6, 8)
        .query(top(OPEN_FILES), "{{instance}}")
        .query(format!("min({})", of_targets(MAX_FILES)), "limit")
        .limit("limit", NEUTRAL)
}

fn threads() -> PanelBuilder {
    let description = Description {
        shows: "Threads of the process; the ten largest instances.",
        normal: "Tens. Hundreds: each blocking call occupies a thread.",
        action: "Check the service's use of spawn_blocking.",
    };
    PanelBuilder::lines(PanelId::Threads, "Threads", description).size(6, 8).query(top(THREADS), "{{instance}}")
}

fn versions_by_job() -> PanelBuilder {
    let description = Description {
        shows: "Running versions of poolscope with their number of instances.",
        normal: "One per job, or two during a release.",
        action: "Restart the instances that were left behind.",
    };
    let names = json!({ "Value": "Instances", "job": "Job", "version": "Version" });
    let order = json!({ "job": 0, "version": 1, "Value": 2 });
    PanelBuilder::table(PanelId::VersionsByJob, "Versions by job", description)
        .size(24, 6)
        .instant_query(format!("count by (job, version) ({})", metric!("poolscope_build_info")), "")
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
}
