#![allow(clippy::unwrap_used)]

use std::net::TcpStream;
use std::sync::{Arc, mpsc};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::super::tls::tests::Authority;
use super::*;

const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// A server that offers TLS and lets everybody in. Sends back the ALPN protocol.
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
        rest(&mut stream);
        protocol
    })
}

#[tokio::test]
async fn a_server_whose_certificate_verifies_is_connected_to() {
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
async fn direct_tls_names_its_protocol() {
    let mut config = (*Authority::new().server(&["localhost"])).clone();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let (port, protocol) = serve_tls(Arc::new(config), true);
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=require&sslnegotiation=direct");
    let Established { client, task, .. } = establish(&connector(&url)).await.unwrap();
    drop(client);
    task.await.unwrap();
    assert_eq!(protocol.recv_timeout(SOON).unwrap().as_deref(), Some(&b"postgresql"[..]));
}

async fn refused(server: Arc<ServerConfig>, query: &str) -> String {
    let (port, _seen) = serve_tls(server, false);
    let url = format!("postgres://u@db.example:{port}/d?hostaddr=127.0.0.1&{query}");
    let error = failure(&url).await;
    assert_eq!(error.code(), ErrorCode::TLS, "{error:?}");
    assert!(matches!(error, ConnectError::Tls { .. }));
    error.to_string()
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_an_error_that_says_why() {
    let authority = Authority::new();
    let (file, foreign) = (authority.file(), Authority::new().file());

    let full = format!("sslmode=verify-full&sslrootcert={}", file.path().display());
    let foreign = format!("sslmode=verify-ca&sslrootcert={}", foreign.path().display());
    assert_eq!(
        refused(authority.server(&["other.example", "10.1.2.3"]), &full).await,
        "the server's certificate does not verify (sslmode=verify-full): it is for other names than \
         `db.example` (other.example, 10.1.2.3): connect by one of them, or give sslmode=verify-ca"
    );
    assert!(refused(authority.server(&[]), &full).await.contains("it names no host as subjectAltName"));
    assert_eq!(
        refused(authority.server(&["db.example"]), &foreign).await,
        "the server's certificate does not verify (sslmode=verify-ca): unknown issuer: \
         give the certificate of its authority as sslrootcert"
    );
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_no_reason_for_plaintext() {
    let foreign = Authority::new().file();
    let query = format!("sslrootcert={}", foreign.path().display());
    let error = refused(Authority::new().server(&["db.example"]), &query).await;
    assert!(error.contains("(sslmode=prefer): unknown issuer"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error_only_where_tls_is_required() {
    let plain = |mut socket: TcpStream| {
        assert_eq!(read_untyped(&mut socket), SSL_REQUEST);
        socket.write_all(b"N").unwrap();
        let mut first = [0];
        if socket.peek(&mut first).is_ok_and(|read| read > 0) {
            read_untyped(&mut socket);
            socket.write_all(&authenticated()).unwrap();
            rest(&mut socket);
        }
    };
    let (port, _seen) = serve(plain);
    assert!(establish(&connector(&format!("postgres://u@127.0.0.1:{port}/d"))).await.is_ok());
    let (port, _seen) = serve(plain);
    let error = failure(&format!("postgres://u@127.0.0.1:{port}/d?sslmode=require")).await;
    assert_eq!(error.code(), ErrorCode::TLS);
    assert_eq!(
        error.to_string(),
        "the server does not offer TLS (sslmode=require): turn it on there, or give sslmode=prefer"
    );
}

#[tokio::test]
async fn a_cancellation_is_encrypted_as_its_connection_is_and_waits_for_the_end() {
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
        // Neither a leave in terms of TLS nor the end of the client's side precedes the server's end.
        stream.sock.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Some((opening, std::io::Read::read(&mut stream.sock, &mut [0]).map_err(|error| error.kind())))
    });
    let connector = connector(&format!("postgres://u@localhost:{port}/d?hostaddr=127.0.0.1&sslmode=require"));
    let Established { client, task: _task, peer } = establish(&connector).await.unwrap();
    connector.cancel(&client.cancel_token(), &peer).await.unwrap();
    let expected = [80_877_102_i32.to_be_bytes(), 4711_i32.to_be_bytes(), (-17_i32).to_be_bytes()].concat();
    assert_eq!(requests.iter().flatten().next(), Some((expected, Err(std::io::ErrorKind::WouldBlock))));
}
