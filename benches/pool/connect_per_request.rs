//! The time that a pool saves: the same request through a warm pool, and over a new connection.
//!
//! Both send the same statements, each in one round trip, which favours the new connection. Keys that end in
//! `_prepared` measure the same page with prepared statements, which pooled connections cache. The control is a second
//! pool.
//!
//! The network is the tests' proxy, which delays data by 1 or 5 ms each way. It cannot delay TCP's handshake, which
//! saves the new connection a round trip.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use poolscope::telemetry::Collector;
use poolscope::{Connection, Pool};
use poolscope_testing::server::Server;
use rcgen::CertifiedKey;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::comparison::{Comparison, ratio};
use crate::queries::time_each;
use crate::report::Row;
use crate::{BoxError, Scale};
use poolscope_testing::proxy::Proxy;

const SCHEMA: &str = "
    CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL);
    INSERT INTO products SELECT n, 'product ' || n FROM generate_series(1, 1000) AS n;
    ANALYZE products";

/// The queries of a page about one product.
const PAGE: [&str; 5] = [
    "SELECT name FROM products WHERE id = $1",
    "SELECT max(id) FROM products WHERE id < $1",
    "SELECT min(id) FROM products WHERE id > $1",
    "SELECT count(*) FROM products WHERE id BETWEEN $1 AND $1 + 9",
    "SELECT string_agg(name, ', ') FROM products WHERE id BETWEEN $1 AND $1 + 9",
];
const PRODUCT: i32 = 500;

/// A request of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Query,
    /// A transaction with five queries.
    Page,
    /// The same with prepared statements.
    PreparedPage,
}

impl Request {
    const ALL: [Self; 3] = [Self::Query, Self::Page, Self::PreparedPage];

    async fn run_pooled(self, pool: &Pool) -> Result<(), BoxError> {
        let mut connection = pool.get().await?;
        match self {
            Self::Query => query(&connection).await,
            Self::Page => page(&mut connection).await,
            Self::PreparedPage => cached_page(&mut connection).await,
        }
    }

    /// Runs the request on a new connection, and closes it.
    async fn run_unpooled(self, config: &Config, tls: Option<&MakeRustlsConnect>) -> Result<(), BoxError> {
        if let Some(tls) = tls {
            let (client, connection) = config.connect(tls.clone()).await?;
            return self.run_on(client, connection).await;
        }
        let (client, connection) = config.connect(NoTls).await?;
        self.run_on(client, connection).await
    }

    async fn run_on<C>(self, mut client: Client, connection: C) -> Result<(), BoxError>
    where
        C: Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
    {
        let task = tokio::spawn(connection);
        match self {
            Self::Query => query(&client).await?,
            Self::Page => page(&mut client).await?,
            Self::PreparedPage => prepared_page(&mut client).await?,
        }
        drop(client);
        Ok(task.await??)
    }
}

async fn query(client: &Client) -> Result<(), BoxError> {
    client.query_typed_one("SELECT $1", &[(&PRODUCT, Type::INT4)]).await?;
    Ok(())
}

async fn page(client: &mut Client) -> Result<(), BoxError> {
    let transaction = client.transaction().await?;
    for query in PAGE {
        transaction.query_typed_one(query, &[(&PRODUCT, Type::INT4)]).await?;
    }
    Ok(transaction.commit().await?)
}

async fn cached_page(connection: &mut Connection) -> Result<(), BoxError> {
    let transaction = connection.transaction().await?;
    for query in PAGE {
        let query = transaction.prepare_cached(query).await?;
        transaction.query_one(&query, &[&PRODUCT]).await?;
    }
    Ok(transaction.commit().await?)
}

async fn prepared_page(client: &mut Client) -> Result<(), BoxError> {
    let transaction = client.transaction().await?;
    for query in PAGE {
        transaction.query_one(query, &[&PRODUCT]).await?;
    }
    Ok(transaction.commit().await?)
}

/// The server's self-signed certificate.
struct Tls {
    certificate: String,
    key: String,
    file: NamedTempFile,
    connector: MakeRustlsConnect,
}

impl Tls {
    /// Configures TLS as the pool does, but with verification of the name. All connections share the configuration.
    fn new() -> Result<Self, BoxError> {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()])?;
        let mut file = NamedTempFile::new()?;
        file.write_all(cert.pem().as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = MakeRustlsConnect::new(config);
        Ok(Self { certificate: cert.pem(), key: signing_key.serialize_pem(), file, connector })
    }
}

/// A way to reach the server.
struct Transport<'a> {
    /// Keys of the rows, by request.
    keys: [&'static str; 3],
    what: &'static str,
    url: String,
    tls: Option<&'a Tls>,
    rounds: usize,
    /// Requests in a turn, unpooled and pooled. Over a network, one takes long enough.
    turn: (u32, u32),
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tls = Tls::new()?;
    let server = runtime.block_on(Server::builder().tls(&*tls.certificate, &*tls.key).start())?;
    runtime.block_on(prepare(&server))?;
    let tcp = server.tcp_url().ok_or("the server does not listen on TCP")?;
    let address = (Ipv4Addr::LOCALHOST, server.port()).into();
    let [near, far] = [1, 5].map(|milliseconds| {
        let proxy = runtime.block_on(Proxy::to(address));
        proxy.delay(Duration::from_millis(milliseconds));
        proxy
    });
    let transports = [
        Transport {
            keys: ["pooling_unix_query", "pooling_unix_page", "pooling_unix_page_prepared"],
            what: "speed-up over a new connection: a query, Unix socket",
            url: server.url(),
            tls: None,
            rounds: 25,
            turn: (10, 100),
        },
        Transport {
            keys: ["pooling_tcp_query", "pooling_tcp_page", "pooling_tcp_page_prepared"],
            what: "a query, TCP on the same machine",
            url: format!("{tcp}?sslmode=disable"),
            tls: None,
            rounds: 25,
            turn: (10, 100),
        },
        Transport {
            keys: ["pooling_1ms_tls_query", "pooling_1ms_tls_page", "pooling_1ms_tls_page_prepared"],
            what: "a query, TLS, network delay 1 ms each way",
            url: near.url(&format!("{tcp}?sslmode=require")),
            tls: Some(&tls),
            rounds: 40,
            turn: (1, 1),
        },
        Transport {
            keys: ["pooling_5ms_tls_query", "pooling_5ms_tls_page", "pooling_5ms_tls_page_prepared"],
            what: "a query, TLS, network delay 5 ms each way",
            url: far.url(&format!("{tcp}?sslmode=require")),
            tls: Some(&tls),
            rounds: 15,
            turn: (1, 1),
        },
    ];
    let mut rows = Vec::new();
    for transport in &transports {
        for (request, key) in Request::ALL.into_iter().zip(transport.keys) {
            rows.push(transport.compare(scale, &runtime, request, key)?);
        }
    }
    Ok(rows)
}

async fn prepare(server: &Server) -> Result<(), BoxError> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    let task = tokio::spawn(connection);
    client.batch_execute(SCHEMA).await?;
    drop(client);
    Ok(task.await??)
}

impl Transport<'_> {
    fn compare(&self, scale: Scale, runtime: &Runtime, request: Request, key: &'static str) -> Result<Row, BoxError> {
        let config: Config = self.url.parse()?;
        let connector = self.tls.map(|tls| &tls.connector);
        let roots = self.tls.map_or_else(String::new, |tls| format!("&sslrootcert={}", tls.file.path().display()));
        let pool = || Pool::builder().url(&format!("{}{roots}", self.url)).collector(Collector::new()).build();
        let pools = [pool()?, pool()?];

        let turn = |full: u32| if scale.is_quick() { full.div_ceil(10) } else { full };
        let (turn_unpooled, turn_pooled) = (turn(self.turn.0), turn(self.turn.1));
        let mut comparison = Comparison::new();
        let unpooled =
            comparison.add(|| time_each(turn_unpooled, async || request.run_unpooled(&config, connector).await));
        let [pooled, control] = pools
            .each_ref()
            .map(|pool| comparison.add(move || time_each(turn_pooled, async move || request.run_pooled(pool).await)));
        let times = runtime.block_on(comparison.run(scale.of(self.rounds)))?;
        let what = match request {
            Request::Query => self.what,
            Request::Page => "the same, a page: a transaction with five queries",
            Request::PreparedPage => "that page with prepared statements",
        };
        let row = Row::ratio(key, what, ratio(&times[unpooled], &times[pooled]))
            .control(ratio(&times[control], &times[pooled]));
        Ok(if request == Request::PreparedPage { row } else { row.at_least(3.0) })
    }
}
