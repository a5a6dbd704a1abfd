//! Alerts on the server: availability, connection slots, churn and slow queries.

use super::growth::{increase_with_new_series, indented};
use crate::monitoring::dashboards::PanelId;
use crate::monitoring::names::{
    CHECKOUT_OUTCOMES, CLOSED, CONNECTION_ERRORS, POOL_LABEL, SERVER_SLOTS, SERVER_SLOTS_LEFT, SERVER_UP,
};
use crate::monitoring::recording::{CHECKOUTS, CONNECTED, FLEET_MAX, INSTANCE_LABELS, QUERIES, SLOW_QUERY_SHARE};
use crate::monitoring::rules::alert::{Alert, EXHAUSTION_SYMPTOMS, Scope, Severity, cloned};
use crate::monitoring::rules::contributor::Contributor;
use crate::monitoring::thresholds::Thresholds;

pub(super) fn alerts(t: &Thresholds) -> Vec<Alert> {
    vec![
        server_down(t),
        connecting_fails(t),
        checkout_errors(t),
        server_full(t),
        slots_low(t),
        slots_short(t),
        churn(t),
        slow_queries(t),
    ]
}

fn server_down(t: &Thresholds) -> Alert {
    Alert {
        name: "PoolscopeServerDown",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!("{SERVER_UP} == 0"),
        for_duration: t.for_page.clone(),
        keep_firing_for: None,
        summary: "The database server does not answer.",
        description: "its server does not answer status queries.".to_owned(),
        contributors: vec![Contributor::server_down(t)],
        condition:
            "A process that polls the server cannot reach it, finds no free slot, or gets no answer within 5 s. \
                    Requires polling by `poolscope serve`, the demo or `Pool::watch_server`."
                .to_owned(),
        thresholds: Vec::new(),
        panel: PanelId::ServersDown,
        diagnosed: None,
        related: &[&[
            "PoolscopeConnectingFails",
            "PoolscopeCheckoutErrors",
            "PoolscopeServerFull",
            "PoolscopeRetryBudgetSpent",
            "PoolscopeRetryStorm",
            "PoolscopeManyCheckouts",
            "PoolscopeCheckoutWaitHigh",
            "PoolscopeTimeoutBudgetBurnsFast",
            "PoolscopeTimeoutBudgetBurns",
            "PoolscopeWaitBudgetBurnsFast",
            "PoolscopeWaitBudgetBurns",
        ]],
    }
}

fn connecting_fails(t: &Thresholds) -> Alert {
    let now = &t.window_now;
    Alert {
        name: "PoolscopeConnectingFails",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!(
            "sum without (reason) (rate({CLOSED}{{reason=\"connect_failed\"}}[{now}])) > {}",
            t.connect_failures
        ),
        for_duration: t.for_page.clone(),
        keep_firing_for: None,
        summary: "Connecting to the database fails.",
        description: format!(
            "{{{{ $value | printf \"%.2f\" }}}} connection attempts per second failed over the last {now}."
        ),
        contributors: vec![Contributor::connect_error(t)],
        condition: format!("Over the last {now}, failed connection attempts exceeded {}.", t.connect_failures.human()),
        thresholds: cloned([&t.connect_failures, now]),
        panel: PanelId::ConnectionErrors,
        diagnosed: None,
        related: &[&[
            "PoolscopeServerDown",
            "PoolscopeServerFull",
            "PoolscopeCheckoutErrors",
            "PoolscopeRetryBudgetSpent",
            "PoolscopeRetryStorm",
            "PoolscopeWaitBudgetBurnsFast",
        ]],
    }
}

fn checkout_errors(t: &Thresholds) -> Alert {
    let now = &t.window_now;
    let ended = |matcher: &str| format!("sum without (operation, outcome) (rate({CHECKOUT_OUTCOMES}{matcher}[{now}]))");
    let (failed, all) = (ended("{outcome=\"error\"}"), ended(""));
    Alert {
        name: "PoolscopeCheckoutErrors",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!("{failed}\n/\n({all} > 0)\n> {}\nand\n{all} > {}", t.error_share, t.traffic_floor),
        for_duration: t.for_page.clone(),
        keep_firing_for: None,
        summary: "Checkouts fail because no connection can be established.",
        description: format!("{{{{ $value | humanizePercentage }}}} of the checkouts failed over the last {now}."),
        contributors: vec![Contributor::unconnected(t)],
        condition: format!(
            "Over the last {now}, more than {} of the checkouts ended with the outcome `error`, and checkouts exceeded {}.",
            t.error_share.human(),
            t.traffic_floor.human()
        ),
        thresholds: cloned([&t.error_share, &t.traffic_floor, now]),
        panel: PanelId::FailuresByOutcome,
        diagnosed: None,
        related: &[&["PoolscopeConnectingFails", "PoolscopeServerDown", "PoolscopeServerFull"]],
    }
}

fn server_full(t: &Thresholds) -> Alert {
    let window = &t.window;
    let refused = format!("{CONNECTION_ERRORS}{{phase=\"connect\",sqlstate=\"53300\"}}");
    Alert {
        name: "PoolscopeServerFull",
        severity: Severity::Critical,
        scope: Scope::Pool,
        expr: format!(
            "sum without (phase, sqlstate, error_type) (\n{}\n) > 0",
            indented(&increase_with_new_series(&refused, window))
        ),
        for_duration: t.for_page.clone(),
        keep_firing_for: None,
        summary: "The database server has no free connection slots (SQLSTATE 53300).",
        description: format!(
            "{{{{ $value | humanize }}}} connection attempts were rejected in the last {window} because the server has \
             no free slots."
        ),
        contributors: vec![Contributor::holder()],
        condition: format!(
            "In the last {window}, the server rejected a connection with SQLSTATE 53300 (too_many_connections)."
        ),
        thresholds: cloned([window]),
        panel: PanelId::ConnectionErrors,
        diagnosed: None,
        related: &[
            &[
                "PoolscopeServerSlotsLow",
                "PoolscopeConnectingFails",
                "PoolscopeCheckoutErrors",
                "PoolscopeServerDown",
                "PoolscopeServerSlotsShort",
            ],
            EXHAUSTION_SYMPTOMS,
        ],
    }
}

fn slots_low(t: &Thresholds) -> Alert {
    Alert {
        name: "PoolscopeServerSlotsLow",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{SERVER_SLOTS_LEFT}\n/\n({SERVER_SLOTS} > 0)\n< {}", t.slots_left_share),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "The database server has few free connection slots.",
        description: "{{ $value | humanizePercentage }} of its server's slots are free.".to_owned(),
        contributors: vec![Contributor::application()],
        condition: format!(
            "The server reports that less than {} of its slots are free, or of the pool's database if that has a lower \
             limit. Requires polling by `poolscope serve`, the demo or `Pool::watch_server`.",
            t.slots_left_share.human()
        ),
        thresholds: cloned([&t.slots_left_share]),
        panel: PanelId::ServerSlots,
        diagnosed: None,
        related: &[&["PoolscopeServerFull", "PoolscopeServerSlotsShort"]],
    }
}

fn slots_short(t: &Thresholds) -> Alert {
    let share = &t.server_share;
    let own = format!("max without ({INSTANCE_LABELS}) ({SERVER_SLOTS})");
    let polled =
        format!("max({SERVER_SLOTS}{{job=%[1]q,{POOL_LABEL}=%[2]q}}) or max({SERVER_SLOTS}{{{POOL_LABEL}=%[2]q}})");
    Alert {
        name: "PoolscopeServerSlotsShort",
        severity: Severity::Warning,
        scope: Scope::Fleet,
        // Of the same job, or else of any process that polls the server for a pool of that name, as `poolscope serve` does.
        expr: format!(
            "{FLEET_MAX} > {share} * {own}\n\
             or\n\
             ({FLEET_MAX} unless {own}) > on ({POOL_LABEL}) group_left () {share} * max by ({POOL_LABEL}) ({SERVER_SLOTS})\n\
             or\n\
             ({FLEET_MAX} unless on ({POOL_LABEL}) {SERVER_SLOTS}) > ({share} * ({} - {}))",
            t.server_connections, t.server_reserved
        ),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "The maxima of the pools together nearly reach or exceed the database server's slots.",
        description: format!(
            "all instances together may open {{{{ $value | humanize }}}} connections, and {{{{ with printf `{polled}` \
             $labels.job $labels.{POOL_LABEL} | query }}}}the server has {{{{ . | first | value | humanize }}}} slots.\
             {{{{ else }}}}the server is assumed to have {} slots: no process polls it.{{{{ end }}}}",
            t.server_connections.value - t.server_reserved.value
        ),
        contributors: Vec::new(),
        condition: format!(
            "The maxima of the pools of one name, over all instances of a job, together exceed {} of the server's \
             slots. Where no process polls the server, it is assumed to have {} less {} reserved: `poolscope rules \
             --server-connections` sets its `max_connections`. PoolscopeServerSlotsLow reports the slots that are \
             actually free.",
            t.server_share.human(),
            t.server_connections.human(),
            t.server_reserved.human()
        ),
        thresholds: cloned([&t.server_share, &t.server_connections, &t.server_reserved]),
        panel: PanelId::FleetSlots,
        diagnosed: None,
        related: &[&["PoolscopeServerSlotsLow", "PoolscopeServerFull"]],
    }
}

fn churn(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeConnectionChurn",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{CONNECTED}\n/\n({CHECKOUTS} > 0)\n> {}\nand\n{CONNECTED} > {}", t.churn_share, t.churn_floor),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Connections are opened and closed at a high rate: the pool keeps too few.",
        description: format!(
            "connections were opened for {{{{ $value | humanizePercentage }}}} of the checkouts over the last {window}."
        ),
        contributors: vec![Contributor::close_reason(t)],
        condition: format!(
            "Over the last {window}, more than {} connections per hundred checkouts were opened, and more than {}.",
            t.churn_share.value * 100.0,
            t.churn_floor.human()
        ),
        thresholds: cloned([&t.churn_share, &t.churn_floor, window]),
        panel: PanelId::ChurnShare,
        diagnosed: None,
        related: &[&["PoolscopeDirtyReturns", "PoolscopeCheckoutWaitHigh"]],
    }
}

fn slow_queries(t: &Thresholds) -> Alert {
    let window = &t.window;
    Alert {
        name: "PoolscopeSlowQueries",
        severity: Severity::Warning,
        scope: Scope::Pool,
        expr: format!("{SLOW_QUERY_SHARE} > {}\nand\n{QUERIES} > {}", t.slow_query_share, t.query_floor),
        for_duration: t.for_ticket.clone(),
        keep_firing_for: None,
        summary: "Many queries are slow.",
        description: format!(
            "{{{{ $value | humanizePercentage }}}} of the queries in the last {window} took longer than {}.",
            t.slow_query_seconds.human()
        ),
        contributors: vec![Contributor::slow_query(t), Contributor::executor(t)],
        condition: format!(
            "More than {} of the queries that ended in the last {window} took longer than {}, and queries exceeded {}.",
            t.slow_query_share.human(),
            t.slow_query_seconds.human(),
            t.query_floor.human()
        ),
        thresholds: cloned([&t.slow_query_share, &t.slow_query_seconds, &t.query_floor, window]),
        panel: PanelId::QueryTime,
        diagnosed: None,
        related: &[&["PoolscopePoolExhausted"], EXHAUSTION_SYMPTOMS],
    }
}
