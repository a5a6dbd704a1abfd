//! The table of cases: what a pool suffers from, and the verdict that is expected.

use crate::load::{Load, Pace, Work};

/// What a case shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// One fault.
    Fault,
    /// Two faults at once, of which one explains the other or weighs more.
    Mixture,
    /// A workload that looks ill and is not.
    Healthy,
}

/// What happens to the server or the process when the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing beside the loads.
    None,
    /// The server stops.
    Stop,
    /// A proxy in front of the server refuses and cuts connections.
    Unreachable,
    /// Another client takes the server's free slots as soon as they are free.
    Fill,
    /// The server takes this many seconds for each new connection.
    SlowConnect { seconds: u32 },
    /// Another client locks the row that `Work::UpdateRow` updates.
    Lock,
    /// All connections are cut once.
    Cut,
    /// The server restarts.
    Restart,
    /// The process runs for `run` and is stopped for `stop`, in turn, as under a CPU limit. In milliseconds.
    Throttle { run: u64, stop: u64 },
    /// The process is stopped once, for this many seconds.
    Suspend { seconds: u64 },
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) group: Group,
    /// The cause to diagnose; `healthy` if there is none.
    pub(crate) cause: &'static str,
    pub(crate) operation: Option<&'static str>,
    /// `pool_size` and `max_overflow`.
    pub(crate) pool: (usize, usize),
    /// Other settings, as in a URL.
    pub(crate) settings: &'static [(&'static str, &'static str)],
    pub(crate) loads: Vec<Load>,
    pub(crate) fault: Fault,
    /// The time before the fault, in seconds.
    pub(crate) before: u64,
    /// The duration of the fault, in seconds.
    pub(crate) lasts: u64,
}

/// What is specific to a case, for a pool of `max` connections.
struct Plan {
    loads: Vec<Load>,
    fault: Fault,
    settings: &'static [(&'static str, &'static str)],
}

impl Plan {
    fn new(loads: Vec<Load>) -> Self {
        Self { loads, fault: Fault::None, settings: &[] }
    }

    fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    fn settings(mut self, settings: &'static [(&'static str, &'static str)]) -> Self {
        self.settings = settings;
        self
    }
}

/// A row: the cause, the operation responsible, and the plan by size of the pool and intensity.
type Row = (&'static str, Option<&'static str>, fn(max: usize, level: usize) -> Plan);

/// The pools: their name, `pool_size` and `max_overflow`.
const POOLS: [(&str, (usize, usize)); 2] = [("small", (5, 1)), ("large", (16, 5))];

/// Returns a pause with which the load, in checkouts per second, is about the same for both pools.
fn pause(max: usize, ms: u64) -> Pace {
    Pace::Pause(ms * max as u64 / 6)
}

/// The normal load: a tenth of the pool or less.
fn normal(max: usize) -> Vec<Load> {
    let tasks = max.div_ceil(2);
    vec![
        Load::new("browse", tasks, pause(max, 90), Work::Query { ms: 12, in_fault: 12 }),
        Load::new("add_to_cart", tasks.div_ceil(2), pause(max, 150), Work::Transaction { ms: 4 }),
    ]
}

fn with(max: usize, loads: impl IntoIterator<Item = Load>) -> Vec<Load> {
    let mut all = normal(max);
    all.extend(loads);
    all
}

fn fault(operation: &'static str, tasks: usize, pace: Pace, work: Work) -> Load {
    Load { from_fault: true, ..Load::new(operation, tasks, pace, work) }
}

fn query(ms: u64) -> Work {
    Work::Query { ms, in_fault: ms }
}

const SHORT_LEAK: &[(&str, &str)] = &[("leak_threshold", "6s")];

const FAULTS: &[Row] = &[
    ("undersized", Some("rush"), |max, level| {
        Plan::new(with(max, [fault("rush", max * [4, 6, 14][level], Pace::Pause(1), query(120))]))
    }),
    ("slow_queries", Some("report"), |max, level| {
        let ms = [270, 650, 1700][level];
        Plan::new(with(max, [Load::new("report", max * 3, Pace::Pause(400), Work::Query { ms: 18, in_fault: ms })]))
    }),
    ("held_idle", Some("export"), |max, level| {
        let work = Work::HoldIdle { ms: [140, 450, 1600][level] };
        Plan::new(with(max, [fault("export", max * [4, 4, 3][level], Pace::Pause(1), work)]))
    }),
    ("idle_in_transaction", Some("pay"), |max, level| {
        let work = Work::Transaction { ms: [140, 450, 1600][level] };
        Plan::new(with(max, [fault("pay", max * [4, 4, 3][level], Pace::Pause(1), work)]))
    }),
    ("leak", Some("count_stock"), |max, level| {
        let leaks = [1, max / 2, max][level];
        Plan::new(with(max, [fault("count_stock", 1, Pace::Pause(150), Work::Leak { times: leaks })]))
            .settings(SHORT_LEAK)
    }),
    ("self_deadlock", Some("place_order"), |max, level| {
        let tasks = [max, max * 2, max * 4][level];
        Plan::new(with(max, [fault("place_order", tasks, Pace::Pause(5), Work::Nested)]))
    }),
    // Another client's session blocks the small pool, and an operation of its own the large one.
    ("lock_wait", None, |max, level| {
        let tasks = [max / 2, max, max * 3][level];
        let mut loads = with(max, [fault("update_stock", tasks, Pace::Pause(30), Work::UpdateRow)]);
        let own = max > 10;
        if own {
            loads.push(fault("import", 1, Pace::Pause(20), Work::HoldRow { ms: [9_000, 21_000, 60_000][level] }));
        }
        Plan::new(loads).fault(if own { Fault::None } else { Fault::Lock })
    }),
    ("server_down", None, |max, level| {
        let load = Load::new("checkout", [1, max / 2, max * 2][level], pause(max, 120), query(7));
        Plan::new(with(max, [load])).fault(if max > 10 { Fault::Unreachable } else { Fault::Stop })
    }),
    ("server_full", None, |max, level| {
        let load = fault("checkout", max * [1, 2, 5][level], Pace::Pause(20), query(160));
        Plan::new(with(max, [load])).fault(Fault::Fill)
    }),
    ("connect_slow", None, |max, level| {
        let load = Load::new("checkout", max, pause(max, 100), query(9));
        Plan::new(with(max, [load]))
            .fault(Fault::SlowConnect { seconds: [1, 2, 3][level] })
            .settings(&[("recycle_after", "5s")])
    }),
    ("churn", None, |max, level| {
        let work = Work::Discard { percent: [35, 60, 100][level] };
        Plan::new(with(max, [fault("fetch", max.div_ceil(2), pause(max, 110), work)]))
    }),
    ("retry_storm", Some("reserve"), |max, level| {
        let work = Work::Conflict { percent: [25, 50, 90][level] };
        Plan::new(with(max, [fault("reserve", max.div_ceil(2), pause(max, 60), work)]))
    }),
    ("runtime_stalled", None, |max, level| {
        let load = Load::new("checkout", max, pause(max, 90), query(9));
        if max > 10 {
            let (run, stop) = [(150, 600), (120, 1100), (300, 2400), (200, 450), (100, 900)][level];
            return Plan::new(with(max, [load])).fault(Fault::Throttle { run, stop });
        }
        let blocking = fault(
            "thumbnail",
            [3, 4, 6, 3, 4][level],
            Pace::Pause(10),
            Work::Block { ms: [350, 700, 1600, 280, 400][level] },
        );
        Plan::new(with(max, [load, blocking]))
    }),
    ("burst", Some("flash_sale"), |max, level| {
        let pace = Pace::Every([11_000, 8_000, 5_000][level]);
        Plan::new(with(max, [fault("flash_sale", max * [12, 16, 12][level], pace, query(90))]))
    }),
];

const MIXTURES: &[Row] = &[
    // The queries are slow, and callers retry what fails.
    ("slow_queries", Some("report"), |max, _| {
        Plan::new(with(
            max,
            [
                Load::new("report", max * 3, Pace::Pause(300), Work::Query { ms: 25, in_fault: 900 }),
                fault("reserve", 2, Pace::Pause(60), Work::Conflict { percent: 40 }),
            ],
        ))
    }),
    ("held_idle", Some("export"), |max, _| {
        Plan::new(with(
            max,
            [
                fault("export", max * 3, Pace::Pause(1), Work::HoldIdle { ms: 700 }),
                fault("rush", max, Pace::Pause(1), query(50)),
            ],
        ))
    }),
    ("leak", Some("count_stock"), |max, _| {
        Plan::new(with(
            max,
            [
                fault("count_stock", 1, Pace::Pause(100), Work::Leak { times: max / 2 }),
                fault("rush", max * 4, Pace::Pause(1), query(120)),
            ],
        ))
        .settings(SHORT_LEAK)
    }),
    ("lock_wait", Some("update_stock"), |max, _| {
        Plan::new(with(
            max,
            [
                fault("update_stock", max, Pace::Pause(30), Work::UpdateRow),
                fault("report", max, Pace::Pause(100), query(600)),
            ],
        ))
        .fault(Fault::Lock)
    }),
    ("server_down", None, |max, _| {
        Plan::new(with(max, [fault("export", max * 2, Pace::Pause(1), Work::HoldIdle { ms: 900 })])).fault(Fault::Stop)
    }),
    ("self_deadlock", Some("place_order"), |max, _| {
        Plan::new(with(
            max,
            [
                fault("place_order", max * 2, Pace::Pause(5), Work::Nested),
                fault("fetch", 2, Pace::Pause(90), Work::Discard { percent: 100 }),
            ],
        ))
    }),
    ("runtime_stalled", None, |max, _| {
        Plan::new(with(
            max,
            [
                fault("thumbnail", 4, Pace::Pause(10), Work::Block { ms: 800 }),
                fault("rush", max * 4, Pace::Pause(1), query(120)),
            ],
        ))
    }),
    ("idle_in_transaction", Some("pay"), |max, _| {
        Plan::new(with(
            max,
            [
                fault("pay", max * 3, Pace::Pause(1), Work::Transaction { ms: 600 }),
                fault("rush", max, Pace::Pause(1), query(60)),
            ],
        ))
    }),
    ("connect_slow", None, |max, _| {
        let load = Load::new("checkout", max, pause(max, 100), query(9));
        Plan::new(with(max, [load, fault("fetch", 2, Pace::Pause(90), Work::Discard { percent: 60 })]))
            .fault(Fault::SlowConnect { seconds: 2 })
    }),
    ("server_full", None, |max, _| {
        let churn = fault("fetch", 2, Pace::Pause(90), Work::Discard { percent: 100 });
        Plan::new(with(max, [fault("checkout", max * 2, Pace::Pause(20), query(160)), churn])).fault(Fault::Fill)
    }),
];

/// A healthy workload: its name, its duration in seconds, and its plan by size of the pool.
type HealthyRow = (&'static str, u64, fn(max: usize) -> Plan);

const HEALTHY: &[HealthyRow] = &[
    // 95 % use and short waits.
    ("busy", 120, |max| Plan::new(vec![Load::new("browse", max + max.div_ceil(6), Pace::Pause(6), query(45))])),
    // Every task needs a connection at once.
    ("start_up", 40, |max| Plan::new(with(max, [Load::new("checkout", max * 3, pause(max, 400), query(7))]))),
    // All connections are closed at once, as by a proxy that is replaced.
    ("deploy", 60, |max| {
        Plan::new(with(max, [Load::new("checkout", max, pause(max, 90), query(7))])).fault(Fault::Cut)
    }),
    // A restart of the server takes about a second.
    ("restart", 60, |max| {
        Plan::new(with(max, [Load::new("checkout", max.div_ceil(2), pause(max, 90), query(7))])).fault(Fault::Restart)
    }),
    // Ten minutes compressed to two.
    ("nightly_report", 120, |max| Plan::new(with(max, [fault("report", 1, Pace::Pause(200), query(4_500))]))),
    ("one_burst", 60, |max| Plan::new(with(max, [fault("flash_sale", max * 9, Pace::Every(1_000_000), query(100))]))),
    ("one_slow_query", 60, |max| Plan::new(with(max, [fault("report", 1, Pace::Every(1_000_000), query(40_000))]))),
    ("at_rest", 120, |_| Plan::new(Vec::new())),
    ("suspended_shortly", 60, |max| Plan::new(normal(max)).fault(Fault::Suspend { seconds: 4 })),
    ("suspended", 60, |max| Plan::new(normal(max)).fault(Fault::Suspend { seconds: 25 })),
    ("short_transactions", 60, |max| {
        Plan::new(with(max, [fault("pay", max, pause(max, 50), Work::Transaction { ms: 25 })]))
    }),
    ("some_retries", 60, |max| {
        Plan::new(with(max, [fault("reserve", 2, Pace::Pause(100), Work::Conflict { percent: 4 })]))
    }),
];

/// Returns all cases.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (pool_name, pool) in POOLS {
        let max = pool.0 + pool.1;
        let mut add = |name: String, group, (cause, operation), plan: Plan, (before, lasts)| {
            let Plan { loads, fault, settings } = plan;
            cases.push(Case { name, group, cause, operation, pool, settings, loads, fault, before, lasts });
        };
        for (cause, operation, plan) in FAULTS {
            // Stalls of a runtime differ most.
            for level in 0..if *cause == "runtime_stalled" { 5 } else { 3 } {
                let operation = match *cause {
                    "lock_wait" => Some(if max > 10 { "import" } else { "update_stock" }),
                    _ => *operation,
                };
                let name = format!("{cause}-{pool_name}-{}", level + 1);
                add(name, Group::Fault, (*cause, operation), plan(max, level), (20, 42));
            }
        }
        for (index, (cause, operation, plan)) in MIXTURES.iter().enumerate() {
            let name = format!("mixture_{}_{cause}-{pool_name}", index + 1);
            add(name, Group::Mixture, (*cause, *operation), plan(max, 0), (20, 42));
        }
        for (name, lasts, plan) in HEALTHY {
            add(format!("healthy_{name}-{pool_name}"), Group::Healthy, ("healthy", None), plan(max), (8, *lasts));
        }
    }
    cases
}

/// Returns whether the case is kept out of the tuning of rules: a third, by a hash (FNV-1a) of its name.
pub(crate) fn is_held_out(name: &str) -> bool {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash % 3 == 0
}

#[test]
fn names_are_unique_and_a_third_is_held_out() {
    let mut names: Vec<_> = all().into_iter().map(|case| case.name).collect();
    let count = names.len();
    let held_out = names.iter().filter(|name| is_held_out(name)).count();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!((count / 4..count * 2 / 5).contains(&held_out), "{held_out} of {count}");
}
