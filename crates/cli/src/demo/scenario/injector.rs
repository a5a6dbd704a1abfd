//! Injects and removes the fault of a scenario.

use std::sync::Arc;

use poolscope_testing::server::Server;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::ScenarioPlan;
use super::cache_fault::InjectedCacheFault;
use super::server_fault::Injected;
use crate::demo::cache::ProductCache;
use crate::demo::client::ClientControl;
use crate::demo::drain::DrainState;
use crate::demo::schema::SchemaManager;
use crate::demo::shop::Handlers;
use crate::demo::workload::Load;
use poolscope::text::ErrorChain;

/// The progress of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Phase {
    /// Before the fault, or without one.
    Normal,
    /// The fault is present.
    Fault,
    /// The fault is removed.
    Recovered,
}

/// The components that a fault changes.
#[derive(Clone, Debug)]
pub(in crate::demo) struct Targets {
    pub(in crate::demo) shop: Arc<Handlers>,
    pub(in crate::demo) load: watch::Sender<&'static Load>,
    pub(in crate::demo) schema: Arc<SchemaManager>,
    /// The private server; `None` with a server that the user named.
    pub(in crate::demo) server: Option<Arc<Server>>,
    /// The cache, with `--cache`.
    pub(in crate::demo) cache: Option<ProductCache>,
    /// The client with `--client`, which has the fault instead of the shop.
    pub(in crate::demo) client: Option<ClientControl>,
}

/// Injects and removes a fault, until [`stop`](Self::stop).
#[derive(Debug)]
pub(in crate::demo) struct FaultInjector {
    phase: watch::Receiver<Phase>,
    state: watch::Sender<DrainState>,
    task: JoinHandle<()>,
}

impl FaultInjector {
    /// Starts the scenario.
    pub(in crate::demo) fn start(plan: ScenarioPlan, targets: Targets) -> Self {
        let (phase_sender, phase) = watch::channel(Phase::Normal);
        let (state, state_receiver) = watch::channel(DrainState::Running);
        targets.shop.set_behavior(plan.scenario.behavior);
        Self { phase, state, task: tokio::spawn(run(plan, targets, phase_sender, state_receiver)) }
    }

    /// Returns the progress.
    pub(in crate::demo) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// Removes what would delay the shutdown: leaked connections, taken slots and locks. A stopped server is not started.
    pub(in crate::demo) async fn stop(self) {
        self.state.send_replace(DrainState::Aborted);
        let _ = self.task.await;
    }
}

async fn run(
    plan: ScenarioPlan,
    targets: Targets,
    phase: watch::Sender<Phase>,
    mut state: watch::Receiver<DrainState>,
) {
    let scenario = plan.scenario;
    let (Some(fault), Some((after, lasts))) = (&scenario.fault, plan.fault_timing()) else { return };
    tokio::select! {
        () = DrainState::Aborted.reached(&mut state) => return,
        () = sleep(after) => {}
    }
    let cache_fault = fault.cache.inject(targets.cache.as_ref()).await.unwrap_or_else(|error| {
        tracing::error!(error = %ErrorChain(&error), "cannot inject the scenario's fault");
        InjectedCacheFault::None
    });
    let injected = fault.server.inject(targets.server.as_ref(), &targets.schema).await.unwrap_or_else(|error| {
        tracing::error!(error = %ErrorChain(&error), "cannot inject the scenario's fault");
        Injected::None
    });
    match &targets.client {
        Some(client) => client.set_fault(Some(scenario.name)),
        None => {
            targets.shop.set_behavior(fault.behavior);
            targets.load.send_replace(fault.load);
        }
    }
    phase.send_replace(Phase::Fault);
    let is_shutdown = tokio::select! {
        () = DrainState::Aborted.reached(&mut state) => true,
        () = async {
            match lasts {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        } => false,
    };
    match &targets.client {
        Some(client) => client.set_fault(None),
        None => {
            targets.shop.set_behavior(scenario.behavior);
            targets.load.send_replace(scenario.load);
        }
    }
    // The server would be stopped again at once.
    if is_shutdown && matches!(injected, Injected::Stopped(_)) {
        return;
    }
    if is_shutdown && matches!(cache_fault, InjectedCacheFault::Down(_)) {
        return;
    }
    if let Err(error) = injected.remove().await.and(cache_fault.remove().await) {
        tracing::error!(error = %ErrorChain(&error), "cannot remove the scenario's fault");
    }
    phase.send_replace(Phase::Recovered);
}
