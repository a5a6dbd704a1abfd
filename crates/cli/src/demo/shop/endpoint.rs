//! What the shop can be asked for: one table, by which it finds who serves a request and the workload what to ask for.

use std::fmt::Write;

use http::Method;

/// What the shop can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Endpoint {
    GetProduct,
    ListOrders,
    PlaceOrder,
    UpdateStock,
    ReserveStock,
    MoveStock,
    SalesReport,
    CountCustomers,
    PrintInvoice,
    CheckoutRush,
}

/// Each with its method and its route. Where the path has a number, the route says `{id}`.
static TABLE: [(Endpoint, Method, &str); 10] = [
    (Endpoint::GetProduct, Method::GET, "/products/{id}"),
    (Endpoint::ListOrders, Method::GET, "/orders"),
    (Endpoint::PlaceOrder, Method::POST, "/orders"),
    (Endpoint::UpdateStock, Method::PUT, "/products/{id}/stock"),
    (Endpoint::ReserveStock, Method::POST, "/reservations"),
    (Endpoint::MoveStock, Method::POST, "/moves"),
    (Endpoint::SalesReport, Method::GET, "/reports/sales"),
    (Endpoint::CountCustomers, Method::GET, "/customers/count"),
    (Endpoint::PrintInvoice, Method::GET, "/invoices/{id}"),
    (Endpoint::CheckoutRush, Method::POST, "/checkout"),
];

/// What a path with a number in it has in the place of that.
const ID: &str = "{id}";

impl Endpoint {
    /// Its method.
    pub(in crate::demo) fn method(self) -> Method {
        self.entry().1.clone()
    }

    /// Its route: the path, without what differs from request to request.
    pub(in crate::demo) fn route(self) -> &'static str {
        self.entry().2
    }

    /// Its path, with this number where it has one.
    pub(in crate::demo) fn path(self, id: i32) -> String {
        self.route().replace(ID, &id.to_string())
    }

    fn entry(self) -> &'static (Self, Method, &'static str) {
        // Every variant is in the table, and in its place: a test holds that.
        &TABLE[self as usize]
    }
}

/// The route of a path, and the number in it, if it has one. `None` if the shop has nothing there.
pub(super) fn routed(path: &str) -> Option<(&'static str, Option<i32>)> {
    TABLE.iter().find_map(|(_, _, route)| Some((*route, matched(route, path)?)))
}

/// What is asked for at a route by a method.
pub(super) fn endpoint(method: &Method, route: &str) -> Option<Endpoint> {
    TABLE.iter().find(|(_, of, at)| of == method && *at == route).map(|(endpoint, ..)| *endpoint)
}

/// The methods that a route knows, as the header `Allow` has them.
pub(super) fn allowed(route: &str) -> String {
    let methods: Vec<_> =
        TABLE.iter().filter(|(_, _, at)| *at == route).map(|(_, method, _)| method.as_str()).collect();
    methods.join(", ")
}

/// The number in the path, if that is of this route.
fn matched(route: &str, path: &str) -> Option<Option<i32>> {
    let Some((before, after)) = route.split_once(ID) else {
        return (path == route).then_some(None);
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    // `parse` takes a sign.
    id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten().map(Some)
}

/// All that can be asked for, a line each.
pub(super) fn listed() -> String {
    TABLE.iter().fold(String::new(), |mut text, (_, method, route)| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:<4} {route}", method.as_str());
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_is_found_at_its_own_path() {
        for (endpoint, method, route) in &TABLE {
            assert_eq!((endpoint.method(), endpoint.route()), (method.clone(), *route), "{endpoint:?} is in its place");
            let path = endpoint.path(17);
            let id = route.contains(ID).then_some(17);
            assert_eq!(routed(&path), Some((*route, id)), "{path}");
            assert_eq!(super::endpoint(method, route), Some(*endpoint));
        }
    }

    #[test]
    fn other_paths_have_no_route() {
        for path in ["/", "", "/orders/", "/products/", "/products/+1", "/products/x", "/products/99999999999", "/x"] {
            assert_eq!(routed(path), None, "{path}");
        }
        assert_eq!(endpoint(&Method::DELETE, "/orders"), None);
        assert_eq!(allowed("/orders"), "GET, POST");
    }
}
