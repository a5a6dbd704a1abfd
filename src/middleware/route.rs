//! The route and method of a request.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Uri};

use crate::labels::RequestMethod;

/// The head of a request, without its body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The HTTP method.
    pub method: &'a Method,
    /// The requested URI.
    pub uri: &'a Uri,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The extensions that outer layers inserted.
    pub extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    pub(super) fn of<B>(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

/// A function that returns the route of a request.
pub(super) type RouteBy = Arc<dyn for<'a> Fn(Head<'a>) -> Option<Cow<'a, str>> + Send + Sync>;

pub(super) fn method(method: &Method) -> RequestMethod {
    match *method {
        Method::GET => RequestMethod::Get,
        Method::HEAD => RequestMethod::Head,
        Method::POST => RequestMethod::Post,
        Method::PUT => RequestMethod::Put,
        Method::DELETE => RequestMethod::Delete,
        Method::PATCH => RequestMethod::Patch,
        Method::OPTIONS => RequestMethod::Options,
        Method::CONNECT => RequestMethod::Connect,
        Method::TRACE => RequestMethod::Trace,
        _ => RequestMethod::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_are_other() {
        for known in RequestMethod::ALL {
            let named = Method::from_bytes(known.as_str().as_bytes()).unwrap();
            assert_eq!(method(&named), *known);
        }
        assert_eq!(method(&Method::from_bytes(b"PROPFIND").unwrap()), RequestMethod::Other);
        assert_eq!(method(&Method::from_bytes(b"get").unwrap()), RequestMethod::Other, "methods are case-sensitive");
    }
}
