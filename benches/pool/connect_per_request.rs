//! What a pool saves: the same request through ours, warm and as it comes, and over a connection of its own.
//!
//! Both send the same statements, each in one round trip, which is the least that can be said for a pool. A key that ends
//! in `_prepared` is about the same page where statements are prepared: the pool's connections keep them, and a new one
//! has none. The control is a second pool like ours.
//!
//! A network is the tests' proxy, which holds up what passes by 1 or 5 ms each way. It cannot hold up TCP's handshake: a
//! connection of its own is spared one of the round trips that it would take.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use poolscope::demo::server::Server;
use poolscope::telemetry::Collector;
use poolscope::{Connection, Pool};
use rcgen::CertifiedKey;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tempfile::NamedTempFile;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::comparison::{Rounds, ratio};
use crate::proxy::Proxy;
use crate::queries::each;
use crate::report::Row;
use crate::{Failure, Scale};

const SCHEMA: &str = "
    CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL);
    INSERT INTO products SELECT n, 'product ' || n FROM generate_series(1, 1000) AS n;
    ANALYZE products";

/// What a page asks for, of the product that it is about.
const PAGE: [&str; 5] = [
    "SELECT name FROM products WHERE id = $1",
    "SELECT max(id) FROM products WHERE id < $1",
    "SELECT min(id) FROM products WHERE id > $1",
    "SELECT count(*) FROM products WHERE id BETWEEN $1 AND $1 + 9",
    "SELECT string_agg(name, ', ') FROM products WHERE id BETWEEN $1 AND $1 + 9",
];
const PRODUCT: i32 = 500;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Query,
    /// A transaction with five queries.
    Page,
    /// The same, its statements prepared.
    PreparedPage,
}

impl Request {
    const ALL: [Self; 3] = [Self::Query, Self::Page, Self::PreparedPage];

    async fn through(self, pool: &Pool) -> Result<(), Failure> {
        let mut connection = pool.get().await?;
        match self {
            Self::Query => query(&connection).await,
            Self::Page => page(&mut connection).await,
            Self::PreparedPage => cached_page(&mut connection).await,
        }
    }

    /// Connects, asks, and ends the connection in good order.
    async fn alone(self, config: &Config, tls: Option<&MakeRustlsConnect>) -> Result<(), Failure> {
        if let Some(tls) = tls {
            let (client, connection) = config.connect(tls.clone()).await?;
            return self.over(client, connection).await;
        }
        let (client, connection) = config.connect(NoTls).await?;
        self.over(client, connection).await
    }

    async fn over<C>(self, mut client: Client, connection: C) -> Result<(), Failure>
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

async fn query(client: &Client) -> Result<(), Failure> {
    client.query_typed_one("SELECT $1", &[(&PRODUCT, Type::INT4)]).await?;
    Ok(())
}

async fn page(client: &mut Client) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    for query in PAGE {
        transaction.query_typed_one(query, &[(&PRODUCT, Type::INT4)]).await?;
    }
    Ok(transaction.commit().await?)
}

async fn cached_page(connection: &mut Connection) -> Result<(), Failure> {
    let transaction = connection.transaction().await?;
    for query in PAGE {
        let query = transaction.prepare_cached(query).await?;
        transaction.query_one(&query, &[&PRODUCT]).await?;
    }
    Ok(transaction.commit().await?)
}

async fn prepared_page(client: &mut Client) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    for query in PAGE {
        transaction.query_one(query, &[&PRODUCT]).await?;
    }
    Ok(transaction.commit().await?)
}

/// The server's own certificate, which is all that either side trusts.
struct Tls {
    certificate: String,
    key: String,
    file: NamedTempFile,
    connector: MakeRustlsConnect,
}

impl Tls {
    /// As our pool sets it up, which besides does not look at the name. One configuration for all connections.
    fn new() -> Result<Self, Failure> {
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

/// How one gets to the server, and what that is called.
struct Route<'a> {
    /// Of each request.
    keys: [&'static str; 3],
    what: &'static str,
    url: String,
    tls: Option<&'a Tls>,
    rounds: usize,
    /// Requests in a turn, each alone and pooled. Where there is a network one is long enough.
    turn: (u32, u32),
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, Failure> {
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
    let routes = [
        Route {
            keys: ["pooling_unix_query", "pooling_unix_page", "pooling_unix_page_prepared"],
            what: "times as fast as over a connection of its own: a query, Unix socket",
            url: server.url(),
            tls: None,
            rounds: 25,
            turn: (10, 100),
        },
        Route {
            keys: ["pooling_tcp_query", "pooling_tcp_page", "pooling_tcp_page_prepared"],
            what: "a query, TCP on the same machine",
            url: format!("{tcp}?sslmode=disable"),
            tls: None,
            rounds: 25,
            turn: (10, 100),
        },
        Route {
            keys: ["pooling_1ms_tls_query", "pooling_1ms_tls_page", "pooling_1ms_tls_page_prepared"],
            what: "a query, TLS over a network of 1 ms each way",
            url: near.url(&format!("{tcp}?sslmode=require")),
            tls: Some(&tls),
            rounds: 40,
            turn: (1, 1),
        },
        Route {
            keys: ["pooling_5ms_tls_query", "pooling_5ms_tls_page", "pooling_5ms_tls_page_prepared"],
            what: "a query, TLS over a network of 5 ms each way",
            url: far.url(&format!("{tcp}?sslmode=require")),
            tls: Some(&tls),
            rounds: 15,
            turn: (1, 1),
        },
    ];
    let mut rows = Vec::new();
    for route in &routes {
        for (request, key) in Request::ALL.into_iter().zip(route.keys) {
            rows.push(route.compare(scale, &runtime, request, key)?);
        }
    }
    Ok(rows)
}

async fn prepare(server: &Server) -> Result<(), Failure> {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    let task = tokio::spawn(connection);
    client.batch_execute(SCHEMA).await?;
    drop(client);
    Ok(task.await??)
}

impl Route<'_> {
    fn compare(&self, scale: Scale, runtime: &Runtime, request: Request, key: &'static str) -> Result<Row, Failure> {
        let config: Config = self.url.parse()?;
        let connector = self.tls.map(|tls| &tls.connector);
        let roots = self.tls.map_or_else(String::new, |tls| format!("&sslrootcert={}", tls.file.path().display()));
        let pool = || Pool::builder().url(&format!("{}{roots}", self.url)).collector(Collector::new()).build();
        let pools = [pool()?, pool()?];

        let turn = |full: u32| if scale.is_quick() { full.div_ceil(10) } else { full };
        let (turn_alone, turn_pooled) = (turn(self.turn.0), turn(self.turn.1));
        let mut rounds = Rounds::new();
        let alone = rounds.add(|| each(turn_alone, async || request.alone(&config, connector).await));
        let [pooled, control] = pools
            .each_ref()
            .map(|pool| rounds.add(move || each(turn_pooled, async move || request.through(pool).await)));
        let times = runtime.block_on(rounds.run(scale.of(self.rounds)))?;
        let what = match request {
            Request::Query => self.what,
            Request::Page => "the same, a page: a transaction with five queries",
            Request::PreparedPage => "that page, its statements prepared",
        };
        let row =
            Row::ratio(key, what, ratio(&times[alone], &times[pooled])).control(ratio(&times[control], &times[pooled]));
        Ok(if request == Request::PreparedPage { row } else { row.at_least(3.0) })
    }
}
