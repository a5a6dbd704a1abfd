//! Requests over real HTTP, and their accounting.

mod cancellation;
mod served;
mod server;
mod span_fields;
mod trace_context;
