//! The pools API of the demo's exporter.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::run::{RunningDemo, demo, start, wait_until};

/// The frequent operations of the shop.
const OPERATIONS: [&str; 5] = ["get_product", "list_orders", "place_order", "update_stock", "sales_report"];

fn pools(demo: &RunningDemo, query: &str) -> Value {
    let (status, body) = demo.get(&format!("/api/v1/pools{query}")).expect("a response");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["pools"].take()
}

#[test]
fn holders_have_operation_and_call_site() {
    let demo = start(&mut demo(&[]));
    let (mut operations, mut call_sites) = (BTreeSet::new(), BTreeSet::new());
    wait_until("every frequent operation among the holders", || {
        let pools = pools(&demo, "?pool=shop");
        let shop = &pools[0];
        assert_eq!((&shop["name"], &shop["state"]["max"]), (&"shop".into(), &10.into()), "{pools}");
        let holders = shop["holders"].as_array().expect("a list");
        assert_eq!(shop["state"]["used"], holders.len(), "{pools}");
        for holder in holders {
            operations.insert(holder["operation"].as_str().expect("a name").to_owned());
            call_sites.insert(holder["call_site"].as_str().expect("a call site").to_owned());
        }
        OPERATIONS.iter().all(|operation| operations.contains(*operation))
    });
    assert!(call_sites.iter().all(|site| site.starts_with("crates/cli/src/demo/shop/handlers.rs:")), "{call_sites:?}");
    assert_eq!(pools(&demo, "?pool=another"), Value::Array(Vec::new()));
}

#[test]
fn waiters_have_operation_and_phase() {
    let demo = start(&mut demo(&[]));
    wait_until("a queued checkout of a burst", || {
        let pools = pools(&demo, "");
        let waiters = pools[0]["waiters"].as_array().expect("a list");
        waiters.iter().any(|waiter| waiter["operation"] == "checkout_rush" && waiter["phase"] == "queue")
    });
}
