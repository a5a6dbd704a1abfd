//! Random sequences of lookups, changes, invalidations, faults and pauses, compared with what may be returned.

use std::collections::HashMap;

use proptest::prelude::*;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::*;

const KEYS: [&str; 3] = ["a", "b", "ab"];

/// A step of a sequence.
#[derive(Clone, Debug)]
enum Step {
    /// A lookup begins, whose load takes this time, and whose caller waits for at most that.
    Look {
        key: usize,
        load: u64,
        patience: u64,
        fails: bool,
    },
    /// The value in the database changes, and the key is invalidated.
    Change {
        key: usize,
    },
    /// Time passes.
    Wait {
        millis: u64,
    },
    Fault(Fault),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    prop_oneof![
        6 => (key.clone(), 0..3000_u64, 1..4000_u64, prop::bool::weighted(0.2))
            .prop_map(|(key, load, patience, fails)| Step::Look { key, load, patience, fails }),
        1 => key.prop_map(|key| Step::Change { key }),
        4 => (0..8000_u64).prop_map(|millis| Step::Wait { millis }),
        1 => prop_oneof![Just(Fault::None), Just(Fault::None), Just(Fault::Away), Just(Fault::Paused), Just(Fault::Full)]
            .prop_map(Step::Fault),
    ]
}

/// What the database has had for each key: the time of each change. The value of a key is made of its index and the number of
/// changes before.
#[derive(Debug, Default)]
struct Database {
    changes: HashMap<usize, Vec<Instant>>,
}

impl Database {
    fn value(&self, key: usize) -> u64 {
        (key as u64) << 32 | self.changes.get(&key).map_or(0, |changes| changes.len() as u64)
    }

    /// Returns since when a version has no longer been current, if it has not.
    fn replaced(&self, key: usize, version: u64) -> Option<Instant> {
        self.changes.get(&key)?.get(usize::try_from(version).unwrap()).copied()
    }
}

/// Runs the steps, and checks each value that a lookup returns.
async fn run(steps: Vec<Step>, with_lock: bool) {
    let lock = with_lock.then_some(2 * SECOND);
    let settings = CacheSettings { jitter: 0.5, lock, ..settings() };
    let longest = settings.time_to_live + settings.stale_window;
    let cache = Arc::new(Harness::new(settings));
    let database = Arc::new(std::sync::Mutex::new(Database::default()));
    // The version of each key when its last invalidation that has ended began: no older one may be returned.
    let mut invalidated: HashMap<usize, u64> = HashMap::new();
    let mut lookups = JoinSet::new();
    for step in steps {
        match step {
            Step::Look { key, load, patience, fails } => {
                let (cache, database) = (Arc::clone(&cache), Arc::clone(&database));
                let (began, oldest_version) = (Instant::now(), invalidated.get(&key).copied().unwrap_or_default());
                let load_time = Duration::from_millis(load);
                lookups.spawn(async move {
                    let load = async || {
                        let value = database.lock().unwrap().value(key);
                        sleep(load_time).await;
                        if fails { Err("failed") } else { Ok(Some(value)) }
                    };
                    let lookup = timeout(Duration::from_millis(patience), cache.get_with(KEYS[key], load));
                    let Ok(Ok(value)) = lookup.await else { return };
                    let value = value.unwrap();
                    assert_eq!(value >> 32, key as u64, "the value of another key");
                    let version = value & 0xffff_ffff;
                    assert!(version >= oldest_version, "loaded before an invalidation that had ended");
                    let Some(replaced) = database.lock().unwrap().replaced(key, version) else { return };
                    // A load takes at most 3 s; a value may be shared by callers that come while it is stored.
                    let oldest = longest + 4 * SECOND;
                    assert!(began.saturating_duration_since(replaced) <= oldest, "older than permitted");
                });
                yield_now().await;
            }
            Step::Change { key } => {
                let version = {
                    let mut database = database.lock().unwrap();
                    database.changes.entry(key).or_default().push(Instant::now());
                    database.value(key) & 0xffff_ffff
                };
                // Also where it fails, this process does not use what was loaded before.
                let _ = cache.core.invalidate(&cache.core.store_key(KEYS[key])).await;
                invalidated.insert(key, version);
            }
            Step::Wait { millis } => sleep(Duration::from_millis(millis)).await,
            Step::Fault(fault) => cache.store.set_fault(fault),
        }
    }
    while let Some(ended) = lookups.join_next().await {
        ended.unwrap();
    }
    cache.assert_idle();
    let totals = cache.totals();
    assert_eq!(totals.started, totals.results.iter().sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// No lookup returns the value of another key, one that is older than time to live and stale window, or one that was
    /// loaded before an invalidation of this process that had ended when the lookup began.
    #[test]
    fn values_are_never_too_old(steps in prop::collection::vec(step(), 1..60), with_lock: bool) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(steps, with_lock));
    }
}
