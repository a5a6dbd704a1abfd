//! The parts of a checkout that only requests need: the request, its costs, and the limit of its route. They are
//! entered only within a request scope, and compiled only with the feature `middleware`.

mod checkout;
mod route_limits;
mod scope;

pub(super) use self::checkout::{Entry, RequestCheckout};
pub(super) use self::route_limits::LayerLimits;
pub(crate) use self::route_limits::RouteLimits;
pub(crate) use self::scope::{ActiveRequest, LayerConfig, ScopeGuard, count_retry, current, is_active};
pub(super) use self::scope::{begin_checkout, operation, route_key};
