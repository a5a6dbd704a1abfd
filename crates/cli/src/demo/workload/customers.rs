//! The shop's customers: an HTTP client that keeps its connections, as a proxy in front of a service does.

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

use crate::demo::shop::{Endpoint, any_customer, any_product};

/// How long a connection is kept that nobody needs: less than the shop keeps it.
const KEEP: Duration = Duration::from_secs(20);

/// The customers of a shop. Clones are handles to the same connections.
#[derive(Clone)]
pub(super) struct Customers {
    client: Client<HttpConnector, Empty<Bytes>>,
    shop: String,
}

impl Customers {
    /// Those of the shop at this URL.
    pub(super) fn of(shop: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP)
            .build(connector);
        Self { client, shop }
    }

    /// One asks for something, and takes the answer or leaves before.
    pub(super) async fn ask(&self, endpoint: Endpoint, patience: Option<Duration>) {
        let asked = match (endpoint, patience) {
            // A customer who leaves takes the request along: its checkout ends as cancelled.
            (Endpoint::ListOrders, Some(patience)) => timeout(patience, self.request(endpoint)).await.unwrap_or(Ok(())),
            _ => self.request(endpoint).await,
        };
        if let Err(error) = asked {
            tracing::debug!(?endpoint, %error, "a customer got no answer");
        }
    }

    async fn request(&self, endpoint: Endpoint) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let path = match endpoint {
            Endpoint::ListOrders => format!("{}?customer={}", endpoint.path(0), any_customer()),
            Endpoint::PrintInvoice => endpoint.path(any_customer()),
            _ => endpoint.path(any_product()),
        };
        let request = Request::builder().method(endpoint.method()).uri(format!("{}{path}", self.shop));
        let mut body = self.client.request(request.body(Empty::new())?).await?.into_body();
        // The connection is of use to the next only if this answer was read to its end.
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
