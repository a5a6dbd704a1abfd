//! Nothing that a command prints, serves or exports contains a secret that it was given.
//!
//! Statements, parameters and rows are searched for in the library's test `privacy`, since the demo has statements of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use nix::sys::signal::Signal;
use poolscope_testing::otlp::Receiver;
use poolscope_testing::server::Server;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::run::{Output, Run, demo, poolscope, run_to_end, start, wait_until};

/// Part of each secret, in any case.
const CANARY: &str = "canary";

/// `prometheus:canary-basic`, the password of the web configuration, in Base64.
const CREDENTIALS: &str = "cHJvbWV0aGV1czpjYW5hcnktYmFzaWM=";

/// Secrets in variables, of which some are none of poolscope's.
const VARIABLES: [(&str, &str); 7] = [
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary-header,x-tenant=canary-tenant"),
    ("POOLSCOPE_WEB_PASSWORD", "canary-web"),
    ("PGPASSWORD", "canary-pgpassword"),
    ("PGPASSFILE", "/nowhere/canary-passfile"),
    ("AWS_SECRET_ACCESS_KEY", "canary-aws"),
    ("DATABASE_URL", "postgres://u:canary-other@h/d"),
    ("RUST_LOG", "trace"),
];

/// Files with secrets.
struct Files(TempDir);

impl Files {
    fn new(url: &str) -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let hash = bcrypt::hash("canary-basic", 4).expect("a hash");
        files.write("server.crt", &signed.cert.pem());
        files.write("server.key", &signed.signing_key.serialize_pem());
        files.write("web.yml", &format!("basic_auth_users: {{prometheus: '{hash}'}}\n"));
        files.write("password", "canary-file\n");
        files.write("url", &format!("{}\n", with_secrets(url)));
        files.write(
            "poolscope.toml",
            &format!(
                "probe_interval = '1s'\n[databases.url]\ndatabase_url = \"{}\"\n[databases.filed]\ndatabase_url_file = \
                 'url'\n[databases.password]\ndatabase_url = '{url}'\npassword_file = '{}'\n[databases.refused]\n\
                 database_url = 'postgres://u:canary-refused@127.0.0.1:1/d'\n",
                with_secrets(url),
                files.path("password"),
            ),
        );
        files
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.path().join(name), content).expect("a file");
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a path").to_owned()
    }

    /// Returns what must not be shown: the canary, the credentials, the hash, and a line of the private key.
    fn secrets(&self) -> Vec<String> {
        let key = fs::read_to_string(self.path("server.key")).expect("a key");
        let web = fs::read_to_string(self.path("web.yml")).expect("a configuration");
        let hash = web.split('\'').nth(1).expect("a hash");
        let line = key.lines().nth(1).expect("a line");
        [CANARY, CREDENTIALS, hash, line].map(str::to_owned).into()
    }
}

/// Returns a URL with a password that the server does not request, and with an option of the session.
fn with_secrets(url: &str) -> String {
    let url = url.replacen("postgres@", "postgres:canary-url@", 1);
    format!("{url}?options=-c%20app.token%3Dcanary-option")
}

/// Sends a request with the password of the web configuration, and returns the whole response.
fn get(address: SocketAddr, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nAuthorization: Basic {CREDENTIALS}\r\nAccept: {accept}\r\nCookie: canary-cookie\r\n\r\n"
    )
    .expect("a request");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("a response");
    String::from_utf8_lossy(&response).into_owned()
}

/// Requests all that an exporter serves.
fn responses(address: SocketAddr) -> Vec<(String, String)> {
    let paths = ["/", "/metrics", "/api/v1/pools", "/runbooks/", "/-/healthy", "/-/ready", "/canary-path"];
    let requests = paths.into_iter().flat_map(|path| {
        ["*/*", "application/openmetrics-text; version=1.0.0", "application/json"].map(|accept| (path, accept))
    });
    let mut responses: Vec<_> = requests.map(|(path, accept)| (path.to_owned(), get(address, path, accept))).collect();
    assert!(responses.iter().any(|(_, response)| response.contains("db_client_connection_count")), "{responses:?}");
    let unauthorized = poolscope_testing::http::get(address, "/metrics").expect("a response");
    assert_eq!(unauthorized.0, 401);
    responses.push(("401".to_owned(), unauthorized.1));
    responses
}

/// Asserts that none of these texts, each with its name, has a secret.
#[track_caller]
fn assert_no_secret(texts: &[(String, String)], secrets: &[String]) {
    for (name, text) in texts {
        for secret in secrets {
            let found = text.to_lowercase().find(&secret.to_lowercase());
            if let Some(at) = found {
                let (from, to) = (at.saturating_sub(200), (at + 200).min(text.len()));
                let around = String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned();
                panic!("{name} contains {secret}: {around}");
            }
        }
    }
}

fn server() -> (Runtime, Server) {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::builder().start()).expect("a server");
    (runtime, server)
}

/// Adds what a run has printed.
fn printed(name: &str, Output { out, err, .. }: Output, texts: &mut Vec<(String, String)>) {
    texts.push((format!("{name}, standard output"), out));
    texts.push((format!("{name}, standard error"), err));
}

#[test]
fn demo_shows_and_exports_no_secret() {
    let (_runtime, server) = server();
    let files = Files::new(&server.url());
    let receiver = Receiver::http();
    let mut texts = Vec::new();
    for format in ["text", "json"] {
        let (url, web) = (with_secrets(&server.url()), files.path("web.yml"));
        let arguments = ["--database-url", &url, "--web.config.file", &web, "--log.format", format];
        let mut command = demo(&arguments);
        command.args(["--otlp.endpoint", &receiver.endpoint()]).envs(VARIABLES).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        let mut demo = start(&mut command);
        texts.extend(responses(demo.address));
        let spans =
            receiver.spans_when("spans with queries", |spans| spans.iter().any(|span| span.name.contains("orders")));
        texts.push(("spans".to_owned(), format!("{spans:?}")));
        demo.run.signal(Signal::SIGTERM);
        assert_eq!(demo.run.wait().code(), Some(0));
        let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
        assert!(err.contains("DEBUG") && demo.banner.contains("postgres://postgres:***@"), "{}", demo.banner);
        printed("demo", Output { code: None, out: demo.banner.clone() + &out, err }, &mut texts);
    }
    // The headers were sent, so that what was searched for was there.
    assert!(receiver.requests().iter().any(|headers| format!("{headers:?}").contains("canary-header")));
    assert_no_secret(&texts, &files.secrets());
}

#[test]
fn private_server_of_the_demo_gets_no_secret() {
    let mut command = demo(&[]);
    let demo = start(command.envs(VARIABLES));
    let pid = Path::new(demo.sockets()).with_file_name("data").join("postmaster.pid");
    let pid = fs::read_to_string(pid).expect("its process id");
    let pid = pid.lines().next().expect("a line");
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    assert!(!environment.is_empty());
    let texts = [("environment".to_owned(), String::from_utf8_lossy(&environment).into_owned())];
    assert_no_secret(&texts, &[CANARY.to_owned()]);
}

#[test]
fn other_commands_show_and_export_no_secret() {
    let (_runtime, server) = server();
    let files = Files::new(&server.url());
    let receiver = Receiver::http();
    let (config, web) = (files.path("poolscope.toml"), files.path("web.yml"));
    let mut texts = Vec::new();
    for format in ["text", "json"] {
        let mut command = poolscope(&["serve", "--config", &config, "--web.config.file", &web]);
        command.args(["--web.listen-address", "127.0.0.1:0", "--log.format", format]);
        command.args(["--otlp.endpoint", &receiver.endpoint()]).envs(VARIABLES).env("OTEL_BSP_SCHEDULE_DELAY", "100");
        let mut run = Run::start(&mut command);
        let line = run.line_containing(" serves http://");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        let address = address.parse().expect("an address");
        wait_until("probes of each database", || {
            let page = get(address, "/metrics", "*/*");
            let has = |pool: &str, outcome: &str| {
                let labels =
                    format!("{{db_client_connection_pool_name=\"{pool}\",operation=\"probe\",outcome=\"{outcome}\"}}");
                page.lines().any(|line| {
                    line.starts_with(&format!("poolscope_checkouts_total{labels} ")) && !line.ends_with(" 0")
                })
            };
            ["url", "filed", "password"].iter().all(|pool| has(pool, "ok")) && has("refused", "error")
        });
        texts.extend(responses(address));
        for (command, path) in [("healthy", ""), ("diagnose", ""), ("healthy", "/canary-path")] {
            for user in ["prometheus", "canary-user"] {
                let url = format!("http://{address}{path}");
                let mut command_line = poolscope(&[command, &url, "--user", user, "--timeout", "30s"]);
                command_line.envs(VARIABLES);
                let mut output = run_to_end(command_line);
                // The user and the path are not secret.
                for text in [&mut output.out, &mut output.err] {
                    *text = text.replace("canary-user", "").replace("canary-path", "");
                }
                printed(command, output, &mut texts);
            }
        }
        run.signal(Signal::SIGTERM);
        assert_eq!(run.wait().code(), Some(0));
        let (out, err) = (line + &run.remaining_output(), run.stderr());
        printed("serve", Output { code: None, out, err }, &mut texts);
    }
    texts.push(("spans".to_owned(), format!("{:?}", receiver.spans())));
    for arguments in
        [&["check", "--config", &config, "--web.config.file", &web][..], &["check", "--config", &config, "--connect"]]
    {
        let mut command = poolscope(arguments);
        command.envs(VARIABLES);
        let output = run_to_end(command);
        assert!(output.out.contains("postgres://postgres:***@"), "{}{}", output.out, output.err);
        printed("check", output, &mut texts);
    }
    // Values in wrong places.
    let wrong = [
        "postgres://u:canary-p%ZZ@h/d",
        "postgres://u:canary@p@h/d",
        "canary-p://u:canary@h",
        "postgres://h/d?password=canary&x=y",
    ];
    for url in wrong {
        let config = Path::new(&config).with_file_name("wrong.toml");
        fs::write(&config, format!("[databases.wrong]\ndatabase_url = '{url}'\n")).expect("a file");
        for arguments in
            [&["check", "--config", config.to_str().expect("a path")][..], &["demo", "--database-url", url]]
        {
            let output = run_to_end(poolscope(arguments));
            assert_eq!(output.code, Some(2), "{arguments:?}: {}{}", output.out, output.err);
            printed(url, output, &mut texts);
        }
    }
    assert_no_secret(&texts, &files.secrets());
}
