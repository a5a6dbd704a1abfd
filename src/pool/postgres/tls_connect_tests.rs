#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::connect::Established;
use super::error::ConnectError;
use super::scripted_server::*;
use super::tls::tests::Authority;
use crate::labels::ErrorCode;

const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Starts a server that offers TLS and accepts every user. Returns its port and the ALPN protocol.
fn serve_tls(config: Arc<ServerConfig>, direct: bool) -> (u16, mpsc::Receiver<Option<Vec<u8>>>) {
    serve(move |mut socket| {
        if !direct {
            assert_eq!(read_untyped(&mut socket), SSL_REQUEST);
            socket.write_all(b"S").unwrap();
        }
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        if stream.conn.complete_io(&mut stream.sock).is_err() {
            return None;
        }
        read_untyped(&mut stream);
        stream.write_all(&authenticated()).unwrap();
        let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        read_to_end(&mut stream);
        protocol
    })
}

#[tokio::test]
async fn server_with_a_valid_certificate_is_connected_to() {
    let authority = Authority::new();
    let file = authority.file();
    let path = file.path().display().to_string();
    for query in [
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={path}"),
        format!("sslmode=verify-full&sslrootcert={path}"),
    ] {
        let (port, _seen) = serve_tls(authority.server(&["localhost", "127.0.0.1"]), false);
        let url = format!("postgres://u@localhost:{port}/d?hostaddr=127.0.0.1&{query}");
        assert!(establish(&connector(&url)).await.is_ok(), "{query}");
        let (port, _seen) = serve_tls(authority.server(&["localhost", "127.0.0.1"]), false);
        let url = format!("postgres:///d?hostaddr=127.0.0.1&port={port}&{query}");
        assert!(establish(&connector(&url)).await.is_ok(), "{query}");
    }
}

#[tokio::test]
async fn direct_tls_negotiates_its_protocol() {
    let mut config = (*Authority::new().server(&["localhost"])).clone();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let (port, protocol) = serve_tls(Arc::new(config), true);
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=require&sslnegotiation=direct");
    let Established { client, driving: task, .. } = establish(&connector(&url)).await.unwrap();
    drop(client);
    task.await.unwrap();
    assert_eq!(protocol.recv_timeout(TEST_TIMEOUT).unwrap().as_deref(), Some(&b"postgresql"[..]));
}

async fn refused(server: Arc<ServerConfig>, query: &str) -> String {
    let (port, _seen) = serve_tls(server, false);
    let url = format!("postgres://u@db.example:{port}/d?hostaddr=127.0.0.1&{query}");
    let error = failure(&url).await;
    assert_eq!(error.code(), ErrorCode::TLS, "{error:?}");
    assert!(matches!(error, ConnectError::Tls { .. }));
    let text = error.to_string();
    let address = format!("could not connect to PostgreSQL at db.example:{port} (127.0.0.1): ");
    text.strip_prefix(&address).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn certificate_error_names_the_reason() {
    let authority = Authority::new();
    let (file, foreign) = (authority.file(), Authority::new().file());

    let full = format!("sslmode=verify-full&sslrootcert={}", file.path().display());
    let foreign = format!("sslmode=verify-ca&sslrootcert={}", foreign.path().display());
    assert_eq!(
        refused(authority.server(&["other.example", "10.1.2.3"]), &full).await,
        "verification of the server's certificate failed (sslmode=verify-full): it is for other names than \
         `db.example` (other.example, 10.1.2.3): connect by one of them, or give sslmode=verify-ca"
    );
    assert!(refused(authority.server(&[]), &full).await.contains("it has no host name as subjectAltName"));
    let error = refused(authority.server(&["db.example"]), &foreign).await;
    let expected = "verification of the server's certificate failed (sslmode=verify-ca): unknown issuer: \
                    give the certificate of its authority as sslrootcert (`";
    assert!(error.starts_with(expected) && error.contains(".pem` was read at 2"), "{error}");
}

#[tokio::test]
async fn certificate_error_does_not_fall_back_to_plaintext() {
    let foreign = Authority::new().file();
    let query = format!("sslrootcert={}", foreign.path().display());
    let error = refused(Authority::new().server(&["db.example"]), &query).await;
    assert!(error.contains("(sslmode=prefer): unknown issuer"), "{error}");
}

#[tokio::test]
async fn server_without_tls_is_an_error_only_if_required() {
    let plain = |mut socket: TcpStream| {
        assert_eq!(read_untyped(&mut socket), SSL_REQUEST);
        socket.write_all(b"N").unwrap();
        let mut first = [0];
        if socket.peek(&mut first).is_ok_and(|read| read > 0) {
            read_untyped(&mut socket);
            socket.write_all(&authenticated()).unwrap();
            read_to_end(&mut socket);
        }
    };
    let (port, _seen) = serve(plain);
    assert!(establish(&connector(&format!("postgres://u@127.0.0.1:{port}/d"))).await.is_ok());
    let (port, _seen) = serve(plain);
    let error = failure(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=require")).await;
    assert_eq!(error.code(), ErrorCode::TLS);
    assert_eq!(
        error.to_string(),
        format!(
            "could not connect to PostgreSQL at 127.0.0.1:{port}: the server does not offer TLS (sslmode=require): enable \
             it there, or give sslmode=prefer"
        )
    );
}

#[tokio::test]
async fn cancel_request_is_encrypted_and_awaits_close() {
    let config = Authority::new().server(&["localhost"]);
    let mut first = None;
    let (port, requests) = serve_each(2, move |mut socket| {
        assert_eq!(read_untyped(&mut socket), SSL_REQUEST);
        socket.write_all(b"S").unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket);
        let opening = read_untyped(&mut stream);
        if first.is_none() {
            stream.write_all(&authenticated_as(4711, -17)).unwrap();
            first = Some(stream);
            return None;
        }
        // The client sends neither a TLS `close_notify` nor the end of its stream before the server closes.
        stream.sock.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Some((opening, std::io::Read::read(&mut stream.sock, &mut [0]).map_err(|error| error.kind())))
    });
    let connector = connector(&format!("postgres://u@localhost:{port}/d?hostaddr=127.0.0.1&sslmode=require"));
    let Established { client, driving: _task, peer, .. } = establish(&connector).await.unwrap();
    connector.cancel(&client.cancel_token(), &peer).await.unwrap();
    let expected = [80_877_102_i32.to_be_bytes(), 4711_i32.to_be_bytes(), (-17_i32).to_be_bytes()].concat();
    assert_eq!(requests.iter().flatten().next(), Some((expected, Err(std::io::ErrorKind::WouldBlock))));
}
