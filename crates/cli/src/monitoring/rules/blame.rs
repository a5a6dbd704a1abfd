//! Who is to blame, as asked of Prometheus when a description is written.

use super::recording::{HELD_BY_OPERATION, WAITING_BY_OPERATION, bucket};
use crate::monitoring::names::{
    CHECKOUT_PHASE_SECONDS, CLOSED, CONNECTION_ERRORS, DIRTY_RETURNS, POOL_LABEL, QUERY_TIME, REQUEST_TIME,
    REQUEST_WARNINGS, RETRIES, RETRY_EXHAUSTED, SERVER_BACKENDS, USE_SECONDS,
};
use crate::monitoring::thresholds::Thresholds;

/// Stands in a query for the matchers that select the pool of the alert.
const OF_POOL: &str = "$pool";

/// Stands in a sentence for the name that is found.
const NAME: &str = "$name";

/// Stands in a sentence for what is measured of it, with two decimals: `humanize` makes 400m of 0.4.
const VALUE: &str = "$value";

/// Stands in a sentence for how many there are of it.
const COUNT: &str = "$count";

/// A question, and the sentence that is made of its answer; there is none if nobody is found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Blame {
    query: String,
    label: &'static str,
    says: &'static str,
}

impl Blame {
    /// Who holds most connections.
    pub(super) fn holder() -> Self {
        Self {
            query: format!("{HELD_BY_OPERATION}{{{OF_POOL}}}"),
            label: "operation",
            says: "Most is held by $name: $value connections on average.",
        }
    }

    /// Who waits most.
    pub(super) fn waiter() -> Self {
        Self {
            query: format!("{WAITING_BY_OPERATION}{{{OF_POOL}}}"),
            label: "operation",
            says: "Most of the waiting is done by $name: $value checkouts on average.",
        }
    }

    /// What checkouts wait for.
    pub(super) fn phase(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CHECKOUT_PHASE_SECONDS}{{{OF_POOL}}}[{}])", t.window),
            label: "phase",
            says: "Most of the time went to $name: $value checkouts were at it on average.",
        }
    }

    /// Who holds most connections without having them do anything, of the activities that `matcher` selects.
    pub(super) fn idler(t: &Thresholds, matcher: &str) -> Self {
        Self {
            query: format!("sum without (activity) (rate({USE_SECONDS}{{{matcher},{OF_POOL}}}[{}]))", t.window),
            label: "operation",
            says: "Most is held so by $name: $value connections on average.",
        }
    }

    /// Who has most connections execute.
    pub(super) fn executor(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({USE_SECONDS}{{activity=\"executing\",{OF_POOL}}}[{}])", t.window),
            label: "operation",
            says: "Most of the executing is done for $name: $value connections on average.",
        }
    }

    /// Which queries are slow most often.
    pub(super) fn slow_query(t: &Thresholds) -> Self {
        let (window, bucket) = (&t.window, bucket(&t.slow_query_seconds));
        Self {
            query: format!(
                "sum without (error_type) (rate({QUERY_TIME}_count{{{OF_POOL}}}[{window}])) - \
                 sum without (error_type, le) (rate({QUERY_TIME}_bucket{{{bucket},{OF_POOL}}}[{window}]))"
            ),
            label: "db_query_summary",
            says: "Most of them are `$name`: $value a second.",
        }
    }

    /// Who returns most dirty connections.
    pub(super) fn dirty(t: &Thresholds) -> Self {
        Self {
            query: format!("sum without (kind) (rate({DIRTY_RETURNS}{{{OF_POOL}}}[{}]))", t.window),
            label: "operation",
            says: "Most of them were left so by $name: $value a second.",
        }
    }

    /// Why most connections are closed.
    pub(super) fn close_reason(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CLOSED}{{{OF_POOL}}}[{}])", t.window),
            label: "reason",
            says: "Most are closed for the reason $name: $value a second.",
        }
    }

    /// What connecting fails with.
    pub(super) fn connect_error(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CONNECTION_ERRORS}{{phase=\"connect\",{OF_POOL}}}[{}])", t.window_now),
            label: "sqlstate",
            says: "Most of them ended with $name: $value a second.",
        }
    }

    /// With what the pool's attempts to connect fail, while its server does not answer.
    pub(super) fn unanswered(t: &Thresholds) -> Self {
        Self {
            says: "Of the pool's own attempts to connect most end with $name: $value a second.",
            ..Self::connect_error(t)
        }
    }

    /// Which application has most of the server's backends.
    pub(super) fn application() -> Self {
        Self {
            query: format!("sum without (state) ({SERVER_BACKENDS}{{{OF_POOL}}})"),
            label: "application_name",
            says: "Most are taken by $name: $count backends.",
        }
    }

    /// Who retries most.
    pub(super) fn retried(t: &Thresholds) -> Self {
        Self {
            query: format!("sum without (sqlstate) (rate({RETRIES}{{{OF_POOL}}}[{}]))", t.window),
            label: "operation",
            says: "Most of them are made for $name: $value a second.",
        }
    }

    /// What is retried for most.
    pub(super) fn retried_for(t: &Thresholds) -> Self {
        Self {
            query: format!("sum without (operation) (rate({RETRIES}{{{OF_POOL}}}[{}]))", t.window),
            label: "sqlstate",
            says: "What failed before was mostly $name: $value a second.",
        }
    }

    /// Whose retries are refused.
    pub(super) fn refused_retry(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (sqlstate) (rate({RETRY_EXHAUSTED}{{reason=\"budget\",{OF_POOL}}}[{}]))",
                t.window
            ),
            label: "operation",
            says: "Most of them are operations of $name: $value a second.",
        }
    }

    /// Whose requests are refused.
    pub(super) fn shed(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (method, outcome) (rate({REQUEST_TIME}_count{{outcome=\"shed\",{OF_POOL}}}[{}]))",
                t.window
            ),
            label: "route",
            says: "Most of them were for $name: $value a second.",
        }
    }

    /// Whose requests make many checkouts.
    pub(super) fn many_checkouts(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (method, kind) (rate({REQUEST_WARNINGS}{{kind=\"many_checkouts\",{OF_POOL}}}[{}]))",
                t.window
            ),
            label: "route",
            says: "Most such requests were for $name: $value a second.",
        }
    }

    /// The question for the pool that these matchers select, worst first.
    #[must_use]
    pub fn query(&self, matchers: &str) -> String {
        format!("sort_desc(({}) > 0)", self.query.replace(OF_POOL, matchers))
    }

    /// The label that its answer is read from.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }

    /// The sentence as a template, which is empty if nobody is found.
    pub(super) fn template(&self) -> String {
        let query = self.query(&format!("job=%[1]q,instance=%[2]q,{POOL_LABEL}=%[3]q"));
        let sentence = self
            .says
            .replace(NAME, &format!("{{{{ . | first | label \"{}\" }}}}", self.label))
            .replace(VALUE, "{{ . | first | value | printf \"%.2f\" }}")
            .replace(COUNT, "{{ . | first | value | printf \"%.0f\" }}");
        format!(
            "{{{{ with printf `{query}` $labels.job $labels.instance $labels.{POOL_LABEL} | query }}}} {sentence}{{{{ end }}}}"
        )
    }
}
