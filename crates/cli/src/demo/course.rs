//! How far the demo's parts have come towards their end.

use tokio::sync::watch;

/// How far a part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Course {
    /// Requests come.
    Open,
    /// None comes any more; those under way go on.
    Closing,
    /// Those under way end, too.
    Over,
}

impl Course {
    /// Waits until it has come so far; or until nobody can tell it any more, which means the same.
    pub(super) async fn reached(self, course: &mut watch::Receiver<Self>) {
        let _ = course.wait_for(|course| *course >= self).await;
    }
}
