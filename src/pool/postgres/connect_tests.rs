#![allow(clippy::unwrap_used)]

use std::io::Write;

use poolscope_testing::ports::ReservedPort;

use super::super::scripted_server::*;
use super::*;
use crate::labels::ErrorCode;

fn configured(url: &str) -> Config {
    connector(url).inner.config.clone()
}

#[tokio::test]
async fn startup_names_user_and_client_ends_the_task() {
    let (port, seen) = serve(|mut socket| {
        let startup = read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        (startup, read_to_end(&mut socket))
    });
    let connector = connector(&format!("postgres://app@127.0.0.1:{port}/shop?sslmode=disable"));
    let Established { client, driving: task, .. } = establish(&connector).await.unwrap();
    assert!(!task.is_finished());
    drop(client);
    tokio::time::timeout(TEST_TIMEOUT, task).await.unwrap().unwrap();
    let (startup, rest) = seen.recv_timeout(TEST_TIMEOUT).unwrap();
    let startup = String::from_utf8_lossy(&startup).into_owned();
    for pair in ["user\0app\0", "database\0shop\0", &*format!("application_name\0{}\0", program_name())] {
        assert!(startup.contains(pair), "{startup:?}");
    }
    assert_eq!(rest, message(b'X', b""));
}

#[tokio::test]
async fn silent_server_times_out() {
    let (port, _seen) = serve(|mut socket| read_to_end(&mut socket));
    let error = failure(&format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=50ms")).await;
    let expected = format!("not connected to PostgreSQL at 127.0.0.1:{port} within connect_timeout (50ms)");
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.code(), ErrorCode::TIMEOUT);
}

#[tokio::test]
async fn timeout_closes_the_socket() {
    let (port, closed) = serve(|mut socket| read_to_end(&mut socket));
    drop(failure(&format!("postgres://u@127.0.0.1:{port}/d?connect_timeout=50ms&sslmode=disable")).await);
    assert!(closed.recv_timeout(TEST_TIMEOUT).is_ok());
}

#[tokio::test]
async fn error_code_is_the_servers_sqlstate() {
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&fatal_error("53300")).unwrap();
    });
    let error = failure(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
    assert_eq!(error.code().as_str(), "53300");
    let expected = format!("could not connect to PostgreSQL at 127.0.0.1:{port}: db error: FATAL: refused");
    assert_eq!(error.to_string(), expected);
    assert!(std::error::Error::source(&error).is_none());
}

#[tokio::test]
async fn error_code_without_sqlstate_is_the_kind() {
    let closed = ReservedPort::new().unwrap();
    let refused = closed.number();
    let error = failure(&format!("postgres://u@127.0.0.1:{refused}/d")).await;
    assert_eq!(error.code(), ErrorCode::IO);

    let (port, _seen) = serve(|mut socket| drop(read_untyped(&mut socket)));
    let error = failure(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).await;
    assert_eq!(error.code(), ErrorCode::IO);

    let url = |port| format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
    // A cleartext password is requested, and none is configured.
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&message(b'R', &3_u32.to_be_bytes())).unwrap();
        read_to_end(&mut socket)
    });
    assert_eq!(failure(&url(port)).await.code(), ErrorCode::AUTH);

    // Kerberos is requested.
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&message(b'R', &2_u32.to_be_bytes())).unwrap();
        read_to_end(&mut socket)
    });
    assert_eq!(failure(&url(port)).await.code(), ErrorCode::AUTH);

    // An invalid answer.
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&message(b'D', &[0, 0])).unwrap();
        read_to_end(&mut socket)
    });
    assert_eq!(failure(&url(port)).await.code(), ErrorCode::OTHER);
}

#[test]
fn settings_reach_the_socket() {
    let config = configured("postgres://u@127.0.0.1/d?application_name=billing");
    assert_eq!(config.get_application_name(), Some("billing"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(20)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(config.get_keepalives_interval(), Some(Keepalive::DEFAULT_INTERVAL));
    assert_eq!(config.get_keepalives_retries(), Some(Keepalive::DEFAULT_RETRIES));

    let config = configured("postgres://u@h/d?tcp_keepalive=off&tcp_user_timeout=off");
    assert!(!config.get_keepalives());
    assert_eq!(config.get_tcp_user_timeout(), None);

    let config = configured("postgres://u@h/d?keepalives_interval=4&keepalives_retries=2");
    assert_eq!(config.get_keepalives_interval(), Some(Duration::from_secs(4)));
    assert_eq!(config.get_keepalives_retries(), Some(2));
}

#[test]
fn application_name_of_the_settings_wins() {
    let url = "postgres://u@h/d?application_name=fromurl".parse().unwrap();
    let name = |settings: &Settings| {
        let connector = Connector::new(settings, &url, None, "test").unwrap();
        connector.inner.config.get_application_name().unwrap().to_owned()
    };
    let mut settings = Settings::default();
    let unnamed = configured("postgres://u@h/d");
    let program = std::env::current_exe().unwrap();
    assert_eq!(unnamed.get_application_name(), program.file_name().unwrap().to_str());
    assert_eq!(name(&settings), "fromurl");
    settings.application_name = Some("set".to_owned());
    assert_eq!(name(&settings), "set");
}

#[test]
fn connect_timeout_is_divided_among_the_addresses() {
    for (hosts, millis) in [
        ("h", 2500),
        ("127.0.0.1", 5000),
        ("[::1]", 5000),
        ("%2Ftmp", 5000),
        ("a,b", 2500),
        ("127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4", 1250),
        ("a,b,c,d,e", 1000),
    ] {
        let timeout = *configured(&format!("postgres://u@{hosts}/d")).get_connect_timeout().unwrap();
        assert_eq!(timeout, Duration::from_millis(millis), "{hosts}");
    }
    let one = configured("postgres://u@h/d?hostaddr=127.0.0.1");
    assert_eq!(one.get_connect_timeout(), Some(&Duration::from_secs(5)));
}

#[tokio::test]
async fn manager_creates_clients() {
    use deadpool::managed::Manager as _;
    let (port, _seen) = serve(|mut socket| {
        read_untyped(&mut socket);
        socket.write_all(&authenticated()).unwrap();
        read_to_end(&mut socket)
    });
    let settings = Settings::from_url(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable")).unwrap();
    let url = settings.require_database_url().unwrap();
    let manager =
        super::super::manager::PostgresManager::new(&settings, url, None, super::super::hook::Hooks::default(), "test")
            .unwrap();
    let client = manager.create().await.unwrap();
    assert!(!client.is_closed());
    assert_eq!(format!("{client:?}"), format!("Client {{ peer: Peer(127.0.0.1:{port}), .. }}"));
}

#[test]
fn debug_omits_the_password() {
    assert!(!format!("{:?}", connector("postgres://u:hunter2@h/d")).contains("hunter2"));
}

#[test]
fn clear_text_password_needs_tls_or_a_local_server() {
    use super::super::peer::Address;

    let clear_text = |query: &str, address: &str| {
        let url: DatabaseUrl = format!("postgres://h/d?{query}").parse().unwrap();
        let connector = Connector::new(&Settings::default(), &url, None, "test").unwrap();
        let address = match address.parse() {
            Ok(address) => Address::Tcp(address),
            Err(_) => Address::Unix(address.into()),
        };
        let peer = Peer::new(address, None, None, super::super::tcp_options::TcpOptions::new(None, None));
        connector.authentication_policy(&peer).clear_text
    };
    for (query, remote) in [
        ("", false),
        ("sslmode=prefer", false),
        ("sslmode=allow", false),
        ("require_auth=!none", false),
        ("require_auth=!md5", false),
        ("require_auth=scram-sha-256", false),
        ("require_auth=password", true),
        ("require_auth=password,scram-sha-256", true),
        ("sslmode=disable", true),
    ] {
        assert_eq!(clear_text(query, "10.1.2.3:5432"), remote, "{query}");
        for local in ["127.0.0.1:5432", "[::1]:5432", "[::ffff:127.0.0.2]:5432", "/run/.s.PGSQL.5432"] {
            assert!(clear_text(query, local), "{query} {local}");
        }
    }
}

#[tokio::test]
async fn notifications_before_listen_is_answered_are_bounded() {
    let notification = message(b'A', &[&[0, 0, 0, 1][..], b"jobs\0", &[b'x'; 8000], b"\0"].concat());
    for (target, count, is_accepted) in [("any", 100, true), ("read-write", 100, true), ("read-write", 1000, false)] {
        let notification = notification.clone();
        let (port, _seen) = serve(move |mut socket| {
            read_untyped(&mut socket);
            socket.write_all(&authenticated()).unwrap();
            if target != "any" {
                read_typed(&mut socket);
                socket.write_all(&show_answer("off")).unwrap();
            }
            read_typed(&mut socket);
            // Fails once the client has closed.
            let _ = socket.write_all(&notification.repeat(count));
            let _ = socket.write_all(&[message(b'C', b"LISTEN\0"), message(b'Z', b"I")].concat());
            read_to_end(&mut socket)
        });
        let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable&target_session_attrs={target}");
        let connector = connector(&url).with_answers(AnswerLimit::SmallMessages);
        match connector.connect_and_execute("LISTEN jobs").await {
            Ok((_, notifications)) => assert!(is_accepted && notifications.len() == count, "{target} {count}"),
            Err(error) => {
                assert!(!is_accepted && matches!(error, ConnectError::Answer {}), "{target} {count}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn answers_to_own_queries_are_bounded_in_total() {
    let answer = |rows: usize, bytes: usize| {
        let column = [&1_u16.to_be_bytes()[..], b"c\0", &[0; 18]].concat();
        let value = [&1_u16.to_be_bytes()[..], &u32::try_from(bytes).unwrap().to_be_bytes(), &vec![b'x'; bytes]];
        let rows = message(b'D', &value.concat()).repeat(rows);
        [message(b'T', &column), rows, message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
    };
    for (rows, bytes, is_accepted) in [(3, 100_000, true), (3, 400_000, false), (1, 2_000_000, false), (300, 1, false)]
    {
        let (port, _seen) = serve(move |socket| super::super::scripted_server::answer(socket, &answer(rows, bytes)));
        let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
        let Established { client, .. } = establish(&connector(&url)).await.unwrap();
        match super::super::session::own_query(&client, "").await {
            Ok(messages) => assert!(is_accepted && messages.len() == rows + 2, "{rows} {bytes}"),
            Err(error) => assert!(!is_accepted && matches!(error, ConnectError::Answer {}), "{rows} {bytes}: {error}"),
        }
    }
}
