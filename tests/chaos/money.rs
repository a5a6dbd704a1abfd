//! A ledger of money: transfers between accounts, each with a token, and what their callers know of them.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use poolscope::Connection;
use poolscope::retry::Effects;
use poolscope::tokio_postgres::Error;

use super::world::World;

const ACCOUNTS: i32 = 12;
const BALANCE: i64 = 1_000;

/// `transfers` accepts a token twice, so that a transfer that was doubled is seen.
pub(crate) const TABLES: &str = "CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance bigint NOT NULL);\
    INSERT INTO accounts SELECT id, 1000 FROM generate_series(1, 12) AS id ON CONFLICT DO NOTHING;\
    CREATE TABLE IF NOT EXISTS transfers (token bigint NOT NULL, cents bigint NOT NULL);\
    CREATE TABLE IF NOT EXISTS once (token bigint PRIMARY KEY)";

/// How often work took effect, as far as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Once,
    Never,
    /// It was cancelled, or the answer was lost.
    Unknown,
}

impl Effect {
    pub(crate) fn of(effects: Effects) -> Self {
        if effects == Effects::None { Self::Never } else { Self::Unknown }
    }

    fn allows(self, times: i64) -> bool {
        match self {
            Self::Once => times == 1,
            Self::Never => times == 0,
            Self::Unknown => times <= 1,
        }
    }
}

#[derive(Default)]
pub(crate) struct Money {
    tokens: AtomicI64,
    transfers: Mutex<Vec<(i64, Effect)>>,
    once: Mutex<Vec<(i64, Effect)>>,
}

impl Money {
    /// Returns a token that no other work has.
    pub(crate) fn token(&self) -> i64 {
        self.tokens.fetch_add(1, SeqCst)
    }

    /// Records what the caller of a transfer knows.
    pub(crate) fn transferred(&self, token: i64, effect: Effect) {
        self.transfers.lock().unwrap().push((token, effect));
    }

    /// Records what the caller of idempotent work knows.
    pub(crate) fn done_once(&self, token: i64, effect: Effect) {
        self.once.lock().unwrap().push((token, effect));
    }

    /// Returns how many effects callers know of: once, never and unknown.
    pub(crate) fn known(&self) -> [usize; 3] {
        let (transfers, once) = (self.transfers.lock().unwrap(), self.once.lock().unwrap());
        [Effect::Once, Effect::Never, Effect::Unknown]
            .map(|effect| transfers.iter().chain(&*once).filter(|(_, known)| *known == effect).count())
    }

    /// Checks that the accounts balance, and that each work took effect as often as its caller knows.
    pub(crate) async fn assert_balances(&self, world: &World) {
        let client = world.connect().await.expect("a connection");
        let sum: i64 = client.query_one(SUM, &[]).await.unwrap().get(0);
        assert_eq!(sum, total(), "the sum of all accounts");
        for (table, known) in [("transfers", &self.transfers), ("once", &self.once)] {
            let query = format!("SELECT token, count(*) FROM {table} GROUP BY token");
            let rows = client.query(&query, &[]).await.unwrap();
            let times: HashMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            for (token, effect) in known.lock().unwrap().iter() {
                let times = times.get(token).copied().unwrap_or_default();
                assert!(
                    effect.allows(times),
                    "{table}: {token} took effect {times} times, its caller knows {effect:?}"
                );
            }
            let known: HashSet<i64> = known.lock().unwrap().iter().map(|(token, _)| *token).collect();
            assert!(times.keys().all(|token| known.contains(token)), "{table} has a token that nobody recorded");
        }
    }
}

const SUM: &str = "SELECT sum(balance)::bigint FROM accounts";

fn total() -> i64 {
    i64::from(ACCOUNTS) * BALANCE
}

/// Transfers an amount between two random accounts.
pub(crate) async fn transfer(connection: &mut Connection, token: i64, random: u64) -> Result<(), Error> {
    let mut random = fastrand::Rng::with_seed(random);
    let (from, to, cents) = (random.i32(1..=ACCOUNTS), random.i32(1..=ACCOUNTS), random.i64(1..100));
    let transaction = connection.transaction().await?;
    let change = transaction.prepare_cached("UPDATE accounts SET balance = balance + $2 WHERE id = $1").await?;
    transaction.execute(&change, &[&from, &-cents]).await?;
    transaction.execute(&change, &[&to, &cents]).await?;
    let note = transaction.prepare_cached("INSERT INTO transfers VALUES ($1, $2)").await?;
    transaction.execute(&note, &[&token, &cents]).await?;
    transaction.commit().await
}

/// Does something that may be repeated to the same effect.
pub(crate) async fn do_once(connection: &mut Connection, token: i64) -> Result<(), Error> {
    let insert = connection.prepare_cached("INSERT INTO once VALUES ($1) ON CONFLICT DO NOTHING").await?;
    connection.execute(&insert, &[&token]).await.map(drop)
}

/// Checks that the accounts balance at this moment.
pub(crate) async fn audit(connection: &Connection) -> Result<(), Error> {
    let sum: i64 = connection.query_one(SUM, &[]).await?.get(0);
    assert_eq!(sum, total(), "the sum of all accounts");
    Ok(())
}
