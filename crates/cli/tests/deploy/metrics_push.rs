//! The push of metrics to a real OpenTelemetry collector, [Rotel](https://rotel.dev), which passes them on.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use poolscope::otlp::{MetricsExport, Protocol, Settings};
use poolscope::{Collector, Pool};
use poolscope_testing::otlp::Receiver;
use poolscope_testing::ports::ReservedPort;
use poolscope_testing::server_process::{Readiness, ServerProcess};

use crate::tools::{checker, run_successfully};

/// Returns the collector's program, which is part of a Python package.
fn agent() -> PathBuf {
    let directory = run_successfully(checker("python").args(["-c", "import rotel; print(rotel.__path__[0])"]));
    let agent = PathBuf::from(directory.trim()).join("rotel-agent");
    let mut permissions = agent.metadata().unwrap().permissions();
    permissions.set_mode(0o755);
    std::fs::set_permissions(&agent, permissions).unwrap();
    agent
}

/// Starts a collector that receives over gRPC and HTTP and passes on to `target`. Returns its addresses.
async fn collector(target: &Receiver) -> ((ServerProcess, ReservedPort), [SocketAddr; 2]) {
    let (agent, port) = (agent().display().to_string(), ReservedPort::new().unwrap());
    let http = port.address();
    let process = ServerProcess::start_until(Readiness::Listening, &agent, &[], |_, grpc| {
        let values = [
            ("--otlp-grpc-endpoint", grpc.to_string()),
            ("--otlp-http-endpoint", http.to_string()),
            ("--exporter", "otlp".to_owned()),
            ("--otlp-exporter-endpoint", target.endpoint()),
            ("--batch-timeout", "50ms".to_owned()),
        ];
        let options = values.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once("start".to_owned()).chain(options).collect()
    })
    .await;
    let grpc = process.address();
    ((process, port), [grpc, http])
}

#[tokio::test(flavor = "multi_thread")]
async fn real_collector_accepts_every_metric() {
    let target = Receiver::grpc();
    let (_process, [grpc, http]) = collector(&target).await;
    let registry = Collector::new();
    let builder = Pool::builder().url("postgres://app@127.0.0.1:1/shop").name("shop").collector(registry.clone());
    let pool = builder.pool_size(3).max_overflow(1).build().unwrap();
    for failures in 1..=3 {
        pool.operation("list").get().await.unwrap_err();
        let (protocol, endpoint, gzip) = match failures {
            1 => (Protocol::Grpc, format!("http://{grpc}"), false),
            2 => (Protocol::HttpProtobuf, format!("http://{http}/v1/metrics"), false),
            _ => (Protocol::HttpProtobuf, format!("http://{http}/v1/metrics"), true),
        };
        let mut settings = Settings::new("shop-service");
        (settings.endpoint, settings.protocol, settings.gzip) = (Some(endpoint), protocol, gzip);
        settings.delay = Duration::from_secs(3600);
        let direct = Receiver::grpc();
        let mut to_direct = settings.clone();
        (to_direct.endpoint, to_direct.protocol, to_direct.gzip) = (Some(direct.endpoint()), Protocol::Grpc, false);
        let received = target.metrics_requests();
        for settings in [&settings, &to_direct] {
            let export = MetricsExport::start(settings, registry.clone()).unwrap();
            export.shutdown(Duration::from_secs(30)).await;
        }

        // The same as without the collector, but for the time of the export, and values that depend on it.
        let shown = |receiver: &Receiver, request: usize| {
            let [resource] = &receiver.metrics_after(request).resource_metrics[..] else { panic!("one resource") };
            assert!(format!("{:?}", resource.resource).contains("shop-service"));
            let text = format!("{:#?}", resource.scope_metrics);
            let depends_on_time = |line: &&str| {
                let value = line.trim().trim_end_matches(',');
                line.contains("time_unix_nano") || (value.contains('.') && value.parse::<f64>().is_ok())
            };
            let lines = text.lines().filter(|line| !depends_on_time(line));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let (passed, sent) = (shown(&target, received), shown(&direct, 0));
        assert!(sent.len() > 1000 && sent.iter().any(|line| line.contains("db.client.connection.wait_time")));
        let different = passed.iter().zip(&sent).find(|(passed, sent)| passed != sent);
        assert!(passed.len() == sent.len() && different.is_none(), "{protocol:?}: {different:?}");
        let text = format!("{:#?}", target.metrics_after(received));
        let failed = text.lines().any(|line| line.trim() == format!("{failures}.0,"));
        assert!(failed, "{failures} failed checkouts");
    }
}
