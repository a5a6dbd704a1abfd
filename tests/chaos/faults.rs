//! The faults. Each lasts for a given time, and is over when its future is ready.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use poolscope_testing::proxy::{Proxy, Shape, Strike};
use poolscope_testing::server::Shutdown;
use tokio::time::sleep;

use super::world::World;

/// The bytes that distinguish a request to cancel a query.
const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Each chunk takes longer.
    Latency,
    /// Each chunk takes a random time.
    Jitter,
    /// 50 kB/s.
    Bandwidth,
    /// Bytes are split and merged at random.
    Fragments,
    /// Half of the connections are reset.
    Resets,
    /// Of half of the connections, only the server learns of the end.
    HalfOpen,
    /// Half of the connections are cut within what the server sends: a message, or a TLS record.
    Truncated,
    /// Nothing arrives, in either direction.
    Silence,
    /// The port refuses connections.
    Refused,
    /// Requests to cancel are lost.
    LostCancels,
    /// Some backends are terminated.
    KilledBackends,
    /// Some backends are suspended.
    SuspendedBackends,
    /// The server's main process is suspended: nobody can connect.
    SuspendedServer,
    /// The server is restarted.
    Restart,
    /// A backend is killed, so that the server ends all others and recovers.
    Crash,
    /// The server stops as in a crash, and starts again after a while.
    Outage,
    /// Others take all of the server's connections.
    Full,
    /// The server refuses writes, as after a failover.
    ReadOnly,
    /// Another session locks the accounts.
    LockStorm,
    StatementTimeout,
    IdleInTransactionTimeout,
    /// From version 14 on.
    IdleSessionTimeout,
}

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        Self::Latency,
        Self::Jitter,
        Self::Bandwidth,
        Self::Fragments,
        Self::Resets,
        Self::HalfOpen,
        Self::Truncated,
        Self::Silence,
        Self::Refused,
        Self::LostCancels,
        Self::KilledBackends,
        Self::SuspendedBackends,
        Self::SuspendedServer,
        Self::Restart,
        Self::Crash,
        Self::Outage,
        Self::Full,
        Self::ReadOnly,
        Self::LockStorm,
        Self::StatementTimeout,
        Self::IdleInTransactionTimeout,
        Self::IdleSessionTimeout,
    ];

    /// Lets the fault occur for `time`.
    pub(crate) async fn occur(self, world: &World, time: Duration, random: &mut fastrand::Rng) {
        let millis = Duration::from_millis;
        match self {
            Self::Latency => shape(world, time, Shape { delay: millis(random.u64(5..40)), ..Shape::default() }).await,
            Self::Jitter => shape(world, time, Shape { jitter: millis(random.u64(10..80)), ..Shape::default() }).await,
            Self::Bandwidth => shape(world, time, Shape { bandwidth: 50_000, ..Shape::default() }).await,
            Self::Fragments => shape(world, time, Shape { fragments: true, ..Shape::default() }).await,
            Self::Resets => strike(world, time, Strike::Reset).await,
            Self::HalfOpen => strike(world, time, Strike::HalfOpen).await,
            Self::Truncated => strike(world, time, Strike::Truncate).await,
            Self::Silence => during(world, time, |proxy| proxy.silence(true), |proxy| proxy.silence(false)).await,
            Self::Refused => during(world, time, Proxy::refuse, Proxy::accept).await,
            Self::LostCancels => {
                let lose = |proxy: &Proxy| (0..8).for_each(|_| proxy.cut_before(CANCEL_REQUEST));
                during(world, time, lose, Proxy::disarm).await;
            }
            Self::KilledBackends => {
                for backend in backends(world, random).await {
                    world.execute(&format!("SELECT pg_terminate_backend({backend})")).await;
                }
                sleep(time).await;
            }
            Self::SuspendedBackends => {
                let backends = backends(world, random).await;
                suspended(&backends, time).await;
            }
            Self::SuspendedServer => {
                let server = world.server.pid().and_then(|pid| i32::try_from(pid).ok());
                suspended(server.as_slice(), time).await;
            }
            Self::Restart => world.server.restart(Shutdown::Fast).await.unwrap(),
            Self::Crash => {
                if let Some(backend) = backends(world, random).await.first() {
                    let _ = kill(Pid::from_raw(*backend), Signal::SIGKILL);
                }
                sleep(time).await;
            }
            Self::Outage => {
                world.server.stop(Shutdown::Immediate).await.unwrap();
                sleep(time).await;
                world.server.start().await.unwrap();
            }
            Self::Full => {
                let mut others = Vec::new();
                while let Some(other) = world.connect().await {
                    others.push(other);
                }
                sleep(time).await;
            }
            Self::ReadOnly => setting(world, time, "default_transaction_read_only", "on").await,
            Self::LockStorm => {
                if let Some(client) = world.connect().await {
                    let lock = "SET lock_timeout = '1s'; BEGIN; LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE";
                    let _ = client.batch_execute(lock).await;
                    sleep(time).await;
                }
            }
            Self::StatementTimeout => setting(world, time, "statement_timeout", "20ms").await,
            Self::IdleInTransactionTimeout => {
                setting(world, time, "idle_in_transaction_session_timeout", "10ms").await;
            }
            Self::IdleSessionTimeout => setting(world, time, "idle_session_timeout", "20ms").await,
        }
    }
}

/// Returns the faults that the server's version knows.
pub(crate) async fn available(world: &World) -> Vec<Fault> {
    let version = world.number("SELECT current_setting('server_version_num')::bigint").await;
    let knows =
        |fault: &Fault| *fault != Fault::IdleSessionTimeout || version.is_some_and(|version| version >= 140_000);
    Fault::ALL.into_iter().filter(knows).collect()
}

async fn during(world: &World, time: Duration, begin: impl Fn(&Proxy), end: impl Fn(&Proxy)) {
    world.targets.iter().for_each(|target| begin(&target.proxy));
    sleep(time).await;
    world.targets.iter().for_each(|target| end(&target.proxy));
}

async fn shape(world: &World, time: Duration, shape: Shape) {
    during(world, time, |proxy| proxy.shape(shape), |proxy| proxy.shape(Shape::default())).await;
}

async fn strike(world: &World, time: Duration, strike: Strike) {
    during(world, time, |proxy| proxy.strike(strike, 50), |_| {}).await;
}

/// Changes a setting of the server for a while.
async fn setting(world: &World, time: Duration, name: &str, value: &str) {
    world.execute(&format!("ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf()")).await;
    sleep(time).await;
    world.execute(&format!("ALTER SYSTEM RESET {name}; SELECT pg_reload_conf()")).await;
}

/// Suspends processes for a while.
async fn suspended(processes: &[i32], time: Duration) {
    for process in processes {
        let _ = kill(Pid::from_raw(*process), Signal::SIGSTOP);
    }
    sleep(time).await;
    for process in processes {
        let _ = kill(Pid::from_raw(*process), Signal::SIGCONT);
    }
}

/// Returns some backends of the pools; none if the server cannot be asked.
async fn backends(world: &World, random: &mut fastrand::Rng) -> Vec<i32> {
    let Some(client) = world.connect().await else { return Vec::new() };
    let query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'chaos%' ORDER BY pid";
    let rows = client.query(query, &[]).await.unwrap_or_default();
    let mut backends: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    random.shuffle(&mut backends);
    backends.truncate(random.usize(1..6));
    backends
}
