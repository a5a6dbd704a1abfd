use std::sync::Mutex;

use super::*;
use crate::exporter::web_config::tests::{complain, look_every, reading, verified};

/// What is logged by this thread while it is kept: the tests' runtimes have one thread, and blocking ones are told.
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
async fn a_new_certificate_is_shown_to_the_next_connection() {
    let site = Site::new();
    let running = site.serve(TLS).await;
    let client = site.authority.client(None);
    let shown = async || {
        let stream = encrypted(&running, &client).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    site.certify();
    a_second_later().await;
    let second = shown().await;
    assert_ne!(first, second);
    assert_eq!(second, shown().await);
}

#[tokio::test]
async fn a_new_password_counts_for_the_next_request_on_a_connection_that_is_kept() {
    let site = Site::new();
    let running = site.serve(&format!("basic_auth_users:\n  alice: {}\n", *SESAME)).await;
    let mut client = running.connect().await;
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    site.web_yml(&format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("tahini", 4).unwrap()));
    a_second_later().await;
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "tahini")).await.status, 200);
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 401);
}

#[tokio::test]
async fn what_could_not_be_used_is_read_again_though_no_file_has_changed() {
    let site = Site::new();
    site.web_yml(&format!("basic_auth_users:\n  alice: {}\n", *SESAME));
    let mut exporter = site.exporter();
    look_every(&mut exporter, Duration::ZERO);
    let running = Running::start(&exporter).await;
    let first = reading(&exporter);
    assert_eq!(running.connect().await.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    assert!(Arc::ptr_eq(&first, &reading(&exporter)), "nothing has changed");
    complain(&exporter);
    assert_eq!(running.connect().await.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    let second = reading(&exporter);
    assert!(!Arc::ptr_eq(&first, &second), "it was not read again");
    assert_eq!(running.connect().await.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    assert!(Arc::ptr_eq(&second, &reading(&exporter)), "it was read and is good");
}

#[tokio::test]
async fn a_password_that_was_found_right_is_not_tried_anew_when_something_else_changes() {
    let site = Site::new();
    let users = format!("basic_auth_users:\n  alice: {}\n", *SESAME);
    site.web_yml(&users);
    let mut exporter = site.exporter();
    look_every(&mut exporter, Duration::ZERO);
    let running = Running::start(&exporter).await;
    let mut alice = running.connect().await;
    assert_eq!(alice.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    assert_eq!(verified(&exporter), 1);
    site.web_yml(&format!("{users}  bob: {}\n", *SESAME));
    assert_eq!(alice.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    // Counted anew with each reading.
    assert_eq!(verified(&exporter), 0);
    // The same password by another hash is another thing to find out.
    site.web_yml(&format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash("sesame", 4).unwrap()));
    assert_eq!(alice.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200);
    assert_eq!(verified(&exporter), 1);
}

#[tokio::test]
async fn files_are_not_looked_at_by_each_request() {
    let site = Site::new();
    site.web_yml(&format!("basic_auth_users:\n  alice: {}\n", *SESAME));
    let mut exporter = site.exporter();
    // Longer than any machine takes for what follows.
    look_every(&mut exporter, Duration::from_secs(3600));
    let running = Running::start(&exporter).await;
    let mut client = running.connect().await;
    site.web_yml(&format!("basic_auth_users:\n  bob: {}\n", *SESAME));
    assert_eq!(client.get_with("/-/healthy", &basic("alice", "sesame")).await.status, 200, "too early to look");
}

#[test]
fn what_cannot_be_used_leaves_what_was_before_and_is_logged_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::ERROR);
    let dispatch = tracing::Dispatch::new(subscriber.finish());
    let _here = tracing::dispatcher::set_default(&dispatch);
    // Blocking threads are the runtime's, and would log to nobody.
    let threads = dispatch.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&threads)))
        .build()
        .unwrap();
    runtime.block_on(async {
        let site = Site::new();
        let users = format!("basic_auth_users:\n  alice: {}\n", *SESAME);
        let older = format!("{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n");
        let tls = format!("{older}  min_version: TLS13\n");
        let own = site.authority.sign(&["prometheus"]);
        let client = site.authority.client(Some(&own));
        site.web_yml(&format!("{tls}{users}"));
        let mut exporter = site.exporter();
        look_every(&mut exporter, Duration::ZERO);
        let running = Running::start(&exporter).await;
        let (right, wrong) = (basic("alice", "sesame"), basic("alice", "hunter2"));
        let holds = async |said: &str| {
            for round in 0..2 {
                // What is written anew and is still no good is no news.
                let content = fs::read_to_string(site.path("web.yml")).unwrap();
                site.web_yml(&content);
                let answer = asked(&running, &client, "/-/healthy", &right).await.unwrap();
                assert_eq!(status(&answer), "HTTP/1.0 200 OK", "{said} {round}");
                let answer = asked(&running, &client, "/-/healthy", &wrong).await.unwrap();
                assert_eq!(status(&answer), "HTTP/1.0 401 Unauthorized", "{said} {round}");
                let answer = asked(&running, &site.authority.client(None), "/-/healthy", &right).await;
                assert!(answer.is_err(), "{said} {round}");
            }
            let text = log.text();
            assert_eq!(text.matches(said).count(), 1, "{said} in {text}");
        };
        site.web_yml("basic_auth_users:\n  alice: hunter2\n");
        holds("line 2: this is no hash").await;
        site.web_yml("");
        holds("it turns TLS off, which takes a restart").await;
        site.web_yml(&tls);
        holds("it has no users any more").await;
        site.web_yml(&format!("{TLS}{users}"));
        holds("it verifies clients less").await;
        site.web_yml(&format!("{older}{users}"));
        holds("it speaks an older version of TLS").await;
        let key = fs::read_to_string(site.path("server.key")).unwrap();
        site.web_yml(&format!("{tls}{users}"));
        site.write("server.key", &key[..key.len() / 2]);
        holds("holds no private key in PEM").await;
        site.write("server.key", &KeyPair::generate().unwrap().serialize_pem());
        holds("do not go together").await;
        fs::remove_file(site.path("server.key")).unwrap();
        holds("server.key` cannot be read: No such file").await;
        // What can be used again is.
        site.write("server.key", &key);
        site.web_yml(&format!("{tls}basic_auth_users:\n  alice: {}\n", bcrypt::hash("tahini", 4).unwrap()));
        for (password, said) in [("tahini", "HTTP/1.0 200 OK"), ("sesame", "HTTP/1.0 401 Unauthorized")] {
            let answer = asked(&running, &client, "/-/healthy", &basic("alice", password)).await.unwrap();
            assert_eq!(status(&answer), said);
        }
        let text = log.text();
        for secret in ["hunter2", "sesame", &SESAME, "PRIVATE"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let _ = running.stop().await;
    });
}
