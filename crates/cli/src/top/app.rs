//! What is shown, and how answers change it. Draws nothing and reads no terminal.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::history::History;
use super::list::{ListControl, Sort};
use super::model::{Holder, Pool, Waiter};

/// One exporter and its last answer.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// Its URL, printable.
    pub(crate) url: String,
    /// Its pools, worst first; those of the last answer if it does not answer any more.
    pub(crate) pools: Vec<Pool>,
    /// Why its pools are unknown.
    pub(crate) error: Option<String>,
    pub(crate) has_answered: bool,
    history: HashMap<String, History>,
    /// The name of the selected pool; the worst one if `None`.
    pub(super) selected: Option<String>,
}

/// The list that keys apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    Pools,
    Holders,
    Waiters,
}

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) exporters: Vec<Exporter>,
    /// The index of the selected exporter.
    pub(crate) exporter: usize,
    pub(crate) focus: Focus,
    pub(crate) pools: ListControl,
    pub(crate) holders: ListControl,
    pub(crate) waiters: ListControl,
    /// Whether answers are not shown, so that a list can be read and copied.
    pub(crate) is_frozen: bool,
    pub(crate) is_help: bool,
    /// Whether keys edit the filter of the list.
    pub(crate) is_filtering: bool,
}

impl Exporter {
    pub(crate) fn new(url: String) -> Self {
        Self { url, pools: Vec::new(), error: None, has_answered: false, history: HashMap::new(), selected: None }
    }

    pub(crate) fn history(&self, pool: &str) -> Option<&History> {
        self.history.get(pool)
    }

    fn record(&mut self, answer: &Result<Vec<Pool>, String>) {
        match answer {
            Err(_) => self.history.values_mut().for_each(|history| history.push(None)),
            Ok(pools) => {
                self.history.retain(|name, _| pools.iter().any(|pool| pool.name == *name));
                for pool in pools {
                    if !pool.history.is_empty() {
                        self.history.insert(pool.name.clone(), History::of(&pool.history));
                        continue;
                    }
                    self.history.entry(pool.name.clone()).or_default().push(Some(pool.state));
                }
            }
        }
    }
}

impl App {
    pub(crate) fn new(urls: impl IntoIterator<Item = String>) -> Self {
        Self {
            exporters: urls.into_iter().map(Exporter::new).collect(),
            exporter: 0,
            focus: Focus::Pools,
            pools: ListControl::new(&[Sort::Worst, Sort::Name, Sort::Cause, Sort::Age, Sort::Used, Sort::Waiting]),
            holders: ListControl::new(&[Sort::Age, Sort::Name, Sort::Site, Sort::Activity, Sort::Queries, Sort::Pid]),
            waiters: ListControl::new(&[Sort::Age, Sort::Name, Sort::Site, Sort::Activity]),
            is_frozen: false,
            is_help: false,
            is_filtering: false,
        }
    }

    /// Takes the answer of an exporter: its pools, or why they are unknown.
    pub(crate) fn update(&mut self, exporter: usize, answer: Result<Vec<Pool>, String>) {
        let Some(exporter) = self.exporters.get_mut(exporter) else { return };
        exporter.record(&answer);
        // A recording pauses while it is frozen, and shows where it was moved to.
        let is_recording = answer.as_ref().is_ok_and(|pools| pools.iter().any(|pool| !pool.recorded_at.is_empty()));
        if self.is_frozen && exporter.has_answered && !is_recording {
            return;
        }
        exporter.has_answered = true;
        match answer {
            Ok(pools) => (exporter.pools, exporter.error) = (pools, None),
            Err(error) => exporter.error = Some(error),
        }
        self.leave_hidden_list();
    }

    /// Returns whether the list of waiters is shown: a proxy does not see them.
    pub(super) fn has_waiters(&self) -> bool {
        self.current().is_none_or(|(_, pool)| !pool.is_proxied)
    }

    /// Keys apply to a list that is shown, also after another pool was selected.
    pub(super) fn leave_hidden_list(&mut self) {
        if self.focus == Focus::Waiters && !self.has_waiters() {
            self.focus = Focus::Holders;
        }
    }

    /// Returns the pools of an exporter that the filter selects, in order.
    pub(crate) fn listed_pools<'a>(&self, exporter: &'a Exporter) -> Vec<&'a Pool> {
        self.pools.apply(&exporter.pools, |pool| {
            let Pool { name, verdict, state, .. } = pool;
            let used = Reverse(state.used.saturating_mul(1000) / state.max.max(1));
            let rank = match self.pools.sort() {
                Sort::Cause => (vec![], verdict.cause.clone()),
                Sort::Age => (vec![Reverse(millis(verdict.since.unwrap_or_default()))], String::new()),
                Sort::Used => (vec![used], String::new()),
                Sort::Waiting => (vec![Reverse(state.waiting)], String::new()),
                Sort::Worst => {
                    (vec![Reverse(u64::MAX - verdict.severity() as u64), Reverse(state.waiting), used], String::new())
                }
                _ => (vec![], String::new()),
            };
            (rank, name.clone())
        })
    }

    /// Returns the selected pool of an exporter.
    pub(crate) fn selected<'a>(&self, exporter: &'a Exporter) -> Option<&'a Pool> {
        let pools = self.listed_pools(exporter);
        let named = |name: &String| pools.iter().find(|pool| pool.name == *name).copied();
        exporter.selected.as_ref().and_then(named).or(pools.first().copied())
    }

    /// Returns the exporter and the pool whose details are shown.
    pub(crate) fn current(&self) -> Option<(&Exporter, &Pool)> {
        let exporter = self.exporters.get(self.exporter)?;
        Some((exporter, self.selected(exporter)?))
    }

    pub(crate) fn listed_holders<'a>(&self, pool: &'a Pool) -> Vec<&'a Holder> {
        self.holders.apply(&pool.holders, |holder| match self.holders.sort() {
            Sort::Name => (0, holder.operation.clone()),
            Sort::Site => (0, holder.call_site.clone()),
            Sort::Activity => (0, holder.activity.clone()),
            Sort::Queries => (u64::MAX - holder.queries, String::new()),
            Sort::Pid => (holder.backend_pid.unwrap_or_default().unsigned_abs(), String::new()),
            _ => (u64::MAX - millis(holder.age), String::new()),
        })
    }

    pub(crate) fn listed_waiters<'a>(&self, pool: &'a Pool) -> Vec<&'a Waiter> {
        self.waiters.apply(&pool.waiters, |waiter| match self.waiters.sort() {
            Sort::Name => (0, waiter.operation.clone()),
            Sort::Site => (0, waiter.call_site.clone()),
            Sort::Activity => (0, waiter.phase.clone()),
            _ => (u64::MAX - millis(waiter.age), String::new()),
        })
    }

    /// Returns the number of exporters that answer, of pools, and of pools with a problem.
    pub(crate) fn totals(&self) -> (usize, usize, usize) {
        let pools = || self.exporters.iter().flat_map(|exporter| &exporter.pools);
        let problems = pools().filter(|pool| pool.verdict.severity() == super::model::Severity::Problem);
        let answering = self.exporters.iter().filter(|exporter| exporter.has_answered && exporter.error.is_none());
        (answering.count(), pools().count(), problems.count())
    }
}

/// Milliseconds, to sort by.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is positive")]
fn millis(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::*;
    use crate::top::keys::Action;
    use crate::top::model::{State, Verdict};

    fn pool(name: &str, cause: &str, used: u64, waiting: u64) -> Pool {
        Pool {
            name: name.to_owned(),
            state: State { used, waiting, max: 10, ..State::default() },
            verdict: Verdict { cause: cause.to_owned(), since: Some(5.0), ..Verdict::default() },
            ..Pool::default()
        }
    }

    fn app() -> App {
        let mut app = App::new(["a", "b"].map(str::to_owned));
        let pools = [("idle", "healthy", 0, 0), ("busy", "healthy", 9, 0), ("new", "not_enough_data", 0, 0)];
        let bad = [("leaky", "leak", 10, 1), ("slow", "slow_queries", 10, 7)];
        let pools = [&pools[..], &bad].concat().iter().map(|(n, c, u, w)| pool(n, c, *u, *w)).collect();
        app.update(0, Ok(pools));
        app
    }

    fn press(app: &mut App, keys: &str) -> Action {
        keys.chars().map(|key| app.key(KeyCode::Char(key).into())).last().unwrap_or(Action::None)
    }

    fn names(app: &App) -> Vec<&str> {
        app.listed_pools(&app.exporters[0]).iter().map(|pool| &*pool.name).collect()
    }

    #[test]
    fn worst_pool_is_first_and_selected() {
        let app = app();
        assert_eq!(names(&app), ["slow", "leaky", "new", "busy", "idle"]);
        assert_eq!(app.current().unwrap().1.name, "slow");
        assert_eq!(app.totals(), (1, 5, 2));
    }

    #[test]
    fn keys_sort_invert_and_filter() {
        let mut app = app();
        press(&mut app, "N");
        assert_eq!(names(&app), ["busy", "idle", "leaky", "new", "slow"]);
        press(&mut app, "I");
        assert_eq!(names(&app), ["slow", "new", "leaky", "idle", "busy"]);
        press(&mut app, "IU");
        assert_eq!(names(&app), ["leaky", "slow", "busy", "idle", "new"]);
        press(&mut app, ">");
        assert_eq!(names(&app)[0], "slow");
        // The filter takes the letters that are commands elsewhere, and ignores case.
        press(&mut app, "/LQ");
        assert!(app.is_filtering && names(&app).is_empty());
        app.key(KeyCode::Backspace.into());
        assert_eq!(names(&app), ["slow", "leaky", "busy", "idle"], "`healthy` matches too");
        app.key(KeyCode::Enter.into());
        assert_eq!(press(&mut app, "q"), Action::Quit);
        app.key(KeyCode::Esc.into());
        assert_eq!(names(&app).len(), 5);
    }

    #[test]
    fn selection_follows_the_pool_when_the_order_changes() {
        let mut app = app();
        press(&mut app, "jj");
        assert_eq!(app.current().unwrap().1.name, "new");
        app.update(0, Ok(vec![pool("new", "healthy", 0, 0), pool("old", "leak", 10, 9)]));
        assert_eq!(app.current().unwrap().1.name, "new");
        app.key(KeyCode::End.into());
        app.key(KeyCode::Home.into());
        assert_eq!(app.current().unwrap().1.name, "old");
        // A pool that no longer exists is not selected.
        app.update(0, Ok(vec![pool("new", "healthy", 0, 0)]));
        assert_eq!(app.current().unwrap().1.name, "new");
    }

    #[test]
    fn frozen_lists_stay_and_history_goes_on() {
        let mut app = app();
        press(&mut app, "Z");
        app.update(0, Ok(vec![pool("slow", "healthy", 1, 0)]));
        assert_eq!(names(&app).len(), 5);
        assert_eq!(app.exporters[0].history("slow").unwrap().last(9, |state| state.used), [Some(10), Some(1)]);
        press(&mut app, "Z");
        app.update(0, Err("refused".to_owned()));
        assert_eq!((names(&app).len(), app.exporters[0].error.as_deref()), (5, Some("refused")));
        assert_eq!(app.exporters[0].history("slow").unwrap().last(9, |state| state.used), [Some(10), Some(1), None]);
    }

    #[test]
    fn help_is_left_with_any_key() {
        let mut app = app();
        press(&mut app, "?");
        assert!(app.is_help);
        assert_eq!(press(&mut app, "q"), Action::None);
        assert!(!app.is_help);
        let control = |key| KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
        press(&mut app, "/");
        assert_eq!((app.key(control('c')), app.key(control('z'))), (Action::Quit, Action::Suspend));
    }

    #[test]
    fn exporters_are_selected_with_left_and_right() {
        let mut app = app();
        for (key, expected) in [(KeyCode::Right, 1), (KeyCode::Right, 1), (KeyCode::Left, 0), (KeyCode::Left, 0)] {
            app.key(key.into());
            assert_eq!(app.exporter, expected);
        }
        app.key(KeyCode::Right.into());
        assert!(app.current().is_none(), "the second has not answered");
        press(&mut app, "jkG");
    }
}
