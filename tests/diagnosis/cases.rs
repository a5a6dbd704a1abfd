//! The table of cases: what a pool suffers from, and the verdict that is expected.

use std::ops::Range;

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
    /// The clocks of the process and of the server, but not their monotonic clocks, jump by this many seconds.
    ClockJump { seconds: i64 },
}

/// What the recording of a case is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Rules may be changed because of it.
    Tuning,
    /// Kept out of that. Its pools and numbers differ.
    HeldOut,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) group: Group,
    pub(crate) part: Part,
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

/// The pools of a part: their name, `pool_size` and `max_overflow`. One has up to 10 connections, the other one more.
const fn pools(part: Part) -> [(&'static str, (usize, usize)); 2] {
    match part {
        Part::Tuning => [("small", (5, 1)), ("large", (16, 5))],
        Part::HeldOut => [("narrow", (7, 2)), ("wide", (24, 4))],
    }
}

/// Returns the intensities of a part, which index the arrays of numbers below.
fn levels(part: Part, cause: &str) -> Range<usize> {
    match (part, cause) {
        // Stalls of a runtime differ most.
        (Part::Tuning, "runtime_stalled") => 0..5,
        (Part::HeldOut, "runtime_stalled") => 5..7,
        (Part::Tuning, _) => 0..3,
        (Part::HeldOut, _) => 3..5,
    }
}

/// Returns a pause with which the load, in checkouts per second, is about the same for all pools.
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
        let (tasks, ms) = [(4, 120), (6, 120), (14, 120), (5, 85), (9, 200)][level];
        Plan::new(with(max, [fault("rush", max * tasks, Pace::Pause(1), query(ms))]))
    }),
    ("slow_queries", Some("report"), |max, level| {
        let ms = [270, 650, 1700, 400, 1100][level];
        Plan::new(with(max, [Load::new("report", max * 3, Pace::Pause(400), Work::Query { ms: 18, in_fault: ms })]))
    }),
    ("held_idle", Some("export"), |max, level| {
        let (tasks, ms) = [(4, 140), (4, 450), (3, 1600), (5, 220), (3, 900)][level];
        Plan::new(with(max, [fault("export", max * tasks, Pace::Pause(1), Work::HoldIdle { ms })]))
    }),
    ("idle_in_transaction", Some("pay"), |max, level| {
        let (tasks, ms) = [(4, 140), (4, 450), (3, 1600), (5, 260), (3, 1100)][level];
        Plan::new(with(max, [fault("pay", max * tasks, Pace::Pause(1), Work::Transaction { ms })]))
    }),
    ("leak", Some("count_stock"), |max, level| {
        let times = [1, max / 2, max, 2, max * 3 / 4][level];
        Plan::new(with(max, [fault("count_stock", 1, Pace::Pause(150), Work::Leak { times })])).settings(SHORT_LEAK)
    }),
    ("self_deadlock", Some("place_order"), |max, level| {
        let tasks = [max, max * 2, max * 4, max * 3 / 2, max * 3][level];
        Plan::new(with(max, [fault("place_order", tasks, Pace::Pause(5), Work::Nested)]))
    }),
    // Another client's session blocks the smaller pool, and an operation of its own the larger one.
    ("lock_wait", None, |max, level| {
        let tasks = [max / 2, max, max * 3, max * 2 / 3, max * 2][level];
        let mut loads = with(max, [fault("update_stock", tasks, Pace::Pause(30), Work::UpdateRow)]);
        let own = max > 10;
        if own {
            let ms = [9_000, 21_000, 60_000, 14_000, 40_000][level];
            loads.push(fault("import", 1, Pace::Pause(20), Work::HoldRow { ms }));
        }
        Plan::new(loads).fault(if own { Fault::None } else { Fault::Lock })
    }),
    ("server_down", None, |max, level| {
        let tasks = [1, max / 2, max * 2, max / 4, max][level];
        let load = Load::new("checkout", tasks, pause(max, 120), query(7));
        Plan::new(with(max, [load])).fault(if max > 10 { Fault::Unreachable } else { Fault::Stop })
    }),
    ("server_full", None, |max, level| {
        let (tasks, ms) = [(1, 160), (2, 160), (5, 160), (3, 110), (4, 250)][level];
        let load = fault("checkout", max * tasks, Pace::Pause(20), query(ms));
        Plan::new(with(max, [load])).fault(Fault::Fill)
    }),
    ("connect_slow", None, |max, level| {
        let load = Load::new("checkout", max, pause(max, [100, 100, 100, 70, 130][level]), query(9));
        Plan::new(with(max, [load]))
            .fault(Fault::SlowConnect { seconds: [1, 2, 3, 2, 4][level] })
            .settings(if level == 4 { &[("recycle_after", "7s")] } else { &[("recycle_after", "5s")] })
    }),
    ("churn", None, |max, level| {
        let work = Work::Discard { percent: [35, 60, 100, 45, 80][level] };
        Plan::new(with(max, [fault("fetch", max.div_ceil(2), pause(max, 110), work)]))
    }),
    ("retry_storm", Some("reserve"), |max, level| {
        let work = Work::Conflict { percent: [25, 50, 90, 35, 70][level] };
        Plan::new(with(max, [fault("reserve", max.div_ceil(2), pause(max, 60), work)]))
    }),
    ("runtime_stalled", None, |max, level| {
        let load = Load::new("checkout", max, pause(max, 90), query(9));
        if max > 10 {
            let (run, stop) =
                [(150, 600), (120, 1100), (300, 2400), (200, 450), (100, 900), (250, 800), (140, 1500)][level];
            return Plan::new(with(max, [load])).fault(Fault::Throttle { run, stop });
        }
        let (tasks, ms) = [(3, 350), (4, 700), (6, 1600), (3, 280), (4, 400), (4, 500), (5, 1000)][level];
        Plan::new(with(max, [load, fault("thumbnail", tasks, Pace::Pause(10), Work::Block { ms })]))
    }),
    ("burst", Some("flash_sale"), |max, level| {
        let (tasks, period, ms) =
            [(12, 11_000, 90), (16, 8_000, 90), (12, 5_000, 90), (14, 9_500, 110), (11, 6_500, 75)][level];
        Plan::new(with(max, [fault("flash_sale", max * tasks, Pace::Every(period), query(ms))]))
    }),
];

/// The level is 0 for tuning, and 1 otherwise.
const MIXTURES: &[Row] = &[
    // The queries are slow, and callers retry what fails.
    ("slow_queries", Some("report"), |max, level| {
        let report = Work::Query { ms: 25, in_fault: [900, 600][level] };
        Plan::new(with(
            max,
            [
                Load::new("report", max * 3, Pace::Pause(300), report),
                fault("reserve", 2, Pace::Pause(60), Work::Conflict { percent: [40, 30][level] }),
            ],
        ))
    }),
    ("held_idle", Some("export"), |max, level| {
        Plan::new(with(
            max,
            [
                fault("export", max * 3, Pace::Pause(1), Work::HoldIdle { ms: [700, 1000][level] }),
                fault("rush", max, Pace::Pause(1), query([50, 80][level])),
            ],
        ))
    }),
    ("leak", Some("count_stock"), |max, level| {
        Plan::new(with(
            max,
            [
                fault("count_stock", 1, Pace::Pause(100), Work::Leak { times: max / [2, 3][level] }),
                fault("rush", max * 4, Pace::Pause(1), query([120, 90][level])),
            ],
        ))
        .settings(SHORT_LEAK)
    }),
    ("lock_wait", Some("update_stock"), |max, level| {
        Plan::new(with(
            max,
            [
                fault("update_stock", max * [1, 2][level], Pace::Pause(30), Work::UpdateRow),
                fault("report", max, Pace::Pause(100), query([600, 400][level])),
            ],
        ))
        .fault(Fault::Lock)
    }),
    ("server_down", None, |max, level| {
        let work = Work::HoldIdle { ms: [900, 500][level] };
        Plan::new(with(max, [fault("export", max * 2, Pace::Pause(1), work)])).fault(Fault::Stop)
    }),
    ("self_deadlock", Some("place_order"), |max, level| {
        Plan::new(with(
            max,
            [
                fault("place_order", max * [2, 3][level], Pace::Pause(5), Work::Nested),
                fault("fetch", 2, Pace::Pause(90), Work::Discard { percent: [100, 70][level] }),
            ],
        ))
    }),
    ("runtime_stalled", None, |max, level| {
        Plan::new(with(
            max,
            [
                fault("thumbnail", [4, 5][level], Pace::Pause(10), Work::Block { ms: [800, 600][level] }),
                fault("rush", max * [4, 3][level], Pace::Pause(1), query(120)),
            ],
        ))
    }),
    ("idle_in_transaction", Some("pay"), |max, level| {
        Plan::new(with(
            max,
            [
                fault("pay", max * 3, Pace::Pause(1), Work::Transaction { ms: [600, 900][level] }),
                fault("rush", max, Pace::Pause(1), query([60, 40][level])),
            ],
        ))
    }),
    ("connect_slow", None, |max, level| {
        let load = Load::new("checkout", max, pause(max, 100), query(9));
        let discard = Work::Discard { percent: [60, 80][level] };
        Plan::new(with(max, [load, fault("fetch", 2, Pace::Pause(90), discard)]))
            .fault(Fault::SlowConnect { seconds: [2, 3][level] })
    }),
    ("server_full", None, |max, level| {
        let churn = fault("fetch", 2, Pace::Pause(90), Work::Discard { percent: [100, 70][level] });
        let load = fault("checkout", max * 2, Pace::Pause(20), query([160, 120][level]));
        Plan::new(with(max, [load, churn])).fault(Fault::Fill)
    }),
];

/// A healthy workload: its name, its duration in seconds, and its plan by size of the pool. Numbers of tuning come first,
/// then those that are held out.
type HealthyRow = (&'static str, [u64; 2], fn(max: usize, level: usize) -> Plan);

const HEALTHY: &[HealthyRow] = &[
    // 95 % use and short waits.
    ("busy", [120, 100], |max, level| {
        let (tasks, pause, ms) = [(max + max.div_ceil(6), 6, 45), (max + max.div_ceil(10), 10, 70)][level];
        Plan::new(vec![Load::new("browse", tasks, Pace::Pause(pause), query(ms))])
    }),
    // Every task needs a connection at once.
    ("start_up", [40, 40], |max, level| {
        Plan::new(with(max, [Load::new("checkout", max * [3, 4][level], pause(max, 400), query(7))]))
    }),
    // All connections are closed at once, as by a proxy that is replaced.
    ("deploy", [60, 60], |max, level| {
        Plan::new(with(max, [Load::new("checkout", max, pause(max, [90, 70][level]), query(7))])).fault(Fault::Cut)
    }),
    // A restart of the server takes about a second.
    ("restart", [60, 60], |max, level| {
        let tasks = [max.div_ceil(2), max][level];
        Plan::new(with(max, [Load::new("checkout", tasks, pause(max, 90), query(7))])).fault(Fault::Restart)
    }),
    // Ten minutes compressed to two.
    ("nightly_report", [120, 100], |max, level| {
        Plan::new(with(max, [fault("report", 1, Pace::Pause(200), query([4_500, 6_500][level]))]))
    }),
    ("one_burst", [60, 60], |max, level| {
        let (tasks, ms) = [(9, 100), (11, 80)][level];
        Plan::new(with(max, [fault("flash_sale", max * tasks, Pace::Every(1_000_000), query(ms))]))
    }),
    ("one_slow_query", [60, 60], |max, level| {
        Plan::new(with(max, [fault("report", 1, Pace::Every(1_000_000), query([40_000, 30_000][level]))]))
    }),
    ("at_rest", [120, 90], |_, _| Plan::new(Vec::new())),
    ("suspended_shortly", [60, 60], |max, level| {
        Plan::new(normal(max)).fault(Fault::Suspend { seconds: [4, 3][level] })
    }),
    ("suspended", [60, 60], |max, level| Plan::new(normal(max)).fault(Fault::Suspend { seconds: [25, 40][level] })),
    ("short_transactions", [60, 60], |max, level| {
        let (pace, ms) = [(50, 25), (80, 40)][level];
        Plan::new(with(max, [fault("pay", max, pause(max, pace), Work::Transaction { ms })]))
    }),
    ("some_retries", [60, 60], |max, level| {
        Plan::new(with(max, [fault("reserve", 2, Pace::Pause(100), Work::Conflict { percent: [4, 3][level] })]))
    }),
    // Transactions are open when the clock jumps.
    ("clock_jump", [60, 60], |max, level| {
        let pay = Load::new("pay", max.div_ceil(3), pause(max, 40), Work::Transaction { ms: 30 });
        Plan::new(with(max, [pay])).fault(Fault::ClockJump { seconds: [3_600, -7_200][level] })
    }),
];

/// Returns all cases.
pub(crate) fn all() -> Vec<Case> {
    let parts = [Part::Tuning, Part::HeldOut];
    parts.into_iter().flat_map(|part| pools(part).into_iter().flat_map(move |pool| of_pool(part, pool))).collect()
}

fn of_pool(part: Part, (pool_name, pool): (&str, (usize, usize))) -> Vec<Case> {
    let mut cases = Vec::new();
    let max = pool.0 + pool.1;
    let variant = usize::from(part == Part::HeldOut);
    let mut add = |name: String, group, (cause, operation), plan: Plan, (before, lasts)| {
        let Plan { loads, fault, settings } = plan;
        cases.push(Case { name, group, part, cause, operation, pool, settings, loads, fault, before, lasts });
    };
    for (cause, operation, plan) in FAULTS {
        for (index, level) in levels(part, cause).enumerate() {
            let operation = match *cause {
                "lock_wait" => Some(if max > 10 { "import" } else { "update_stock" }),
                _ => *operation,
            };
            let name = format!("{cause}-{pool_name}-{}", index + 1);
            add(name, Group::Fault, (*cause, operation), plan(max, level), (20, 42));
        }
    }
    for (index, (cause, operation, plan)) in MIXTURES.iter().enumerate() {
        let name = format!("mixture_{}_{cause}-{pool_name}", index + 1);
        add(name, Group::Mixture, (*cause, *operation), plan(max, variant), (20, 42));
    }
    for (name, lasts, plan) in HEALTHY {
        let name = format!("healthy_{name}-{pool_name}");
        add(name, Group::Healthy, ("healthy", None), plan(max, variant), (8, lasts[variant]));
    }
    cases
}

#[test]
fn names_are_unique_and_a_third_is_held_out() {
    let cases = all();
    let held_out = cases.iter().filter(|case| case.part == Part::HeldOut).count();
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len());
    assert!(held_out * 3 >= cases.len(), "{held_out} of {}", cases.len());
}
