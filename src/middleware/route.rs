//! Which route a request took.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Uri};

use crate::telemetry::RequestMethod;

/// What is known of a request before it is served.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// What was asked for.
    pub uri: &'a Uri,
    /// What it said beside that.
    pub headers: &'a HeaderMap,
    /// What others have left with it.
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

/// Says what the route of a request is.
pub(super) type RouteBy = Arc<dyn for<'a> Fn(Head<'a>) -> Option<Cow<'a, str>> + Send + Sync>;

/// What the framework found, if it is one that leaves that with the request.
pub(super) fn matched<'a>(head: &Head<'a>) -> Option<&'a str> {
    #[cfg(feature = "axum")]
    return head.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str);
    #[cfg(not(feature = "axum"))]
    {
        let _ = head;
        None
    }
}

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
    fn methods_are_those_of_http_and_all_others_are_one() {
        for word in RequestMethod::ALL {
            let named = Method::from_bytes(word.as_str().as_bytes()).unwrap();
            assert_eq!(method(&named), *word);
        }
        assert_eq!(method(&Method::from_bytes(b"PROPFIND").unwrap()), RequestMethod::Other);
        assert_eq!(method(&Method::from_bytes(b"get").unwrap()), RequestMethod::Other, "methods are case-sensitive");
    }
}
