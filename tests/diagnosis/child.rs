//! Runs one case in a process of its own, so that cases do not disturb each other and the process can be stopped.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use poolscope::recording::Recorder;
use poolscope::{Collector, Pool};
use poolscope_testing::proxy::Proxy;
use poolscope_testing::server::{Server, Shutdown};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};

use crate::cases::{self, Case, Fault};
use crate::clock;
use crate::recordings::{Conditions, pack};

/// The variables that name the case and the file of its recording.
pub(crate) const CASE: &str = "POOLSCOPE_DIAGNOSE_CASE";
pub(crate) const FILE: &str = "POOLSCOPE_DIAGNOSE_FILE";

/// The variable that shortens a run to 40 s.
pub(crate) const SHORT: &str = "POOLSCOPE_DIAGNOSE_SHORT";

/// What is printed when the fault begins.
pub(crate) const FAULT_BEGINS: &str = "the fault begins";

/// The server's slots. All clients are superusers, so that those reserved for superusers count too.
const MAX_CONNECTIONS: usize = 60;

#[test]
#[ignore = "the process of one case, started by the other tests"]
fn runs_one_case() {
    let name = std::env::var(CASE).unwrap();
    let case = cases::all().into_iter().find(|case| case.name == name).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let recorded = runtime.block_on(async { tokio::spawn(run(case)).await.unwrap() });
    fs::write(PathBuf::from(std::env::var_os(FILE).unwrap()), recorded).unwrap();
    // Blocking tasks may still run.
    runtime.shutdown_background();
}

async fn connect(server: &Server, application: &str) -> Client {
    let mut config: Config = server.url().parse().unwrap();
    let (client, connection) = config.application_name(application).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Returns the recording.
async fn run(case: Case) -> Vec<u8> {
    let server = Server::builder().setting("max_connections", MAX_CONNECTIONS.to_string()).tcp(true);
    let server = clock::share(server).start().await.unwrap();
    let admin = connect(&server, "admin").await;
    admin
        .batch_execute("CREATE TABLE stock (id int PRIMARY KEY, n int); INSERT INTO stock VALUES (1, 0)")
        .await
        .unwrap();
    let tcp = server.tcp_url().unwrap();
    let proxy = Proxy::to(tcp.split('@').nth(1).unwrap().split('/').next().unwrap().parse().unwrap()).await;
    let is_proxied = matches!(case.fault, Fault::Unreachable | Fault::Cut);
    let url = if is_proxied { proxy.url(&tcp) } else { server.url() };

    let collector = Collector::new();
    let mut url = format!("{url}?checkout_timeout=2s&pool_size={}&max_overflow={}", case.pool.0, case.pool.1);
    for (name, value) in case.settings {
        url += &format!("&{name}={value}");
    }
    let pool = Pool::builder().url(&url).name("shop").collector(collector.clone()).build().unwrap();
    let recorder = Recorder::start(&collector, "shop", Duration::from_secs(3600)).unwrap();
    tokio::spawn(pool.watch());
    tokio::spawn(pool.watch_server(Duration::from_secs(1)));

    let load_before = load_average();
    let started = std::time::Instant::now();
    let (fault, has_begun) = watch::channel(false);
    for load in &case.loads {
        load.start(&pool, &has_begun);
    }
    let (before, lasts) = match std::env::var_os(SHORT) {
        Some(_) => (6, 34),
        None => (case.before, case.lasts),
    };
    sleep(Duration::from_secs(before)).await;
    let fault_at = started.elapsed().as_secs_f64();
    announce();
    // A client that takes slots is there before the load grows.
    let _injected = inject(case.fault, &server, &proxy, &admin).await;
    fault.send_replace(true);
    sleep(Duration::from_secs(lasts)).await;
    let mut lines = Vec::new();
    recorder.write(&mut lines).unwrap();
    let load = [load_before, load_average()];
    pack(&lines, &Conditions { case: case.name, fault_at, load })
}

#[allow(clippy::print_stdout, reason = "for the parent process")]
fn announce() {
    println!("{FAULT_BEGINS}");
}

/// Injects the fault, and returns what keeps it up.
async fn inject(fault: Fault, server: &Server, proxy: &Proxy, admin: &Client) -> Vec<Client> {
    let mut clients = Vec::new();
    match fault {
        Fault::None | Fault::Throttle { .. } | Fault::Suspend { .. } => {}
        Fault::ClockJump { seconds } => clock::jump(seconds, admin).await,
        Fault::Stop => server.stop(Shutdown::Immediate).await.unwrap(),
        Fault::Restart => server.restart(Shutdown::Fast).await.unwrap(),
        Fault::Cut => proxy.cut(),
        Fault::Unreachable => {
            proxy.refuse();
            proxy.cut();
        }
        Fault::Fill => {
            let mut config: Config = server.url().parse().unwrap();
            config.application_name("nightly");
            fill(&config, &mut clients).await;
            // Connections that the pool closes leave slots.
            tokio::spawn(async move {
                let mut later = Vec::new();
                loop {
                    fill(&config, &mut later).await;
                    sleep(Duration::from_millis(300)).await;
                }
            });
        }
        Fault::SlowConnect { seconds } => {
            let setting = format!("ALTER SYSTEM SET post_auth_delay = '{seconds}s'");
            admin.batch_execute(&setting).await.unwrap();
            admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        }
        Fault::Lock => {
            let client = connect(server, "nightly").await;
            client.batch_execute("BEGIN; UPDATE stock SET n = 0 WHERE id = 1").await.unwrap();
            clients.push(client);
        }
    }
    clients
}

/// Connects until the server refuses.
async fn fill(config: &Config, clients: &mut Vec<Client>) {
    while let Ok((client, connection)) = config.connect(NoTls).await {
        tokio::spawn(connection);
        clients.push(client);
    }
}

/// Returns the machine's load average over a minute; 0 if it is unknown.
fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}
