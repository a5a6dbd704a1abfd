//! What connections cost the process of `poolscope proxy`: descriptors and memory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use poolscope_testing::process::{descriptors, memory_kb};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::proxy::start;
use crate::run::{poolscope, wait_until};

/// `AuthenticationOk`, `BackendKeyData` and `ReadyForQuery`.
const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67\0\0\0\x01Z\0\0\0\x05I";

/// `CommandComplete` and `ReadyForQuery`.
const ANSWER: &[u8] = b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";

const QUERY: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// Starts a server that accepts each client, and answers each query alike. A real one needs a process for each.
fn server(runtime: &Runtime) -> u16 {
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("to listen");
    let port = listener.local_addr().expect("an address").port();
    runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 256];
                let mut answer = READY;
                while stream.read(&mut bytes).await.is_ok_and(|length| length > 0 && !bytes.starts_with(TERMINATE)) {
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                    answer = ANSWER;
                }
            });
        }
    });
    port
}

/// Connects, and runs a query.
async fn connect(proxy: SocketAddr) -> TcpStream {
    let parameters = b"\0\x03\0\0user\0app\0database\0shop\0application_name\0api\0\0";
    let length = u32::try_from(parameters.len() + 4).expect("a short message");
    let mut stream = TcpStream::connect(proxy).await.expect("to connect");
    let mut exchange = async |sent: &[u8], length: usize| {
        stream.write_all(sent).await.expect("to write");
        stream.read_exact(&mut vec![0; length]).await.expect("an answer");
    };
    exchange(&[&length.to_be_bytes()[..], parameters].concat(), READY.len()).await;
    exchange(QUERY, ANSWER.len()).await;
    stream
}

#[test]
#[cfg(target_os = "linux")]
fn idle_connection_takes_at_most_16_kib() {
    const CONNECTIONS: u64 = 300;
    let runtime = Runtime::new().expect("a runtime");
    let (run, proxy, _) = start(&mut poolscope(&["proxy"]), server(&runtime));
    let mut open = Vec::new();
    // The first ones allocate what they share.
    for _ in 0..50 {
        open.push(runtime.block_on(connect(proxy)));
    }
    let before = memory_kb(run.pid()).expect("a process");
    for _ in 0..CONNECTIONS {
        open.push(runtime.block_on(connect(proxy)));
    }
    let after = memory_kb(run.pid()).expect("a process");
    let each = (after - before) as f64 / CONNECTIONS as f64;
    println!("{each:.1} KiB for each connection");
    assert!(each <= 16.0, "{each:.1} KiB for each connection");
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_connections_leave_nothing_behind() {
    let runtime = Runtime::new().expect("a runtime");
    let (run, proxy, exporter) = start(&mut poolscope(&["proxy"]), server(&runtime));
    let connect_all = |number: usize| {
        runtime.block_on(async {
            let connecting = async |tasks: usize| {
                for place in 0..number / tasks {
                    let mut stream = connect(proxy).await;
                    // A half of the clients closes without an end of its session.
                    if place % 2 == 0 {
                        let _ = stream.write_all(TERMINATE).await;
                    }
                }
            };
            futures_util::future::join_all((0..20).map(|_| connecting(20))).await;
        });
        wait_until("the ends", || {
            let (_, page) = poolscope_testing::http::get(exporter, "/metrics").expect("a page");
            let scrape = poolscope_testing::scrape::Scrape::parse(&page);
            let sum = |name| scrape.sum(name, &[("db_client_connection_pool_name", "api app@shop")]);
            sum("poolscope_connections_created_total") > 0.5
                && (sum("poolscope_connections_created_total") - sum("poolscope_connections_closed_total")).abs() < 0.5
        });
    };
    connect_all(2000);
    wait_until("the first descriptors' end", || descriptors(run.pid()) < 40);
    let (open, used) = (descriptors(run.pid()), memory_kb(run.pid()).expect("a process"));
    connect_all(8000);
    // But for those of a scrape.
    wait_until("the descriptors' end", || descriptors(run.pid()) <= open + 5);
    let grown = memory_kb(run.pid()).expect("a process").saturating_sub(used);
    println!("{grown} KiB more");
    // Even a hundred bytes for each would be 820 KiB, but an allocator's reserves vary.
    assert!(grown < 4096, "{used} KiB and {grown} KiB more");
    let (_, page) = poolscope_testing::http::get(exporter, "/metrics").expect("a page");
    let scrape = poolscope_testing::scrape::Scrape::parse(&page);
    let closed = |reason| scrape.sum("poolscope_connections_closed_total", &[("reason", reason)]);
    assert_eq!((closed("client_closed"), closed("client_lost")), (5000.0, 5000.0));
}

#[test]
#[cfg(target_os = "linux")]
fn soft_limit_of_open_files_is_raised() {
    let runtime = Runtime::new().expect("a runtime");
    let mut command = Command::new("sh");
    let proxy = poolscope(&["proxy"]);
    command.args(["-c", "ulimit -S -n 100; exec \"$0\" \"$@\""]).arg(proxy.get_program()).args(proxy.get_args());
    let (run, _, _) = start(&mut command, server(&runtime));
    let limits = fs::read_to_string(format!("/proc/{}/limits", run.pid())).expect("the limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the limit");
    let [soft, hard, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert!(soft == hard && soft != "100", "{line}");
}
