//! Who holds the demo's pool, as its exporter tells it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::run::{Up, demo, up, wait_until};

/// What the shop does, without what it seldom does.
const OPERATIONS: [&str; 5] = ["get_product", "list_orders", "place_order", "update_stock", "sales_report"];

fn pools(up: &Up, query: &str) -> Value {
    let (status, body) = up.get(&format!("/api/v1/pools{query}")).expect("an answer");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["pools"].take()
}

#[test]
fn a_demo_tells_for_which_operations_its_pool_is_held_and_where() {
    let up = up(&mut demo(&[]));
    let (mut operations, mut places) = (BTreeSet::new(), BTreeSet::new());
    wait_until("each of the shop's operations among the holders", || {
        let pools = pools(&up, "?pool=shop");
        let shop = &pools[0];
        assert_eq!((&shop["name"], &shop["state"]["max"]), (&"shop".into(), &10.into()), "{pools}");
        let holders = shop["holders"].as_array().expect("a list");
        assert_eq!(shop["state"]["used"], holders.len(), "{pools}");
        for holder in holders {
            operations.insert(holder["operation"].as_str().expect("a name").to_owned());
            places.insert(holder["call_site"].as_str().expect("a place").to_owned());
        }
        OPERATIONS.iter().all(|operation| operations.contains(*operation))
    });
    assert!(places.iter().all(|place| place.starts_with("crates/cli/src/demo/shop/handlers.rs:")), "{places:?}");
    assert_eq!(pools(&up, "?pool=another"), Value::Array(Vec::new()));
}

#[test]
fn a_rush_tells_who_waits_for_what() {
    let up = up(&mut demo(&[]));
    wait_until("a customer of the rush who waits for capacity", || {
        let pools = pools(&up, "");
        let waiters = pools[0]["waiters"].as_array().expect("a list");
        waiters.iter().any(|waiter| waiter["operation"] == "checkout_rush" && waiter["phase"] == "queue")
    });
}
