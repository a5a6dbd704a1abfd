//! A transparent proxy that observes the connection pools of its clients, whatever language they are written in.
//!
//! One client connection is one server connection. What passes is not changed, so that authentication, prepared
//! statements, COPY, LISTEN, replication and cancel requests work as without the proxy, which never needs a password.
//! Client connections are grouped into pools, which are recorded like those of this process, as far as a proxy sees
//! them: it sees connections, transactions and queries, but neither checkouts nor what waits for a connection.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use poolscope::Collector;
//! use poolscope::proxy::{Proxy, Settings};
//!
//! let mut settings = Settings::new("postgres://db.example:5432")?;
//! settings.listen = vec!["127.0.0.1:6432".parse()?];
//! let proxy = Proxy::bind(settings, &Collector::global()).await?;
//! proxy.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
//! # Ok(())
//! # }
//! ```

mod cancel;
mod drain;
mod error;
mod handshake;
mod listener;
mod messages;
mod observer;
mod pools;
mod relay;
mod server;
mod session;
mod settings;
mod startup;
mod stream;
mod upstream;
mod workers;

pub use self::error::ProxyError;
pub use self::listener::ListenAddress;
pub use self::pools::GroupKey;
pub use self::server::Proxy;
pub use self::settings::Settings;
