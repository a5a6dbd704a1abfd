//! An exporter in this process, with pools of a server that accepts connections and answers nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use poolscope::exporter::Exporter;
use poolscope::proxy::{Proxy, Settings};
use poolscope::{Collector, Connection, Pool};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// AuthenticationOk, BackendKeyData of process 4711, ReadyForQuery.
const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67\0\0\0\x01Z\0\0\0\x05I";

/// Pools, and an exporter that serves them.
pub(crate) struct Site {
    runtime: Runtime,
    server: SocketAddr,
    collector: Collector,
    pub(crate) address: SocketAddr,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    held: Vec<Connection>,
    waiting: Vec<JoinHandle<()>>,
    pools: Vec<Pool>,
    clients: Vec<TcpStream>,
}

impl Site {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = runtime.block_on(server());
        let collector = Collector::new();
        let mut site = Self {
            runtime,
            server,
            collector,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            serving: None,
            held: Vec::new(),
            waiting: Vec::new(),
            pools: Vec::new(),
            clients: Vec::new(),
        };
        site.serve();
        site
    }

    /// Serves, again on the same port after [`Self::stop`].
    pub(crate) fn serve(&mut self) {
        let exporter = Exporter::new(self.collector.clone()).trace_url("https://traces.invalid/{trace_id}");
        let bound = self.runtime.block_on(exporter.bind(self.address)).unwrap();
        self.address = bound.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = self.runtime.spawn(async move {
            bound.serve(async { drop(stopped.await) }).await.unwrap();
        });
        self.serving = Some((stop, serving));
    }

    pub(crate) fn stop(&mut self) {
        let (stop, serving) = self.serving.take().unwrap();
        stop.send(()).unwrap();
        // Longer than the exporter waits for requests in progress.
        self.runtime.block_on(async { timeout(Duration::from_secs(30), serving).await }).unwrap().unwrap();
    }

    /// As after a restart of the process: the pools and their history are new.
    pub(crate) fn forget(&mut self) {
        self.waiting.drain(..).for_each(|waiting| waiting.abort());
        let _runtime = self.runtime.enter();
        self.held.clear();
        self.pools.clear();
        self.collector = Collector::new();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Adds a pool whose connections are all held by `operation`, while one checkout waits.
    pub(crate) fn exhausted_pool(&mut self, name: &str, size: usize, operation: &str) {
        let pool = self.pool(name, size, "app");
        for _ in 0..size {
            self.held.push(self.runtime.block_on(pool.operation(operation).get()).unwrap());
        }
        let (waiter, operation) = (pool.clone(), operation.to_owned());
        self.waiting.push(self.runtime.spawn(async move {
            drop(waiter.operation(&operation).get().await);
        }));
    }

    /// Adds a pool of which this many connections are held.
    pub(crate) fn pool_with_holders(&mut self, name: &str, size: usize, held: usize) {
        let pool = self.pool(name, size, "app");
        for number in 0..held {
            let operation = format!("operation_{}", number % 5);
            self.held.push(self.runtime.block_on(pool.operation(&operation).get()).unwrap());
        }
    }

    /// Adds the pool `api app@shop` of a proxy, whose only client waits for the answer to a query of `/orders`.
    pub(crate) fn proxied_pool(&mut self) {
        let mut settings = Settings::new(&format!("postgres://{}?sslmode=disable", self.server)).unwrap();
        settings.listen = vec!["127.0.0.1:0".parse().unwrap()];
        let proxy = self.runtime.block_on(Proxy::bind(settings, &self.collector)).unwrap();
        let mut client = TcpStream::connect(proxy.tcp_addresses()[0]).unwrap();
        self.runtime.spawn(proxy.run(std::future::pending()));
        client.write_all(b"\0\0\0\x35\0\x03\0\0user\0app\0database\0shop\0application_name\0api\0\0").unwrap();
        client.read_exact(&mut vec![0; GREETING.len()]).unwrap();
        let query = b"SELECT * FROM orders /*route='%2Forders'*/\0";
        let length = u32::try_from(query.len() + 4).unwrap().to_be_bytes();
        client.write_all(&[&b"Q"[..], &length, query].concat()).unwrap();
        self.clients.push(client);
    }

    fn pool(&mut self, name: &str, size: usize, application: &str) -> Pool {
        let url = format!("postgres://app@{}/shop?sslmode=disable", self.server);
        let builder = Pool::builder().url(&url).name(name).pool_size(size).max_overflow(0);
        let builder = builder.application_name(application).checkout_timeout(Duration::from_secs(600));
        let pool = builder.collector(self.collector.clone()).build().unwrap();
        self.pools.push(pool.clone());
        pool
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(|waiting| waiting.abort());
        // Connections are returned within the runtime.
        let _runtime = self.runtime.enter();
        self.held.clear();
    }
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // The startup message is ignored.
                stream.readable().await.unwrap();
                assert_eq!(stream.try_write(GREETING).unwrap(), GREETING.len());
                let mut ignored = vec![0; 1024];
                loop {
                    stream.readable().await.unwrap();
                    match stream.try_read(&mut ignored) {
                        Ok(0) => return,
                        Ok(_) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
            });
        }
    });
    address
}
