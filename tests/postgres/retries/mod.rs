//! Automatic retries against a real server.

mod classification;
mod connection_loss;
mod effects;
mod failover;
