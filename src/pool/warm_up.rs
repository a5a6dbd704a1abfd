//! Opens connections ahead of their first use.

use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

use super::backend::Backend;
use super::checkout::AtGate;
use super::pool::Pool;
use crate::error::CheckoutError;
use crate::labels::ConnectFailure;

/// The name of the operation of the checkouts.
const OPERATION: &str = "warm_up";

/// The longest pause before a connect, drawn at random: the processes of a deployment do not connect in step.
const MAX_PAUSE: Duration = Duration::from_millis(100);

impl<M: Backend> Pool<M> {
    /// Opens connections until the pool has [`min_idle`](crate::Settings::min_idle) of them, so that the first requests
    /// need not connect. Call it before the service reports that it is ready.
    ///
    /// It opens one connection at a time, after a random pause of up to 0.1 s: a deployment of many processes does not
    /// connect all at once. The limits of the gate apply, so while the server refuses connections it waits. It ends early
    /// when other checkouts wait for capacity, and with nothing to do if enough connections exist. Its checkouts are those
    /// of the operation `warm_up`. Connections that are closed later are not replaced before they are needed.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = poolscope::Pool::builder().url("postgres://app@localhost/shop").pool_size(5).min_idle(3).build()?;
    /// pool.warm_up().await?;
    /// assert!(pool.status().idle >= 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if connecting still fails after `checkout_timeout`, at once if the credentials or the configuration
    /// have to be changed, or if the pool is closed. The connections that were opened stay in the pool.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connections that were opened stay in the pool.
    #[track_caller]
    pub fn warm_up(&self) -> impl Future<Output = Result<(), CheckoutError<M::Error>>> + Send {
        let call_site = Location::caller();
        async move {
            let (recorder, wanted) = (&self.shared().recorder, self.shared().settings.min_idle);
            let (operation, site) = (recorder.operation(OPERATION), recorder.site(call_site));
            let deadline = Instant::now() + self.shared().settings.checkout_timeout;
            // Held until all are open, or the next checkout would take an idle one again.
            let mut held = Vec::new();
            loop {
                let status = self.status();
                if status.live() - status.closing >= wanted || status.waiting > 0 {
                    return Ok(());
                }
                if status.idle == 0 {
                    tokio::time::sleep(MAX_PAUSE.mul_f64(fastrand::f64())).await;
                }
                match self.checkout(operation, call_site, site, AtGate::Waits).await {
                    Ok(connection) => held.push(connection),
                    // The next checkout waits at the gate until another attempt is due.
                    Err(CheckoutError::Connect { source, .. })
                        if M::connect_failure(&source) != ConnectFailure::Configuration
                            && Instant::now() < deadline => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}
