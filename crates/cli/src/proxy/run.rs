//! Runs the proxy with an exporter.

use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use poolscope::Collector;
use poolscope::exporter::{Exporter, Readiness};
use poolscope::otlp::Pipeline;
use poolscope::proxy::{Proxy, Settings};
use tokio::sync::{oneshot, watch};

use super::error::ProxyCommandError;
use crate::output::Console;
use crate::service::{
    ExporterTask, FLUSH_TIMEOUT, Incidents, RecordSettings, SHUTDOWN_TIMEOUT, ServiceError, ServiceManager,
    WebSettings, run, shutdown_requested, watch_signals,
};

/// The proxy and its exporter.
#[derive(Debug)]
pub(crate) struct ProxyCommand {
    /// The settings of the proxy.
    pub(crate) settings: Settings,
    /// The exporter's listener and web configuration.
    pub(crate) web: WebSettings,
    /// Where incident files are written, if they are.
    pub(crate) record: RecordSettings,
    /// The exporter of spans, if they are exported.
    pub(crate) traces: Option<Pipeline>,
}

/// Raises the soft limit of open files to the hard one. Each client takes two, and the usual soft limit is 1024 for the sake of
/// programs that call `select`.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where the hard limit is more than the system has, the soft one stays.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

impl ProxyCommand {
    /// Serves clients until a signal arrives, and then until their transactions have ended. Prints the addresses once it
    /// serves.
    ///
    /// An unreachable server is not an error: clients receive one.
    ///
    /// # Errors
    ///
    /// Returns an error if the proxy or the exporter cannot start, or the exporter stops serving. A signal is not an error.
    pub(crate) fn run(self, console: &Console) -> Result<(), ProxyCommandError> {
        raise_open_files();
        run(self.run_async(console))
    }

    async fn run_async(self, console: &Console) -> Result<(), ProxyCommandError> {
        let Self { mut settings, web, record, traces } = self;
        settings.threads = thread::available_parallelism().map_or(1, Into::into);
        let (request_shutdown, mut shutdown) = watch::channel(None);
        watch_signals(request_shutdown.clone(), settings.drain_timeout + SHUTDOWN_TIMEOUT)?;
        let manager = ServiceManager::from_env()?;

        let collector = Collector::new();
        let incidents = Incidents::start(record, &collector)?;
        let listen: Vec<_> = settings.listen.iter().map(ToString::to_string).collect();
        let upstream = settings.upstream.to_string();
        let proxy = Proxy::bind(settings, &collector).await?;
        // A free port is known only now.
        let bound = proxy.tcp_addresses().into_iter().map(|address| address.to_string());
        let unix = listen.into_iter().filter(|address| address.starts_with('/'));
        let addresses: Vec<_> = bound.chain(unix).collect();

        let readiness = Readiness::new();
        let registry = console.registry().map_err(ServiceError::system)?;
        let exporter = Exporter::new(collector).registry(registry).readiness(readiness.clone());
        let exporter = ExporterTask::start(web, incidents.enable(exporter), request_shutdown).await?;
        let (drain, begin_drain) = oneshot::channel::<()>();
        let proxy = tokio::spawn(proxy.run(async { drop(begin_drain.await) }));
        readiness.ready();
        let watchdog = manager.ready();
        console.print(format!(
            "poolscope {} forwards {} to {upstream} and serves {}/metrics\n",
            env!("CARGO_PKG_VERSION"),
            addresses.join(", "),
            exporter.url()
        ));

        let reason = shutdown_requested(&mut shutdown).await;
        tracing::info!(?reason, "shutting down when the open transactions have ended");
        readiness.not_ready("poolscope is shutting down");
        manager.stopping();
        // The metrics are served until the last session has ended.
        let _ = drain.send(());
        proxy.await.map_err(ServiceError::system)?;
        drop(watchdog);
        incidents.finish().await;
        if let Some(traces) = traces {
            traces.shutdown(FLUSH_TIMEOUT).await;
        }
        Ok(exporter.stop().await?)
    }
}
