//! Which alerts a scenario's fault makes fire.

/// That it is exhausted.
pub(super) const EXHAUSTED: &str = "PoolscopePoolExhausted";

/// The alerts that fire while a fault is there, if that is for long enough. A test that brings the fault about holds them to
/// it, and another holds that the runbook of the first names all others.
#[derive(Clone, Copy, Debug)]
pub struct Fires {
    /// The alert that is about the fault.
    pub alert: &'static str,
    /// What its description names.
    pub blames: &'static str,
    /// Those that fire as well, by what they have in common.
    pub also: &'static [&'static [&'static str]],
    /// Those that may fire as well, as the load has it.
    pub perhaps: &'static [&'static str],
}

impl Fires {
    /// Those that fire each time.
    #[must_use]
    pub fn always(&self) -> Vec<&'static str> {
        [&[self.alert], &*self.also.concat()].concat()
    }
}
