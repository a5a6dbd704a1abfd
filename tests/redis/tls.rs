//! TLS, with a certificate made for the test.

use std::io::Write;

use poolscope::redis::CheckoutError;
use poolscope::redis::redis::AsyncCommands;
use poolscope_testing::redis::Server;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::NamedTempFile;

use crate::support::{TestPool, with_deadline};

/// Returns the certificate of a new authority, and the authority.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("authority {}", fastrand::u64(..)));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), Issuer::new(params, key))
}

#[tokio::test]
async fn server_is_verified() {
    let (certificate_of_authority, issuer) = authority();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let server = Server::builder()
        .tls(&certificate.pem(), &key.serialize_pem(), &certificate_of_authority)
        .setting("user", "app on >secret ~app:* +@all")
        .start()
        .await
        .unwrap();
    let [file, other] = [certificate_of_authority, authority().0].map(|pem| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(pem.as_bytes()).unwrap();
        file
    });

    let url = server.tls_url().unwrap();
    let trusted = format!("sslrootcert={}", file.path().display());
    for query in [trusted.clone(), format!("{trusted}&protocol=resp3"), "sslmode=require".to_owned()] {
        let test = TestPool::single(&format!("{url}?{query}"));
        let _: () = test.get().await.set("a", 1).await.unwrap();
        assert_eq!((test.commands("SET", None), test.snapshot().wires_lost), (1, 0), "{query}");
    }
    // With the login of an ACL user, and a database.
    let app = url.replace("rediss://", "rediss://app:secret@");
    for protocol in ["resp2", "resp3"] {
        let test = TestPool::single(&format!("{app}/5?{trusted}&protocol={protocol}"));
        let mut connection = test.get().await;
        let _: () = connection.set("app:a", protocol).await.unwrap();
        assert_eq!(connection.set::<_, _, ()>("b", 1).await.unwrap_err().code(), Some("NOPERM"));
        drop(connection);
        assert_eq!(
            TestPool::single(&format!("{url}/0?{trusted}")).get().await.exists::<_, bool>("app:a").await,
            Ok(false)
        );
    }
    for (url, expected) in [
        (format!("{url}?sslrootcert={}", other.path().display()), "unknown issuer"),
        (format!("{}?{trusted}", url.replace("localhost", "127.0.0.1")), "other names"),
    ] {
        let test = TestPool::single(&url);
        let error = with_deadline("an error", test.pool.get()).await.err().unwrap();
        let CheckoutError::Connect { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.code().as_str(), "tls", "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}
