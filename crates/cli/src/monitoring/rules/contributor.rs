//! The top contributor to an alert, such as the operation that holds most connections.

use super::alerts::growth::increase_with_new_series;
use crate::monitoring::names::{
    CACHE_LOOKUPS, CHECKOUT_PHASE_SECONDS, CLOSED, CONNECTION_ERRORS, DIRTY_RETURNS, POOL_LABEL, QUERY_TIME,
    REQUEST_TIME, REQUEST_WARNINGS, RETRIES, RETRY_EXHAUSTED, SELF_DEADLOCKS, SERVER_BACKENDS, USE_SECONDS,
};
use crate::monitoring::recording::{HELD_BY_OPERATION, WAITING_BY_OPERATION, bucket};
use crate::monitoring::thresholds::Thresholds;

/// Placeholder in a query for the label matchers of the alert's pool.
const POOL_MATCHERS: &str = "$pool";

/// Placeholder in a sentence for the contributor's name.
const NAME: &str = "$name";

/// Placeholder in a sentence for the measured value, with two decimals; `humanize` would print 0.4 as 400m.
const VALUE: &str = "$value";

/// Placeholder in a sentence for the measured value as a whole number.
const COUNT: &str = "$count";

/// A query for the top contributor, and the sentence that the description adds if there is one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Contributor {
    query: String,
    label: &'static str,
    sentence: &'static str,
}

impl Contributor {
    /// Finds the operation that holds most connections.
    pub(super) fn holder() -> Self {
        Self {
            query: format!("{HELD_BY_OPERATION}{{{POOL_MATCHERS}}}"),
            label: "operation",
            sentence: "Largest holder: $name ($value connections on average).",
        }
    }

    /// Finds the operation that waits most.
    pub(super) fn waiter() -> Self {
        Self {
            query: format!("{WAITING_BY_OPERATION}{{{POOL_MATCHERS}}}"),
            label: "operation",
            sentence: "Most waiting: $name ($value checkouts on average).",
        }
    }

    /// Finds the phase in which checkouts spend most time.
    pub(super) fn phase(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CHECKOUT_PHASE_SECONDS}{{{POOL_MATCHERS}}}[{}])", t.window),
            label: "phase",
            sentence: "Longest phase: $name ($value checkouts on average).",
        }
    }

    /// Finds the operation that holds most connections in the activities selected by `matcher`.
    pub(super) fn idle_holder(t: &Thresholds, matcher: &str) -> Self {
        Self {
            query: format!("sum without (activity) (rate({USE_SECONDS}{{{matcher},{POOL_MATCHERS}}}[{}]))", t.window),
            label: "operation",
            sentence: "Largest holder without a query: $name ($value connections on average).",
        }
    }

    /// Finds the operation with most executing connections.
    pub(super) fn executor(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({USE_SECONDS}{{activity=\"executing\",{POOL_MATCHERS}}}[{}])", t.window),
            label: "operation",
            sentence: "Most executing: $name ($value connections on average).",
        }
    }

    /// Finds the query summary with most slow queries.
    pub(super) fn slow_query(t: &Thresholds) -> Self {
        let (window, bucket) = (&t.window, bucket(&t.slow_query_seconds));
        Self {
            query: format!(
                "sum without (error_type) (rate({QUERY_TIME}_count{{{POOL_MATCHERS}}}[{window}])) - \
                 sum without (error_type, le) (rate({QUERY_TIME}_bucket{{{bucket},{POOL_MATCHERS}}}[{window}]))"
            ),
            label: "db_query_summary",
            sentence: "Most frequent slow query: `$name` ($value per second).",
        }
    }

    /// Finds the operation with most dirty returns.
    pub(super) fn dirty(t: &Thresholds) -> Self {
        Self {
            query: format!("sum without (kind) (rate({DIRTY_RETURNS}{{{POOL_MATCHERS}}}[{}]))", t.window),
            label: "operation",
            sentence: "Most dirty returns: $name ($value per second).",
        }
    }

    /// Finds the operation with most checkouts that waited while their own task held a connection.
    pub(super) fn self_deadlock(t: &Thresholds) -> Self {
        let series = format!("{SELF_DEADLOCKS}{{{POOL_MATCHERS}}}");
        Self {
            query: increase_with_new_series(&series, &t.window_rare).split_whitespace().collect::<Vec<_>>().join(" "),
            label: "operation",
            sentence: "Most frequent: $name, which waits while its task holds a connection ($count checkouts).",
        }
    }

    /// Finds the most frequent reason for closing connections.
    pub(super) fn close_reason(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CLOSED}{{{POOL_MATCHERS}}}[{}])", t.window),
            label: "reason",
            sentence: "Most frequent close reason: $name ($value per second).",
        }
    }

    /// Finds the most frequent error of connection attempts.
    pub(super) fn connect_error(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CONNECTION_ERRORS}{{phase=\"connect\",{POOL_MATCHERS}}}[{}])", t.window_now),
            label: "error_type",
            sentence: "Most frequent error: $name ($value per second).",
        }
    }

    /// Finds the most frequent error of connecting, also of checkouts that did not connect themselves or gave up.
    pub(super) fn unconnected(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (phase, sqlstate) (rate({CONNECTION_ERRORS}{{phase=~\"connect|checkout\",{POOL_MATCHERS}}}[{}]))",
                t.window_now
            ),
            label: "error_type",
            sentence: "Most frequent error of connecting: $name ($value per second).",
        }
    }

    /// Finds the most frequent error of the pool's connection attempts while its server does not answer polls.
    pub(super) fn server_down(t: &Thresholds) -> Self {
        Self {
            sentence: "Most frequent error of the pool's connection attempts: $name ($value per second).",
            ..Self::connect_error(t)
        }
    }

    /// Finds the application with most of the server's backends.
    pub(super) fn application() -> Self {
        Self {
            query: format!("sum without (state) ({SERVER_BACKENDS}{{{POOL_MATCHERS}}})"),
            label: "application_name",
            sentence: "Largest application: $name ($count backends).",
        }
    }

    /// Finds the operation with most retries.
    pub(super) fn retrying(t: &Thresholds) -> Self {
        Self {
            query: format!("sum without (sqlstate, error_type) (rate({RETRIES}{{{POOL_MATCHERS}}}[{}]))", t.window),
            label: "operation",
            sentence: "Most retries: $name ($value per second).",
        }
    }

    /// Finds the most frequent error that led to a retry.
    pub(super) fn retry_cause(t: &Thresholds) -> Self {
        Self {
            query: format!("sum without (operation) (rate({RETRIES}{{{POOL_MATCHERS}}}[{}]))", t.window),
            label: "error_type",
            sentence: "Most frequent error: $name ($value per second).",
        }
    }

    /// Finds the operation with most retries denied by the budget.
    pub(super) fn refused_retry(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (sqlstate, error_type) (rate({RETRY_EXHAUSTED}{{reason=\"budget\",{POOL_MATCHERS}}}[{}]))",
                t.window
            ),
            label: "operation",
            sentence: "Most affected operation: $name ($value per second).",
        }
    }

    /// Finds the route with most rejected requests.
    pub(super) fn shed(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (method, outcome) (rate({REQUEST_TIME}_count{{outcome=\"shed\",{POOL_MATCHERS}}}[{}]))",
                t.window
            ),
            label: "route",
            sentence: "Most rejected route: $name ($value per second).",
        }
    }

    /// Finds the route with most requests that make many checkouts.
    pub(super) fn many_checkouts(t: &Thresholds) -> Self {
        Self {
            query: format!(
                "sum without (method, kind) (rate({REQUEST_WARNINGS}{{kind=\"many_checkouts\",{POOL_MATCHERS}}}[{}]))",
                t.window
            ),
            label: "route",
            sentence: "Most frequent route: $name ($value per second).",
        }
    }

    /// Finds the cache with most lookups that it did not answer.
    pub(super) fn bypassed_cache(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CACHE_LOOKUPS}{{result=\"bypassed\",{POOL_MATCHERS}}}[{}])", t.window_now),
            label: "cache",
            sentence: "Most affected cache: $name ($value lookups per second).",
        }
    }

    /// Finds the cache with most misses.
    pub(super) fn missing_cache(t: &Thresholds) -> Self {
        Self {
            query: format!("rate({CACHE_LOOKUPS}{{result=\"miss\",{POOL_MATCHERS}}}[{}])", t.window),
            label: "cache",
            sentence: "Most misses: $name ($value per second).",
        }
    }

    /// Returns the query for the pool that `matchers` select, the top contributor first.
    #[must_use]
    pub fn query(&self, matchers: &str) -> String {
        format!("sort_desc(({}) > 0)", self.query.replace(POOL_MATCHERS, matchers))
    }

    /// Returns the label with the contributor's name.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        self.label
    }

    /// Returns the sentence as a template, which is empty if the query returns nothing.
    pub(super) fn template(&self) -> String {
        let query = self.query(&format!("job=%[1]q,instance=%[2]q,{POOL_LABEL}=%[3]q"));
        let sentence = self
            .sentence
            .replace(NAME, &format!("{{{{ . | first | label \"{}\" }}}}", self.label))
            .replace(VALUE, "{{ . | first | value | printf \"%.2f\" }}")
            .replace(COUNT, "{{ . | first | value | printf \"%.0f\" }}");
        format!(
            "{{{{ with printf `{query}` $labels.job $labels.instance $labels.{POOL_LABEL} | query }}}} {sentence}{{{{ \
             end }}}}"
        )
    }
}
