//! Compiles all code, and runs the programs of README.md against a private server.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use poolscope_testing::ports::ReservedPort;
use poolscope_testing::server::Server;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::crates::Crates;

/// Ends the program with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Reads lines of its output until one contains `part`.
    fn await_output(&mut self, part: &str) {
        let stdout = self.0.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "no output {part:?}");
        }
        self.0.stdout = Some(lines.into_inner());
    }
}

fn execute(runtime: &Runtime, server: &Server, statements: &str) {
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(statements).await.unwrap();
    });
}

fn get(address: SocketAddr, path: &str) -> String {
    let started = Instant::now();
    loop {
        if let Ok(mut stream) = TcpStream::connect(address) {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).unwrap();
            return response;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "nothing listens at {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The service that docs/migration.md describes, before and after.
const SERVICE: [(&str, &str, &str); 2] = [
    (
        "service-before",
        include_str!("service/before.rs"),
        "bytes = \"1\"\ndeadpool-postgres = { version = \"0.14\", features = [\"rt_tokio_1\"] }\nfutures-util = { version = \"0.3\", \
         features = [\"sink\"] }\ntokio = { version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }\ntokio-postgres = \"0.7\"\n",
    ),
    (
        "service-after",
        include_str!("service/after.rs"),
        "bytes = \"1\"\nfutures-util = { version = \"0.3\", features = [\"sink\"] }\npoolscope = \"0.1\"\n\
         tokio = { version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }\n",
    ),
];

/// Returns how many lines of `before` are not in `after`.
fn changed_lines(before: &str, after: &str) -> usize {
    before.lines().filter(|line| !line.is_empty() && !after.lines().any(|other| other == *line)).count()
}

/// Runs the service of a fresh crate against a server. Returns its output.
fn run_service(crates: &Crates, name: &str, server: &Server) -> String {
    crates.cargo(&["build", "-p", name]).unwrap();
    let output = Command::new(crates.executable(name)).env("DATABASE_URL", server.url()).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Addresses are replaced by those of the test; everything else is compiled as it is written.
#[test]
fn every_block_compiles_and_readme_programs_run() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(async { Server::builder().start().await.unwrap() });
    execute(&runtime, &server, "CREATE TABLE orders (id bigint, paid bool); INSERT INTO orders VALUES (1), (2)");
    let port = ReservedPort::new().unwrap();
    let address = port.address();
    let crates = Crates::write(|code| {
        code.replace("postgres://app@localhost/shop", &server.url())
            .replace("127.0.0.1:3000", &address.to_string())
            .replace("{DEFAULT_ADDRESS, Exporter}", "Exporter")
            .replace("DEFAULT_ADDRESS", "\"127.0.0.1:0\"")
    });
    let names: Vec<_> = crates.names().collect();
    assert!(names.len() > 5, "{names:?}");
    // One after the other: cargo unifies the features of packages that are built together.
    let failures: Vec<_> = names.iter().filter_map(|name| crates.cargo(&["build", "-p", name]).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let mut ran = Vec::new();
    for (name, program) in crates.programs() {
        let mut command = Command::new(crates.executable(program));
        let command = command.stdout(Stdio::piped()).env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
        let mut running = Program(command.spawn().unwrap());
        let code = crates.code(name, program);
        if code.contains("axum::serve") {
            let response = get(address, "/orders/1");
            assert!(response.contains("200 OK") && response.ends_with("order 1"), "{response}");
            assert!(response.to_lowercase().contains("server-timing: pool-wait"), "{response}");
            ran.push("axum");
        } else if code.contains(".listen(") {
            running.await_output("read the current state");
            execute(&runtime, &server, "NOTIFY orders, '1'");
            running.await_output("1 paid");
            ran.push("notifications");
        } else {
            let library = code.contains("Exporter::new");
            if library {
                running.await_output("connected to PostgreSQL");
                running.await_output("2 orders");
            }
            assert!(running.0.wait().unwrap().success(), "{name}/{program}");
            ran.push(if library { "library" } else { "traces" });
        }
    }
    assert_eq!(ran.len(), 4, "{ran:?}");
}

/// The service that docs/migration.md names is the same after its steps.
#[test]
fn migrated_service_has_the_same_output() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(async { Server::builder().start().await.unwrap() });
    let mut crates = Crates::new("service");
    for (name, code, dependencies) in SERVICE {
        crates.add(name, dependencies, code);
    }
    let [before, after] = SERVICE.map(|(name, ..)| run_service(&crates, name, &server));
    let expected = "imported 2 accounts\naccount 2 has 800\ntransferred Some(\"1 to 2\")\ntotal 1200\n1,400\n2,800\n";
    assert_eq!((&*before, &*after), (expected, expected));
    let changed = changed_lines(SERVICE[0].1, SERVICE[1].1);
    assert!(changed <= 25, "the guide says that about 20 lines change, and {changed} do");
}
