#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpStream;

use super::super::connect::Established;
use super::super::scripted::*;
use super::*;
use crate::labels::ErrorCode;

fn welcome(mut socket: TcpStream) {
    read_untyped(&mut socket);
    socket.write_all(&authenticated()).unwrap();
}

async fn reached(url: &str) -> String {
    let Established { peer, .. } = establish(&connector(url)).await.unwrap();
    peer.to_string()
}

#[tokio::test]
async fn a_host_that_refuses_is_followed_by_the_next_and_ports_go_with_hosts() {
    let refused = refused_port();
    let (port, _seen) = serve(welcome);
    let url = format!("postgres://u@127.0.0.1:{refused},127.0.0.1:{port}/d?sslmode=disable");
    assert_eq!(reached(&url).await, format!("127.0.0.1:{port}"));

    // Refused by the server itself rather than by its machine.
    let (full, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&refusal("53300")).unwrap();
    });
    let (port, _seen) = serve(welcome);
    let url = format!("postgres://u@127.0.0.1:{full},127.0.0.1:{port}/d?sslmode=disable");
    assert_eq!(reached(&url).await, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn of_hosts_that_all_fail_the_last_error_is_told() {
    let (first, second) = (refused_port(), refused_port());
    let error = failure(&format!("postgres://u@127.0.0.1:{first},127.0.0.1:{second}/d")).await;
    assert_eq!(error.code(), ErrorCode::IO);
    assert_eq!(error.to_string(), format!("could not connect to PostgreSQL at 127.0.0.1:{second}"));
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn an_address_that_is_given_saves_looking_the_name_up() {
    let (port, _seen) = serve(welcome);
    let url = format!("postgres://u@db.invalid:{port}/d?hostaddr=127.0.0.1&sslmode=disable");
    assert_eq!(reached(&url).await, format!("db.invalid:{port} (127.0.0.1)"));
    let (port, _seen) = serve(welcome);
    let url = format!("postgres:///d?user=u&hostaddr=127.0.0.1&port={port}&sslmode=disable");
    assert_eq!(reached(&url).await, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn a_name_is_looked_up_and_each_of_its_addresses_tried() {
    let (port, _seen) = serve(welcome);
    let url = format!("postgres://u@localhost:{port}/d?sslmode=disable");
    assert_eq!(reached(&url).await, format!("localhost:{port} (127.0.0.1)"));
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_an_error_that_names_it() {
    let error = failure("postgres://u@db.invalid:6543/d").await;
    assert_eq!(error.to_string(), "could not connect to PostgreSQL at db.invalid:6543");
    assert_eq!(error.code(), ErrorCode::IO);
}

#[tokio::test]
async fn hosts_in_random_order_are_each_the_first_at_times() {
    let clients = 64;
    let ((one, _seen), (two, _also)) = (serve_each(clients, welcome), serve_each(clients, welcome));
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
async fn a_directory_is_where_a_unix_socket_lies() {
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
    assert_eq!(error.to_string(), format!("could not connect to PostgreSQL at {}", path.display()));
}

#[test]
fn numbers_that_do_not_go_together_are_an_error_that_says_what_would_do() {
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
fn a_port_is_one_for_each_or_one_for_all_or_the_usual() {
    let ports = |config: &Config| candidates(config).unwrap().iter().map(|host| host.port).collect::<Vec<_>>();
    assert_eq!(ports(Config::new().host("a").host("b")), [5432, 5432]);
    assert_eq!(ports(Config::new().host("a").host("b").port(1)), [1, 1]);
    assert_eq!(ports(Config::new().host("a").host("b").port(1).port(2)), [1, 2]);
}

#[tokio::test]
async fn a_server_with_the_wrong_kind_of_session_is_passed_over() {
    for (attrs, wrong, right) in [("read-write", "on", "off"), ("read-only", "off", "on")] {
        let (standby, asked) = serve(move |socket| answer(socket, &shown(wrong)));
        let (primary, _seen) = serve(move |socket| answer(socket, &shown(right)));
        let url = format!(
            "postgres://u@127.0.0.1:{standby},127.0.0.1:{primary}/d?sslmode=disable&target_session_attrs={attrs}"
        );
        let established = establish(&connector(&url)).await.unwrap();
        assert_eq!(established.peer.to_string(), format!("127.0.0.1:{primary}"));
        let (query, rest) = seen(asked).await;
        assert_eq!(query, b"SHOW transaction_read_only\0");
        assert_eq!(rest, b"", "left without a word, as tokio-postgres does");
    }
}

#[tokio::test]
async fn a_session_of_the_wrong_kind_everywhere_is_an_error_that_says_so() {
    for (attrs, answered, problem) in [
        ("read-write", shown("on"), "does not allow writes (target_session_attrs=read-write)"),
        ("read-only", shown("off"), "allows writes (target_session_attrs=read-only)"),
        ("read-only", message(b'Z', b"I"), "does not say whether it allows writes"),
    ] {
        let (port, _seen) = serve(move |socket| answer(socket, &answered));
        let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs={attrs}");
        let error = failure(&url).await;
        assert_eq!(error.to_string(), format!("PostgreSQL at 127.0.0.1:{port} {problem}"));
        assert_eq!(error.code(), ErrorCode::IO);
    }
}

#[tokio::test]
async fn a_server_that_ends_instead_of_telling_its_kind_is_an_error() {
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        read_typed(&mut socket);
        socket.write_all(&refusal("57P01")).unwrap();
    });
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs=read-write");
    assert_eq!(failure(&url).await.code().as_str(), "57P01");
}

#[tokio::test]
async fn to_stop_waiting_for_a_servers_kind_closes_the_socket() {
    let (sender, asked) = std::sync::mpsc::channel();
    let (port, closed) = serve(move |mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        read_typed(&mut socket);
        sender.send(()).unwrap();
        rest(&mut socket)
    });
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs=read-write");
    let connector = connector(&url);
    tokio::select! {
        _ = establish(&connector) => panic!("no answer came"),
        () = seen(asked) => {}
    }
    assert_eq!(seen(closed).await, b"");
}
