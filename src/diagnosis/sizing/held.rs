//! Time for which connections were held without a use that a pool could serve: without traffic, or waiting for a lock.

use std::collections::HashMap;
use std::time::Duration;

use crate::labels::Activity;
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::{PoolSnapshot, ServerPoll};

/// A pause between queries counts as use up to this length.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The part of a use in progress that is left out. A use that no sample sees is shorter than a second, so that nothing of
/// it is.
#[derive(Clone, Copy, Debug)]
struct HeldTime {
    /// The length of the use as of the last sample, in nanoseconds.
    held: u64,
    left_out: u64,
    seen: bool,
}

/// The uses in progress of which a part is left out.
#[derive(Debug, Default)]
pub(super) struct HeldTimes {
    at: Option<Nanos>,
    /// By the backend's process id and the time of the checkout in microseconds.
    uses: HashMap<(i32, u64), HeldTime>,
}

impl HeldTimes {
    /// Uses a sample with holders. Returns the uses that have ended: how long they were, and how much of that is left out,
    /// in nanoseconds.
    pub(super) fn observe(&mut self, now: Nanos, snapshot: &PoolSnapshot) -> Vec<(u64, u64)> {
        let elapsed = self.at.replace(now).map_or(0, |before| now.since(before));
        for held in self.uses.values_mut() {
            held.seen = false;
        }
        let blocked = match &snapshot.server {
            Some(ServerPoll::Seen(view)) => &*view.blocked,
            _ => &[],
        };
        for holder in snapshot.holders.iter().filter(|holder| !holder.maintenance) {
            let Some(pid) = holder.backend_pid else { continue };
            let executes = holder.activity == Some(Activity::Executing);
            let left_out = if executes {
                if blocked.iter().any(|blocked| blocked.pid == pid) { nanos(holder.silent) } else { 0 }
            } else {
                nanos(holder.silent.saturating_sub(MAX_PAUSE))
            };
            let left_out = left_out.min(elapsed);
            let since = now.as_nanos().saturating_sub(nanos(holder.age));
            // To two microseconds, the resolution of the state, so that rounding makes no other use of it.
            let known =
                [0, 1].map(|next| (pid, since / 2048 + next)).into_iter().find(|key| self.uses.contains_key(key));
            if left_out == 0 && known.is_none() {
                continue;
            }
            let entry = self.uses.entry(known.unwrap_or((pid, since / 2048)));
            let entry = entry.or_insert(HeldTime { held: 0, left_out: 0, seen: true });
            entry.held = nanos(holder.age);
            entry.left_out = entry.left_out.saturating_add(left_out);
            entry.seen = true;
        }
        let mut ended = Vec::new();
        self.uses.retain(|_, held| {
            if !held.seen {
                // It ended at an unknown time since the last sample.
                ended.push((held.held.saturating_add(elapsed / 2), held.left_out));
            }
            held.seen
        });
        ended
    }
}
