#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpStream;

use poolscope_testing::ports::ReservedPort;

use super::super::connect::Established;
use super::super::scripted_server::*;
use super::*;
use crate::labels::ErrorCode;

fn accept_client(mut socket: TcpStream) {
    read_untyped(&mut socket);
    socket.write_all(&authenticated()).unwrap();
}

async fn reached(url: &str) -> String {
    let Established { peer, .. } = establish(&connector(url)).await.unwrap();
    peer.to_string()
}

#[tokio::test]
async fn next_host_is_tried_with_its_own_port() {
    let closed = ReservedPort::new().unwrap();
    let refused = closed.number();
    let (port, _seen) = serve(accept_client);
    let url = format!("postgres://u@127.0.0.1:{refused},127.0.0.1:{port}/d?sslmode=disable");
    assert_eq!(reached(&url).await, format!("127.0.0.1:{port}"));

    // Refused by the server rather than by the operating system.
    let (full, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&fatal_error("53300")).unwrap();
    });
    let (port, _seen) = serve(accept_client);
    let url = format!("postgres://u@127.0.0.1:{full},127.0.0.1:{port}/d?sslmode=disable");
    assert_eq!(reached(&url).await, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn last_error_is_returned_if_all_hosts_fail() {
    let ports = [(); 2].map(|()| ReservedPort::new().unwrap());
    let [first, second] = ports.each_ref().map(ReservedPort::number);
    let error = failure(&format!("postgres://u@127.0.0.1:{first},127.0.0.1:{second}/d")).await;
    assert_eq!(error.code(), ErrorCode::IO);
    assert_eq!(
        error.to_string(),
        format!("could not connect to PostgreSQL at 127.0.0.1:{second}: Connection refused (os error 111)")
    );
    assert!(std::error::Error::source(&error).is_none());
}

#[tokio::test]
async fn hostaddr_avoids_the_name_lookup() {
    let (port, _seen) = serve(accept_client);
    let url = format!("postgres://u@db.invalid:{port}/d?hostaddr=127.0.0.1&sslmode=disable");
    assert_eq!(reached(&url).await, format!("db.invalid:{port} (127.0.0.1)"));
    let (port, _seen) = serve(accept_client);
    let url = format!("postgres:///d?user=u&hostaddr=127.0.0.1&port={port}&sslmode=disable");
    assert_eq!(reached(&url).await, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let (port, _seen) = serve(accept_client);
    let url = format!("postgres://u@localhost:{port}/d?sslmode=disable");
    assert_eq!(reached(&url).await, format!("localhost:{port} (127.0.0.1)"));
}

#[tokio::test]
async fn unknown_name_is_named_in_the_error() {
    let error = failure("postgres://u@db.invalid:6543/d").await;
    let address = "could not connect to PostgreSQL at db.invalid:6543: failed to lookup address information: ";
    assert!(error.to_string().starts_with(address), "{error}");
    assert_eq!(error.code(), ErrorCode::IO);
}

#[tokio::test]
async fn random_order_varies_the_first_host() {
    let clients = 64;
    let ((one, _seen), (two, _also)) = (serve_each(clients, accept_client), serve_each(clients, accept_client));
    let hosts = format!("127.0.0.1:{one},127.0.0.1:{two}");
    let url = format!("postgres://u@{hosts}/d?sslmode=disable&load_balance_hosts=random");
    let mut reached_ones = std::collections::BTreeSet::new();
    for _ in 0..clients {
        reached_ones.insert(reached(&url).await);
        if reached_ones.len() == 2 {
            return;
        }
    }
    panic!("only {reached_ones:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn host_with_a_path_is_the_directory_of_a_unix_socket() {
    use std::os::unix::net::UnixListener;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(".s.PGSQL.6543");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let startup = read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        startup
    });
    let host = directory.path().display().to_string().replace('/', "%2F");
    assert_eq!(reached(&format!("postgres://u@{host}:6543/d")).await, path.display().to_string());
    assert!(server.join().unwrap().starts_with(&[0, 3, 0, 0]));

    drop(directory);
    let error = failure(&format!("postgres://u@{host}:6543/d")).await;
    let path = path.display();
    let expected = format!("could not connect to PostgreSQL at {path}: No such file or directory (os error 2)");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn mismatched_numbers_are_an_error_with_a_remedy() {
    let address = IpAddr::from([127, 0, 0, 1]);
    let problem = |config: &Config| match candidates(config).map(|_| ()).unwrap_err() {
        error @ ConnectError::Hosts { .. } => (error.to_string(), error.code()),
        other => panic!("{other:?}"),
    };
    let of = |text: &str| (text.to_owned(), ErrorCode::OTHER);
    assert_eq!(
        problem(Config::new().host("a").host("b").hostaddr(address)),
        of("1 hostaddr for 2 hosts: give one for each, or none")
    );
    assert_eq!(
        problem(Config::new().host("a").host("b").host("c").port(1).port(2)),
        of("2 ports for 3 hosts: give one for each, or one for all")
    );
    assert_eq!(
        problem(Config::new().hostaddr(address).port(1).port(2)),
        of("2 ports for 1 hosts: give one for each, or one for all")
    );
    assert!(candidates(&Config::new()).unwrap().is_empty());
    assert_eq!(ConnectError::no_host().to_string(), "no host to connect to: give one as host or hostaddr");
}

#[test]
fn ports_are_per_host_common_or_default() {
    let ports = |config: &Config| candidates(config).unwrap().iter().map(|host| host.port).collect::<Vec<_>>();
    assert_eq!(ports(Config::new().host("a").host("b")), [5432, 5432]);
    assert_eq!(ports(Config::new().host("a").host("b").port(1)), [1, 1]);
    assert_eq!(ports(Config::new().host("a").host("b").port(1).port(2)), [1, 2]);
}

#[tokio::test]
async fn server_with_the_wrong_session_kind_is_skipped() {
    for (attrs, wrong, right) in [("read-write", "on", "off"), ("read-only", "off", "on")] {
        let (standby, queries) = serve(move |socket| answer(socket, &show_answer(wrong)));
        let (primary, _seen) = serve(move |socket| answer(socket, &show_answer(right)));
        let url = format!(
            "postgres://u@127.0.0.1:{standby},127.0.0.1:{primary}/d?sslmode=disable&target_session_attrs={attrs}"
        );
        let established = establish(&connector(&url)).await.unwrap();
        assert_eq!(established.peer.to_string(), format!("127.0.0.1:{primary}"));
        let (query, rest) = receive(queries).await;
        assert_eq!(query, b"SHOW transaction_read_only\0");
        assert_eq!(rest, b"", "closed without a Terminate, as by tokio-postgres");
    }
}

#[tokio::test]
async fn wrong_session_kind_on_every_host_is_an_error() {
    for (attrs, answered, problem) in [
        ("read-write", show_answer("on"), "does not allow writes (target_session_attrs=read-write)"),
        ("read-only", show_answer("off"), "allows writes (target_session_attrs=read-only)"),
        ("read-only", message(b'Z', b"I"), "does not report whether it allows writes"),
    ] {
        let (port, _seen) = serve(move |socket| answer(socket, &answered));
        let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs={attrs}");
        let error = failure(&url).await;
        assert_eq!(error.to_string(), format!("PostgreSQL at 127.0.0.1:{port} {problem}"));
        assert_eq!(error.code(), ErrorCode::IO);
    }
}

#[tokio::test]
async fn server_error_during_the_session_check_is_returned() {
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        read_typed(&mut socket);
        socket.write_all(&fatal_error("57P01")).unwrap();
    });
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs=read-write");
    assert_eq!(failure(&url).await.code().as_str(), "57P01");
}

#[tokio::test]
async fn dropping_the_session_check_closes_the_socket() {
    let (sender, queried) = std::sync::mpsc::channel();
    let (port, closed) = serve(move |mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        read_typed(&mut socket);
        sender.send(()).unwrap();
        read_to_end(&mut socket)
    });
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs=read-write");
    let connector = connector(&url);
    tokio::select! {
        _ = establish(&connector) => panic!("no answer came"),
        () = receive(queried) => {}
    }
    assert_eq!(receive(closed).await, b"");
}
