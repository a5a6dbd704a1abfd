//! The exporter itself: what watches the pools has to be watched, too.

use serde_json::{Value, json};

use super::Dashboard;
use super::drawing::{CRITICAL, Drawing, NEUTRAL, Says};
use super::frame::{Row, frame};
use super::panels::Panel;
use super::query::{
    CPU_SECONDS, Foreign, MAX_FILES, OPEN_FILES, RESIDENT_MEMORY, SAMPLES, SCRAPE_DURATION, STARTED, Series, THREADS,
    UP, max, metric, sum, sum_by,
};
use super::unit::Unit;
use crate::monitoring::Thresholds;
use crate::monitoring::names::POOL_LABEL;
use poolscope::telemetry::MAX_OPERATIONS;

/// How many instances a panel shows, those with most. More lines than that nobody reads.
const WORST: usize = 10;

pub(super) fn dashboard(thresholds: &Thresholds) -> Value {
    let health = vec![up(), uptime(), failed_scrapes(), slowest_scrapes(), lost_spans(thresholds), versions()];
    let rows = vec![
        Row { title: "Is it healthy?", panels: health },
        Row { title: "Is it scraped?", panels: vec![scrapes(), scrape_time(), samples()] },
        Row { title: "Where do spans go?", panels: vec![spans(), span_queue()] },
        Row { title: "Is all of it seen?", panels: vec![told_apart(), wires_lost()] },
        Row { title: "What does the process need?", panels: vec![cpu(), memory(), files(), threads()] },
        Row { title: "What runs?", panels: vec![builds()] },
    ];
    frame(Dashboard::Exporter, rows, &[])
}

/// Of a target of a job that has a poolscope, and not of whatever else is scraped.
fn of_ours(of: Foreign) -> String {
    format!("{} and on (job, instance) {}", Series::from(of), metric!("poolscope_build_info"))
}

/// The instances that have most of something of the process.
fn most(of: Foreign) -> String {
    format!("topk({WORST}, {})", of_ours(of))
}

fn up() -> Drawing {
    let says = Says {
        means: "Instances that are scraped now.",
        bad: "Fewer than there should be: nothing is known of the others' pools.",
        cure: "See in Prometheus' page of targets what it meets there.",
    };
    Drawing::stat(Panel::Up, "Instances", says).asks(format!("count({})", of_ours(UP)), "instances")
}

fn uptime() -> Drawing {
    let says = Says {
        means: "How long the process that was started last has run.",
        bad: "Minutes, again and again: something restarts.",
        cure: "The blue marks show when, and the text of each which instance. Read its log.",
    };
    Drawing::stat(Panel::Uptime, "Last start", says)
        .asks(format!("time() - {}", max(of_ours(STARTED))), "ago")
        .unit(Unit::Seconds)
        .option("graphMode", json!("none"))
}

fn failed_scrapes() -> Drawing {
    let says = Says {
        means: "The share of scrapes that were answered with anything but 200.",
        bad: "Any: there are gaps in what is known.",
        cure: "See the codes below.",
    };
    let all = metric!("poolscope_scrapes_total");
    let failed = all.clone().only(r#"code!="200""#);
    Drawing::stat(Panel::FailedScrapes, "Failed scrapes", says)
        .asks(format!("{} / ({} > 0)", sum(failed.rate()), sum(all.rate())), "failed")
        .unit(Unit::Share)
        .default("noValue", json!("none"))
}

fn slowest_scrapes() -> Drawing {
    let says = Says {
        means: "Ninety-nine of a hundred scrapes took no longer.",
        bad: "Near Prometheus' scrape_timeout, which is 10 s unless it was set.",
        cure: "See how many samples a scrape has, and which instance is slow.",
    };
    Drawing::stat(Panel::SlowestScrapes, "Scrape, p99", says)
        .asks(metric!("poolscope_scrape_duration_seconds").quantile(0.99, &[]), "p99")
        .unit(Unit::Seconds)
        .leads_to(Panel::ScrapeTime, "Over time")
}

fn lost_spans(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The share of ended spans that reached nobody. Nothing is shown while nothing takes spans.",
        bad: "Red: most traces of some length are incomplete.",
        cure: "See whether they were dropped (the queue was full) or sent in vain.",
    };
    let lost = sum(format!(
        "{} + {}",
        metric!("poolscope_spans_dropped_total").rate(),
        metric!("poolscope_spans_failed_total").rate()
    ));
    let ended = sum(metric!("poolscope_spans_ended_total").rate());
    Drawing::stat(Panel::LostSpans, "Lost spans", says)
        .asks(format!("{lost} / ({ended} > 0)"), "lost")
        .unit(Unit::Share)
        .above(CRITICAL, &thresholds.span_loss_share)
        .leads_to(Panel::Spans, "Over time")
}

fn versions() -> Drawing {
    let says = Says {
        means: "How many versions of poolscope run.",
        bad: "More than one for longer than a release takes.",
        cure: "The table below has them, the purple marks when each came.",
    };
    let versions = format!("count by (version) ({})", metric!("poolscope_build_info"));
    Drawing::stat(Panel::Versions, "Versions", says)
        .asks(format!("count({versions})"), "versions")
        .leads_to(Panel::Builds, "Which")
}

fn scrapes() -> Drawing {
    let says = Says {
        means: "Scrapes by the status they were answered with: 200; 500 (a collector panicked, or the metrics could not be \
                encoded); 503 (too many at once); 499 (the client left first).",
        bad: "Anything but 200.",
        cure: "500: the log has the cause. 503: too many Prometheus servers scrape at once. 499: raise scrape_timeout, or see \
               why scrapes are slow.",
    };
    Drawing::lines(Panel::Scrapes, "Scrapes: by code", says)
        .asks(sum_by(&["code"], metric!("poolscope_scrapes_total").rate()), "{{code}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colours(&[("200", "blue"), ("499", "yellow"), ("500", "red"), ("503", "orange")])
}

fn scrape_time() -> Drawing {
    let says = Says {
        means: "How long scrapes take: as the exporter counts them, the wait for their turn included, and the slowest as \
                Prometheus counts it, over the network.",
        bad: "Prometheus' far above the exporter's: the network or the client is slow. Both: the page is large or the \
              machine busy.",
        cure: "See how many samples a scrape has.",
    };
    let scrape = || metric!("poolscope_scrape_duration_seconds");
    Drawing::lines(Panel::ScrapeTime, "How long scrapes take", says)
        .asks(scrape().quantile(0.5, &[]), "p50")
        .asks(scrape().quantile(0.99, &[]), "p99")
        .asks(max(of_ours(SCRAPE_DURATION)), "slowest for Prometheus")
        .unit(Unit::Seconds)
        .colours(&[("p50", "light-blue"), ("p99", "blue"), ("slowest for Prometheus", "purple")])
}

fn samples() -> Drawing {
    let says = Says {
        means: "How many samples a scrape has; the ten instances with most.",
        bad: "A line that climbs without end. (It cannot for long: operations, queries and pairs of errors are bounded.)",
        cure: "See which pool tells many operations apart, below.",
    };
    Drawing::lines(Panel::Samples, "Samples in a scrape", says).asks(most(SAMPLES), "{{instance}}")
}

fn spans() -> Drawing {
    let says = Says {
        means: "What became of spans that ended, stacked: exported (their destination took them), dropped (not sent, as the \
                queue was full), failed (sent in vain).",
        bad: "dropped: more spans come than the destination takes. failed: it is away, too slow, or refuses them.",
        cure: "dropped: raise OTEL_BSP_MAX_QUEUE_SIZE, or sample fewer traces. failed: the log says what the collector answered.",
    };
    Drawing::lines(Panel::Spans, "Spans: what became of them", says)
        .size(12, 8)
        .asks(sum_by(&["destination"], metric!("poolscope_spans_exported_total").rate()), "exported · {{destination}}")
        .asks(sum_by(&["destination"], metric!("poolscope_spans_dropped_total").rate()), "dropped · {{destination}}")
        .asks(sum_by(&["destination"], metric!("poolscope_spans_failed_total").rate()), "failed · {{destination}}")
        .unit(Unit::PerSecond)
        .stacked()
        .colours(&[
            ("exported · otlp", "blue"),
            ("exported · page", "light-blue"),
            ("dropped · otlp", "orange"),
            ("dropped · page", "light-orange"),
            ("failed · otlp", "red"),
            ("failed · page", "light-red"),
        ])
}

fn span_queue() -> Drawing {
    let says = Says {
        means: "Spans that wait to be exported or are being exported, at each scrape. The queue takes 2048, unless \
                OTEL_BSP_MAX_QUEUE_SIZE says otherwise.",
        bad: "A queue that stays full: what comes then is dropped.",
        cure: "See whether the destination is slow or away.",
    };
    Drawing::lines(Panel::SpanQueue, "Spans in the queue", says)
        .size(12, 8)
        .asks(sum_by(&["destination"], metric!("poolscope_spans_queued")), "{{destination}}")
        .colours(&[("otlp", "blue"), ("page", "light-blue")])
}

fn told_apart() -> Drawing {
    let says = Says {
        means: "How many operations each pool tells apart; the ten pools with most. The dashed line is the bound: what \
                comes beyond is counted as `other`.",
        bad: "A pool at the line: names are made from data, as of one operation for each user.",
        cure: "Name operations by what they do, and not by what they do it to.",
    };
    let operations = format!("count by ({POOL_LABEL}, instance) ({})", metric!("poolscope_checkouts_started_total"));
    Drawing::lines(Panel::ToldApart, "Operations told apart", says)
        .size(12, 8)
        .asks(format!("topk({WORST}, {operations})"), &format!("{{{{{POOL_LABEL}}}}} · {{{{instance}}}}"))
        .asks(format!("vector({MAX_OPERATIONS})"), "bound")
        .limit("bound", NEUTRAL)
}

fn wires_lost() -> Drawing {
    let says = Says {
        means: "Connections on which something passed that was not understood. They work on, but nothing more is known of \
                them: neither queries, nor in which state they come back.",
        bad: "Any: it is a fault of poolscope, or of a proxy that changes the protocol.",
        cure: "Report it, with the log's line about it. read_wire=off turns reading off.",
    };
    Drawing::lines(Panel::WiresLost, "Wires not understood", says)
        .size(12, 8)
        .at_least(1.0)
        .asks(sum_by(&[POOL_LABEL], metric!("poolscope_wires_lost_total").rate()), &format!("{{{{{POOL_LABEL}}}}}"))
        .unit(Unit::PerSecond)
}

fn cpu() -> Drawing {
    let says = Says {
        means: "Processors that the process keeps busy; the ten instances with most. It is the whole service, if the exporter is \
                in one.",
        bad: "As many as it may have: then checkouts wait for the processor, too.",
        cure: "Give it more, or see what it computes.",
    };
    let rate =
        format!("{} and on (job, instance) {}", Series::from(CPU_SECONDS).rate(), metric!("poolscope_build_info"));
    Drawing::lines(Panel::Cpu, "Processors", says).size(6, 8).asks(format!("topk({WORST}, {rate})"), "{{instance}}")
}

fn memory() -> Drawing {
    let says = Says {
        means: "Resident memory of the process; the ten instances with most.",
        bad: "A line that climbs from start to restart.",
        cure: "See whether connections or waiting checkouts climb with it.",
    };
    Drawing::lines(Panel::Memory, "Memory", says)
        .size(6, 8)
        .asks(most(RESIDENT_MEMORY), "{{instance}}")
        .unit(Unit::Bytes)
}

fn files() -> Drawing {
    let says = Says {
        means: "Open files, sockets among them; the ten instances with most. The dashed line is the lowest limit of any.",
        bad: "Near the line: neither connections to the server nor from clients can be made beyond it.",
        cure: "Raise the limit (ulimit -n, LimitNOFILE), after looking for what is not closed.",
    };
    Drawing::lines(Panel::Files, "Open files", says)
        .size(6, 8)
        .asks(most(OPEN_FILES), "{{instance}}")
        .asks(format!("min({})", of_ours(MAX_FILES)), "limit")
        .limit("limit", NEUTRAL)
}

fn threads() -> Drawing {
    let says = Says {
        means: "Threads of the process; the ten instances with most.",
        bad: "Hundreds: blocking work is done on threads of its own, one for each call.",
        cure: "See what the service does in spawn_blocking.",
    };
    Drawing::lines(Panel::Threads, "Threads", says).size(6, 8).asks(most(THREADS), "{{instance}}")
}

fn builds() -> Drawing {
    let says = Says {
        means: "Which versions of poolscope run, and on how many instances.",
        bad: "More than one for longer than a release takes.",
        cure: "Restart what was left behind.",
    };
    let names = json!({ "Value": "Instances", "job": "Job", "version": "Version" });
    let order = json!({ "job": 0, "version": 1, "Value": 2 });
    Drawing::table(Panel::Builds, "Versions", says)
        .size(24, 6)
        .asks_now(format!("count by (job, version) ({})", metric!("poolscope_build_info")), "")
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
}
