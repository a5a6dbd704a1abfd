//! Plays a scenario.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Play;
use super::act::Deed;
use crate::demo::course::Course;
use crate::demo::schema::Keeper;
use crate::demo::shop::Handlers;
use crate::demo::workload::Load;
use poolscope_testing::server::Server;

/// Where a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Phase {
    /// Before the fault, or without any.
    Calm,
    /// The fault is there.
    Fault,
    /// The fault is gone.
    Over,
}

/// Whom it tells what to do.
#[derive(Clone, Debug)]
pub(in crate::demo) struct Cast {
    pub(in crate::demo) shop: Arc<Handlers>,
    pub(in crate::demo) load: watch::Sender<&'static Load>,
    pub(in crate::demo) keeper: Arc<Keeper>,
    /// `None` where the server is somebody's own.
    pub(in crate::demo) server: Option<Arc<Server>>,
}

/// A scenario that is played, until [`end`](Self::end).
#[derive(Debug)]
pub(in crate::demo) struct Director {
    phase: watch::Receiver<Phase>,
    course: watch::Sender<Course>,
    task: JoinHandle<()>,
}

impl Director {
    /// Plays it from now on.
    pub(in crate::demo) fn start(play: Play, cast: Cast) -> Self {
        let (tell, phase) = watch::channel(Phase::Calm);
        let (course, is_at) = watch::channel(Course::Open);
        cast.shop.behave(play.scenario.manner);
        Self { phase, course, task: tokio::spawn(direct(play, cast, tell, is_at)) }
    }

    /// Where it is.
    pub(in crate::demo) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// Takes back what would hold up the end: connections that were never given back, and what others have taken or
    /// locked. A server that is stopped stays so.
    pub(in crate::demo) async fn end(self) {
        self.course.send_replace(Course::Over);
        let _ = self.task.await;
    }
}

async fn direct(play: Play, cast: Cast, tell: watch::Sender<Phase>, mut course: watch::Receiver<Course>) {
    let scenario = play.scenario;
    let (Some(fault), Some((after, lasts))) = (&scenario.fault, play.fault()) else { return };
    tokio::select! {
        () = Course::Over.reached(&mut course) => return,
        () = sleep(after) => {}
    }
    let deed = fault.act.perform(cast.server.as_ref(), &cast.keeper).await.unwrap_or_else(|error| {
        tracing::error!(%error, cause = cause(&error), "the scenario's fault cannot be brought about");
        Deed::Nothing
    });
    cast.shop.behave(fault.manner);
    cast.load.send_replace(fault.load);
    tell.send_replace(Phase::Fault);
    let ends = tokio::select! {
        () = Course::Over.reached(&mut course) => true,
        () = async {
            match lasts {
                Some(time) => sleep(time).await,
                None => std::future::pending().await,
            }
        } => false,
    };
    cast.shop.behave(scenario.manner);
    cast.load.send_replace(scenario.load);
    // It would be stopped again in a moment.
    if ends && matches!(deed, Deed::Stopped(_)) {
        return;
    }
    if let Err(error) = deed.undo().await {
        tracing::error!(%error, cause = cause(&error), "the scenario's fault cannot be undone");
    }
    tell.send_replace(Phase::Over);
}

/// What is behind an error, on one line.
fn cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
