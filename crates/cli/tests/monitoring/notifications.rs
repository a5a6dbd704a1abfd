//! Receives the notifications of a real Alertmanager with the shipped configuration.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use poolscope_testing::server_process::ServerProcess;
use serde_json::Value;

use crate::tools::at;

/// The receivers of the shipped configuration.
const RECEIVERS: &str = "http://127.0.0.1:9095/";

/// A webhook that keeps what it receives.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let webhook = Self { address: listener.local_addr().expect("an address"), received: Arc::default() };
        let received = Arc::clone(&webhook.received);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let notification = receive(stream.expect("a connection"));
                received.lock().expect("a list").push(notification);
            }
        });
        webhook
    }

    /// Returns the notifications about firing alerts of a job, in their order.
    pub(crate) fn firing(&self, job: &str) -> Vec<Value> {
        let received = self.received.lock().expect("a list");
        let firing = received.iter().filter(|notification| notification["status"] == "firing");
        firing.filter(|notification| notification["groupLabels"]["job"] == job).cloned().collect()
    }
}

/// Reads a request, and acknowledges it.
fn receive(stream: TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).expect("a head") > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    reader.into_inner().write_all(response).expect("a response");
    serde_json::from_slice(&body).expect("JSON")
}

/// Returns the shipped configuration with this webhook as its receivers, and waits fifteen times as short.
pub(crate) fn configuration(webhook: &Webhook) -> String {
    let mut shipped = fs::read_to_string(at("alerts/alertmanager.yml")).expect("the configuration");
    for (from, to) in [
        (RECEIVERS, &*format!("http://{}/", webhook.address)),
        ("group_wait: 30s", "group_wait: 2s"),
        ("group_wait: 10s", "group_wait: 1s"),
        ("group_wait: 2m", "group_wait: 8s"),
        ("group_interval: 5m", "group_interval: 20s"),
    ] {
        assert!(shipped.contains(from), "{from}");
        shipped = shipped.replace(from, to);
    }
    shipped
}

/// Starts Alertmanager.
pub(crate) async fn alertmanager(configuration: &str) -> ServerProcess {
    ServerProcess::start("alertmanager", &[("alertmanager.yml", configuration)], arguments).await
}

/// Adds firing alerts, as Prometheus does.
pub(crate) fn add_alerts(alertmanager: &ServerProcess, alerts: &Value) {
    let (mut stream, body) = (TcpStream::connect(alertmanager.address()).expect("a connection"), alerts.to_string());
    let head = "POST /api/v2/alerts HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).expect("a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

fn arguments(directory: &Path, address: SocketAddr) -> Vec<String> {
    vec![
        format!("--config.file={}", directory.join("alertmanager.yml").display()),
        format!("--storage.path={}", directory.join("data").display()),
        format!("--web.listen-address={address}"),
        "--cluster.listen-address=".to_owned(),
    ]
}
