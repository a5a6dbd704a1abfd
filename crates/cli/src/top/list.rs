//! Order, filter and position of a list.

use super::model::{Holder, Pool, Waiter};

/// What a list is sorted by. Numbers are sorted largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Pools with a problem first, and those with more waiting checkouts before others.
    Worst,
    Name,
    Cause,
    /// For how long.
    Age,
    Used,
    Waiting,
    Site,
    /// Activity, or the phase of a wait.
    Activity,
    Queries,
    Pid,
}

impl Sort {
    /// Returns the name that is shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst first",
            Self::Name => "name",
            Self::Cause => "verdict",
            Self::Age => "age",
            Self::Used => "used",
            Self::Waiting => "waiting",
            Self::Site => "call site",
            Self::Activity => "activity",
            Self::Queries => "queries",
            Self::Pid => "pid",
        }
    }
}

#[derive(Debug)]
pub(crate) struct ListControl {
    sorts: &'static [Sort],
    sort: usize,
    pub(crate) is_inverted: bool,
    /// Selects the entries that contain this text, in any case.
    pub(crate) filter: String,
    /// The index of the first shown entry.
    pub(crate) first: usize,
}

impl ListControl {
    pub(crate) fn new(sorts: &'static [Sort]) -> Self {
        Self { sorts, sort: 0, is_inverted: false, filter: String::new(), first: 0 }
    }

    pub(crate) fn sort(&self) -> Sort {
        self.sorts[self.sort]
    }

    /// Sorts by this, if the list has it.
    pub(crate) fn sort_by(&mut self, sort: Sort) {
        if let Some(index) = self.sorts.iter().position(|known| *known == sort) {
            self.sort = index;
        }
    }

    /// Sorts by the next column, or the previous one.
    pub(crate) fn sort_by_next(&mut self, is_forward: bool) {
        let steps = if is_forward { 1 } else { self.sorts.len() - 1 };
        self.sort = (self.sort + steps) % self.sorts.len();
    }

    /// Returns the entries that the filter selects, in order.
    pub(crate) fn apply<'a, T: Filtered, K: Ord>(&self, entries: &'a [T], key: impl Fn(&T) -> K) -> Vec<&'a T> {
        let filter = self.filter.to_lowercase();
        let matches =
            |entry: &&T| filter.is_empty() || entry.texts().iter().any(|text| text.to_lowercase().contains(&filter));
        let mut listed: Vec<_> = entries.iter().filter(matches).collect();
        listed.sort_by_cached_key(|entry| key(entry));
        if self.is_inverted {
            listed.reverse();
        }
        listed
    }

    /// Returns what is unusual about the list, as in `, by name, filter "orders"`.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        if self.sort != 0 || self.is_inverted {
            text = format!(", by {}{}", self.sort().name(), if self.is_inverted { " inverted" } else { "" });
        }
        if !self.filter.is_empty() {
            text += &format!(", filter \"{}\"", poolscope::text::printable(&self.filter));
        }
        text
    }
}

/// What a filter searches.
pub(crate) trait Filtered {
    fn texts(&self) -> Vec<&str>;
}

impl Filtered for Pool {
    fn texts(&self) -> Vec<&str> {
        vec![&self.name, &self.verdict.cause]
    }
}

impl Filtered for Holder {
    fn texts(&self) -> Vec<&str> {
        vec![&self.operation, &self.call_site, &self.activity, &self.trace]
    }
}

impl Filtered for Waiter {
    fn texts(&self) -> Vec<&str> {
        vec![&self.operation, &self.call_site, &self.phase, &self.holds, &self.trace]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_order_wraps_in_both_directions() {
        let mut control = ListControl::new(&[Sort::Age, Sort::Name, Sort::Pid]);
        let mut after = |is_forward| {
            control.sort_by_next(is_forward);
            control.sort()
        };
        assert_eq!([true; 3].map(&mut after), [Sort::Name, Sort::Pid, Sort::Age]);
        assert_eq!([false; 3].map(&mut after), [Sort::Pid, Sort::Name, Sort::Age]);
        control.sort_by(Sort::Used);
        assert_eq!((control.sort(), &*control.describe()), (Sort::Age, ""));
        control.is_inverted = true;
        control.filter.push('\u{1b}');
        assert_eq!(control.describe(), ", by age inverted, filter \"\\u{1b}\"");
    }
}
