//! Compares `pgbench -S` directly, through a TCP proxy that only copies, through PgBouncer in session mode, and through
//! the proxy of the library, each in a process of its own. Also measures the memory of an idle connection.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a program for measurements")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use poolscope::Collector;
use poolscope::exporter::Exporter;
use poolscope::proxy::{Proxy, Settings};
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::server::Server;
use tokio::net::TcpStream;

/// The numbers of clients, the seconds of each run, and the number of runs, of which the median counts.
const CLIENTS: [usize; 3] = [1, 16, 64];
const SECONDS: usize = 5;
const RUNS: usize = 3;

/// The idle connections whose memory is measured.
const IDLE: usize = 500;

/// A process that is killed with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(name: &str) -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = installed.map(|entry| entry.path().join("bin").join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| name.into())
}

/// Copies bytes between each client and the server, with the options that every proxy sets.
async fn copy(port: u16, server: u16) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}

fn pgbouncer(port: u16, server: u16, directory: &Path) -> Process {
    let file = directory.join("pgbouncer.ini");
    // It refuses to run as root.
    let user = if fs::metadata(directory).unwrap().uid() == 0 { "user = nobody\n" } else { "" };
    let text = format!(
        "[databases]\npostgres = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = session\ndefault_pool_size = 600\n\
         max_client_conn = 1000\nignore_startup_parameters = extra_float_digits\n{user}"
    );
    fs::write(&file, text).unwrap();
    let debian = Path::new("/usr/sbin/pgbouncer");
    let mut command = Command::new(if debian.is_file() { debian } else { Path::new("pgbouncer") });
    Process(command.arg("--quiet").arg(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Runs the proxy, with its pools sampled as an exporter does.
async fn proxy(port: u16, server: u16) {
    let mut settings = Settings::new(&format!("postgres://127.0.0.1:{server}?sslmode=disable")).unwrap();
    settings.listen = vec![format!("127.0.0.1:{port}").parse().unwrap()];
    let collector = Collector::new();
    settings.threads = std::thread::available_parallelism().unwrap().into();
    let proxy = Proxy::bind(settings, &collector).await.unwrap();
    let exporter = Exporter::new(collector).bind("127.0.0.1:0").await.unwrap();
    tokio::spawn(exporter.serve(std::future::pending()));
    proxy.run(std::future::pending()).await;
}

/// Starts this program as a proxy of a kind.
fn start(kind: &str, port: u16, server: u16) -> Process {
    let this = std::env::current_exe().unwrap();
    Process(Command::new(this).args([kind, &port.to_string(), &server.to_string()]).spawn().unwrap())
}

/// Runs `pgbench -S`. Returns the transactions per second.
fn pgbench(port: u16, clients: usize) -> f64 {
    let mut command = Command::new(program("pgbench"));
    command.args(["--host=127.0.0.1", "--username=postgres", "--select-only", "--no-vacuum", "--protocol=prepared"]);
    command.args([
        format!("--port={port}"),
        format!("--client={clients}"),
        format!("--time={SECONDS}"),
        "postgres".into(),
    ]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Returns the memory of a process in bytes.
fn memory(process: &Process) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let [_, kind, port, server] = &arguments[..] {
        let (port, server) = (port.parse().unwrap(), server.parse().unwrap());
        match &**kind {
            // On one thread, as PgBouncer: with several, tokio's scheduler costs more than the copying.
            "copy" => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(copy(port, server));
            }
            _ => runtime.block_on(proxy(port, server)),
        }
        return;
    }
    let server = runtime.block_on(Server::builder().setting("max_connections", "700").tcp(true).start()).unwrap();
    let port = server.port();
    let initialized = Command::new(program("pgbench"))
        .args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--initialize",
            "--quiet",
            "--scale=5",
            &format!("--port={port}"),
            "postgres",
        ])
        .output();
    assert!(initialized.unwrap().status.success());

    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let ports = [(); 3].map(|()| ReservedPort::new().unwrap());
    let [copy_port, bouncer_port, proxy_port] = ports.each_ref().map(ReservedPort::number);
    let _copy = start("copy", copy_port, port);
    let _bouncer = pgbouncer(bouncer_port, port, directory.path());
    let proxy = start("proxy", proxy_port, port);
    let ways =
        [("direct", port), ("copying TCP proxy", copy_port), ("PgBouncer", bouncer_port), ("poolscope", proxy_port)];
    for (_, port) in ways {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "nobody listens on {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    println!("| clients | way | queries/s | of direct | time per query, of direct |\n|---|---|---|---|---|");
    for clients in CLIENTS {
        let mut rates = vec![Vec::new(); ways.len()];
        // Alternating, so that a change of the machine's load concerns all of them.
        for _ in 0..RUNS {
            for (rates, (_, port)) in rates.iter_mut().zip(ways) {
                rates.push(pgbench(port, clients));
            }
        }
        let rates: Vec<_> = rates.into_iter().map(median).collect();
        for ((way, _), rate) in ways.iter().zip(&rates) {
            println!("| {clients} | {way} | {rate:.0} | {:.2} | {:.2} |", rate / rates[0], rates[0] / rate);
        }
    }

    let before = memory(&proxy);
    let url = format!("postgres://postgres@127.0.0.1:{proxy_port}/postgres?sslmode=disable");
    let clients = runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..IDLE {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.query("SELECT abalance FROM pgbench_accounts WHERE aid = 1", &[]).await.unwrap();
            clients.push(client);
        }
        clients
    });
    let after = memory(&proxy);
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let each = (after - before) / clients.len() as f64 / 1024.0;
    println!("\nmemory per idle connection: {each:.1} KiB ({IDLE} connections)");
}
