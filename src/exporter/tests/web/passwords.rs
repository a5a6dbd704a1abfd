use super::*;
use crate::exporter::web_config::tests::{verified, verified_on};

const USERS: &str = "basic_auth_users:\n  alice: ";

fn users() -> String {
    format!("{USERS}{}\n", *SESAME)
}

#[tokio::test]
async fn only_who_knows_a_password_gets_an_answer_whatever_is_asked_for() {
    let site = Site::new();
    let running = site.serve(&users()).await;
    let right = basic("alice", "sesame");
    for path in ["/", "/metrics", "/api/v1/pools", "/runbooks/", "/-/healthy", "/-/ready", "/nothing"] {
        let refused = running.get(path).await;
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.headers["www-authenticate"], r#"Basic realm="poolscope", charset="UTF-8""#);
        assert_eq!(refused.body, "This needs a user's name and password, and they are missing or wrong.\n");
        let answer = running.connect().await.get_with(path, &right).await;
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    assert_eq!(running.connect().await.request("DELETE", "/metrics").await.status, 401);
}

#[tokio::test]
async fn wrong_unknown_and_malformed_are_refused_alike() {
    let site = Site::new();
    let running = site.serve(&users()).await;
    let mut answers = Vec::new();
    for headers in [
        String::new(),
        basic("alice", "sesame "),
        basic("alice", ""),
        basic("Alice", "sesame"),
        basic("mallory", "sesame"),
        basic("", ""),
        "Authorization: Basic\r\n".to_owned(),
        "Authorization: Basic %%%\r\n".to_owned(),
        // No colon.
        "Authorization: Basic YWxpY2U=\r\n".to_owned(),
        "Authorization: Bearer sesame\r\n".to_owned(),
        basic("alice", "sesame").replace("Basic", "Digest"),
    ] {
        // Whoever is refused is not kept, or would keep out others.
        let mut client = running.connect().await;
        let answer = client.get_with("/metrics", &headers).await;
        assert_eq!(answer.headers["connection"], "close");
        answers.push((answer.status, answer.body, answer.headers.get("www-authenticate").cloned()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 401), "{answers:?}");
    let mut client = running.connect().await;
    assert_eq!(client.get_with("/metrics", &basic("alice", "sesame").replace("Basic", "bAsIc")).await.status, 200);
}

#[tokio::test]
async fn scrapes_that_are_refused_are_counted() {
    let site = Site::new();
    let running = site.serve(&users()).await;
    for path in ["/metrics", "/metrics", "/", "/-/healthy"] {
        assert_eq!(running.get(path).await.status, 401, "{path}");
    }
    let page = running.connect().await.get_with("/metrics", &basic("alice", "sesame")).await.body;
    for line in ["poolscope_scrapes_total{code=\"401\"} 2", "poolscope_scrape_duration_seconds_count 0"] {
        assert!(page.lines().any(|own| own == line), "{line} is not in {page}");
    }
}

#[tokio::test]
async fn a_password_is_verified_once_whether_it_is_right_or_wrong_and_whoever_has_it() {
    let site = Site::new();
    site.web_yml(&users());
    let exporter = site.exporter();
    let running = Running::start(&exporter).await;
    for (user, password, status, so_far) in [
        ("alice", "sesame", 200, 1),
        ("alice", "sesame", 200, 1),
        ("alice", "wrong", 401, 2),
        ("alice", "wrong", 401, 2),
        // Somebody unknown costs as much as somebody known.
        ("mallory", "wrong", 401, 3),
        ("mallory", "wrong", 401, 3),
        ("alice", "sesame", 200, 3),
    ] {
        let mut client = running.connect().await;
        assert_eq!(client.get_with("/-/healthy", &basic(user, password)).await.status, status, "{user} {password}");
        assert_eq!(verified(&exporter), so_far, "{user} {password}");
    }
    let no_credentials = running.get("/-/healthy").await;
    assert_eq!((no_credentials.status, verified(&exporter)), (401, 3));
    // Requests are served on this thread, and on no other.
    assert!(!verified_on(&exporter).contains(&std::thread::current().id()));
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_neither_forgets_nor_starves_a_right_one() {
    // Some milliseconds for each, so that the flood is still there when it is looked for.
    let hash = bcrypt::hash("sesame", 6).unwrap();
    let site = Site::new();
    site.web_yml(&format!("{USERS}{hash}\n  bob: {hash}\n"));
    let exporter = site.exporter();
    let running = Running::start(&exporter).await;
    let mut alice = running.connect().await;
    let known = basic("alice", "sesame");
    assert_eq!(alice.get_with("/-/healthy", &known).await.status, 200);

    let flood: Vec<_> = (0..100)
        .map(|number| {
            let address = running.address;
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for round in 0..4 {
                    let mut client = Client::connect(address).await;
                    let wrong = basic("alice", &format!("{number} {round}"));
                    statuses.push(client.get_with("/-/healthy", &wrong).await.status);
                }
                statuses
            })
        })
        .collect();
    patiently(async {
        while verified(&exporter) < 5 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Alice's is remembered, so she waits for nobody's turn.
    let begun = verified(&exporter);
    assert_eq!(alice.get_with("/-/healthy", &known).await.status, 200);
    assert!(verified(&exporter) - begun < 50, "she waited for the flood");
    // Bob's is not, and has its turn.
    let mut bob = running.connect().await;
    assert_eq!(bob.get_with("/-/healthy", &basic("bob", "sesame")).await.status, 200);
    assert!(flood.iter().any(|client| !client.is_finished()), "the flood was over before he was");
    for client in flood {
        assert_eq!(patiently(client).await.unwrap(), [401; 4]);
    }
    let so_far = verified(&exporter);
    assert_eq!(alice.get_with("/-/healthy", &known).await.status, 200);
    assert_eq!(verified(&exporter), so_far, "four hundred wrong ones have her forgotten");
}

#[tokio::test]
async fn headers_stand_on_every_answer_in_place_of_its_own() {
    let site = Site::new();
    let headers = "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: DENY\n    \
                   Content-Security-Policy: frame-ancestors 'none'\n    Strict-Transport-Security: max-age=60\n    \
                   X-XSS-Protection: ''\n";
    let running = site.serve(&format!("{headers}{}", users())).await;
    let right = basic("alice", "sesame");
    for (path, credentials) in [("/", &*right), ("/metrics", &right), ("/nothing", &right), ("/metrics", "")] {
        let answer = running.connect().await.get_with(path, credentials).await;
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        assert_eq!(answer.headers["content-security-policy"], "frame-ancestors 'none'", "{path}");
        assert_eq!(answer.headers["strict-transport-security"], "max-age=60", "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(!answer.headers.contains_key("x-xss-protection"), "{path}");
    }
}

#[tokio::test]
async fn a_file_that_sets_nothing_leaves_the_exporter_as_it_is() {
    let site = Site::new();
    for nothing in ["", "# nothing\n", "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users:\n"] {
        site.web_yml(nothing);
        let exporter = site.exporter();
        let bound = exporter.bind("127.0.0.1:0").await.unwrap();
        assert_eq!(bound.scheme(), "http");
        let running = Running::start(&exporter).await;
        assert_eq!(running.get("/metrics").await.status, 200);
    }
}
