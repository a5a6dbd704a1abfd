//! Reloads of the web configuration.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use rcgen::KeyPair;

use super::super::harness::{FrozenClock, Running};
use super::{SESAME, Site, TLS, basic, encrypted, get_tls, status};

/// The minimum time between two checks of the files.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn new_certificate_applies_to_the_next_connection() {
    let clock = FrozenClock::new();
    let site = Site::new();
    let running = site.serve(TLS).await;
    let client = site.authority.client(None);
    let shown = async || {
        let stream = encrypted(&running, &client).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    site.certify();
    clock.advance(FILE_CHECK_INTERVAL).await;
    let second = shown().await;
    assert_ne!(first, second);
    assert_eq!(second, shown().await);
}

#[tokio::test]
async fn new_password_applies_to_the_next_request() {
    let clock = FrozenClock::new();
    let site = Site::new();
    let running = site.serve(&format!("basic_auth_users:\n  alice: {}\n", *SESAME)).await;
    let mut client = running.connect().await;
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    site.web_yml(&format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("tahini", 4).unwrap()));
    clock.advance(FILE_CHECK_INTERVAL).await;
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "tahini")).await.status, 200);
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 401);
}

/// An invalid configuration leaves the previous one in effect, and is logged once.
#[test]
fn invalid_configuration_is_ignored_and_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::ERROR);
    let dispatch = tracing::Dispatch::new(subscriber.finish());
    let _here = tracing::dispatcher::set_default(&dispatch);
    // The blocking threads of the runtime need the subscriber, too.
    let threads = dispatch.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&threads)))
        .build()
        .unwrap();
    runtime.block_on(async {
        let clock = FrozenClock::new();
        let site = Site::new();
        let users = format!("basic_auth_users:\n  alice: {}\n", *SESAME);
        let older = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
        let tls = format!("{older}  min_version: TLS13\n");
        let own = site.authority.sign(&["prometheus"]);
        let client = site.authority.client(Some(&own));
        site.web_yml(&format!("{tls}{users}"));
        let running = Running::start(&site.exporter()).await;
        let (right, wrong) = (basic("alice", "sesame"), basic("alice", "hunter2"));
        let is_ignored = async |logged: &str| {
            for round in 0..2 {
                // The same error again is not logged again.
                let content = fs::read_to_string(site.path("web.yml")).unwrap();
                site.web_yml(&content);
                clock.advance(FILE_CHECK_INTERVAL).await;
                let response = get_tls(&running, &client, "/-/healthy", &right).await.unwrap();
                assert_eq!(status(&response), "HTTP/1.0 200 OK", "{logged} {round}");
                let response = get_tls(&running, &client, "/-/healthy", &wrong).await.unwrap();
                assert_eq!(status(&response), "HTTP/1.0 401 Unauthorized", "{logged} {round}");
                let response = get_tls(&running, &site.authority.client(None), "/-/healthy", &right).await;
                assert!(response.is_err(), "{logged} {round}");
            }
            let text = log.text();
            assert_eq!(text.matches(logged).count(), 1, "{logged} in {text}");
        };
        site.web_yml("basic_auth_users:\n  alice: hunter2\n");
        is_ignored("line 2: invalid bcrypt hash").await;
        site.web_yml("");
        is_ignored("disabling TLS requires a restart").await;
        site.web_yml(&tls);
        is_ignored("removing all users, which would authorize everyone, requires a restart").await;
        site.web_yml(&format!("{TLS}{users}"));
        is_ignored("weakening the verification of client certificates requires a restart").await;
        site.web_yml(&format!("{older}{users}"));
        is_ignored("allowing an older version of TLS requires a restart").await;
        let key = fs::read_to_string(site.path("server.key")).unwrap();
        site.web_yml(&format!("{tls}{users}"));
        site.write("server.key", &key[..key.len() / 2]);
        is_ignored("contains no unencrypted private key").await;
        site.write("server.key", &KeyPair::generate().unwrap().serialize_pem());
        is_ignored("do not match").await;
        fs::remove_file(site.path("server.key")).unwrap();
        is_ignored("server.key` cannot be read: No such file").await;
        // A valid configuration applies again.
        site.write("server.key", &key);
        site.web_yml(&format!("{tls}basic_auth_users:\n  alice: {}\n", bcrypt::hash("tahini", 4).unwrap()));
        clock.advance(FILE_CHECK_INTERVAL).await;
        for (password, expected) in [("tahini", "HTTP/1.0 200 OK"), ("sesame", "HTTP/1.0 401 Unauthorized")] {
            let response = get_tls(&running, &client, "/-/healthy", &basic("alice", password)).await.unwrap();
            assert_eq!(status(&response), expected);
        }
        let text = log.text();
        for secret in ["hunter2", "sesame", &SESAME, "PRIVATE"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let _ = running.stop().await;
    });
}
