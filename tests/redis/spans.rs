//! The spans of commands, as a collector receives them.

use opentelemetry_semantic_conventions::attribute as names;
use poolscope::redis::redis::{AsyncCommands, pipe};
use poolscope_testing::redis::Server;

use crate::support::{TestPool, traced};

#[tokio::test]
async fn commands_have_client_spans_without_keys() {
    let server = Server::builder().tcp().start().await.unwrap();
    let test = TestPool::single(&format!("{}/2", server.tcp_url().unwrap()));
    drop(test.get().await);
    let (trace, ()) = traced("GET /cached", async {
        let mut connection = test.get().await;
        let _: () = connection.set("key-of-a-user", "value").await.unwrap();
        connection.lpush::<_, _, i64>("key-of-a-user", 1).await.unwrap_err();
        let _: (i64,) = pipe().atomic().incr("n", 1).query_async(&mut connection).await.unwrap();
    })
    .await;
    let spans = trace.spans(6).await;
    // Those of a pipeline begin together.
    let mut commands: Vec<_> = spans[1..].iter().map(|span| &*span.name).collect();
    commands.sort_unstable();
    assert_eq!(commands, ["EXEC", "INCRBY", "LPUSH", "MULTI", "SET"], "{spans:#?}");
    for span in &spans[1..] {
        let attribute = |name: &str| span.attributes.get(name).map(String::as_str);
        assert_eq!(attribute(names::DB_SYSTEM_NAME), Some("redis"));
        assert_eq!(attribute(names::DB_OPERATION_NAME), Some(&*span.name));
        assert_eq!(attribute(names::DB_NAMESPACE), Some("2"));
        assert_eq!(attribute(names::SERVER_ADDRESS), Some("127.0.0.1"));
        assert_eq!(attribute(names::SERVER_PORT), Some(&*server.port().unwrap().to_string()));
        let failed = span.name == "LPUSH";
        assert_eq!(attribute(names::ERROR_TYPE), failed.then_some("WRONGTYPE"));
        assert_eq!(attribute(names::DB_RESPONSE_STATUS_CODE), failed.then_some("WRONGTYPE"));
        assert!(!format!("{span:?}").contains("key-of"), "{span:?}");
    }
}
