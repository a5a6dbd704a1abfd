//! The endpoints of the shop, in one table for the router and the workload.

use std::fmt::Write;

use http::Method;

/// An endpoint of the shop.
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

/// The endpoints with their methods and routes, in the order of the variants. A number in the path is `{id}` in the route.
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

/// The placeholder of a number in a route.
const ID: &str = "{id}";

impl Endpoint {
    /// Returns its method.
    pub(in crate::demo) fn method(self) -> Method {
        self.entry().1.clone()
    }

    /// Returns its route, which is the path with a placeholder for the number.
    pub(in crate::demo) fn route(self) -> &'static str {
        self.entry().2
    }

    /// Returns its path, with this number in place of the placeholder.
    pub(in crate::demo) fn path(self, id: i32) -> String {
        self.route().replace(ID, &id.to_string())
    }

    fn entry(self) -> &'static (Self, Method, &'static str) {
        // A test checks that the table has the order of the variants.
        &TABLE[self as usize]
    }
}

/// Returns the route of a path, and the number in it, if it has one; `None` for an unknown path.
pub(super) fn find_route(path: &str) -> Option<(&'static str, Option<i32>)> {
    TABLE.iter().find_map(|(_, _, route)| Some((*route, match_route(route, path)?)))
}

/// Returns the endpoint of a method and a route.
pub(super) fn endpoint(method: &Method, route: &str) -> Option<Endpoint> {
    TABLE
        .iter()
        .find(|(_, its_method, its_route)| its_method == method && *its_route == route)
        .map(|(endpoint, ..)| *endpoint)
}

/// Returns the methods of a route, in the format of the header `Allow`.
pub(super) fn allowed(route: &str) -> String {
    let methods: Vec<_> =
        TABLE.iter().filter(|(_, _, its_route)| *its_route == route).map(|(_, method, _)| method.as_str()).collect();
    methods.join(", ")
}

/// Returns the number in the path, if the path matches the route.
fn match_route(route: &str, path: &str) -> Option<Option<i32>> {
    let Some((before, after)) = route.split_once(ID) else {
        return (path == route).then_some(None);
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    // `parse` would accept a sign.
    id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.parse().ok()).flatten().map(Some)
}

/// Lists the endpoints, one a line.
pub(super) fn list() -> String {
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
    fn every_endpoint_is_found_by_its_path() {
        for (endpoint, method, route) in &TABLE {
            assert_eq!(
                (endpoint.method(), endpoint.route()),
                (method.clone(), *route),
                "{endpoint:?}: order of the table"
            );
            let path = endpoint.path(17);
            let id = route.contains(ID).then_some(17);
            assert_eq!(find_route(&path), Some((*route, id)), "{path}");
            assert_eq!(super::endpoint(method, route), Some(*endpoint));
        }
    }

    #[test]
    fn other_paths_have_no_route() {
        for path in ["/", "", "/orders/", "/products/", "/products/+1", "/products/x", "/products/99999999999", "/x"] {
            assert_eq!(find_route(path), None, "{path}");
        }
        assert_eq!(endpoint(&Method::DELETE, "/orders"), None);
        assert_eq!(allowed("/orders"), "GET, POST");
    }
}
