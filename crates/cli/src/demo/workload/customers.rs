//! The HTTP client of the workload. It keeps connections alive, as a reverse proxy does.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

use crate::demo::shop::{Endpoint, any_customer, any_product, viewed_product};

/// How long an idle connection is kept; less than the shop's timeout.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The client. Clones share the connections.
#[derive(Clone)]
pub(super) struct Customers {
    client: Client<HttpConnector, Empty<Bytes>>,
    shop: String,
}

impl Customers {
    /// Creates a client for the shop at this URL.
    pub(super) fn new(shop: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self { client, shop }
    }

    /// Sends a request, and reads or cancels its response.
    pub(super) async fn send(&self, endpoint: Endpoint, client_timeout: Option<Duration>) {
        let result = match (endpoint, client_timeout) {
            // Cancelling drops the connection, and the shop drops the request: its checkout ends as cancelled.
            (Endpoint::ListOrders, Some(time)) => timeout(time, self.request(endpoint)).await.unwrap_or(Ok(())),
            _ => self.request(endpoint).await,
        };
        if let Err(error) = result {
            tracing::debug!(?endpoint, %error, "client received no response");
        }
    }

    async fn request(&self, endpoint: Endpoint) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let path = match endpoint {
            Endpoint::ListOrders => format!("{}?customer={}", endpoint.path(0), any_customer()),
            Endpoint::GetProduct => endpoint.path(viewed_product()),
            Endpoint::PrintInvoice => endpoint.path(any_customer()),
            _ => endpoint.path(any_product()),
        };
        let request = Request::builder().method(endpoint.method()).uri(format!("{}{path}", self.shop));
        let mut body = self.client.request(request.body(Empty::new())?).await?.into_body();
        // The connection can be reused only after the whole response is read.
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(())
    }
}

impl fmt::Debug for Customers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Customers").field("shop", &self.shop).finish_non_exhaustive()
    }
}
