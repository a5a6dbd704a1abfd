//! The binary: its output, its exit codes, and the processes and files that it leaves.

mod api;
#[path = "../support/certificates.rs"]
mod certificates;
mod diagnose;
mod existing_server;
mod healthy;
mod incidents;
mod inputs;
mod load;
mod outputs;
mod proxy;
mod proxy_clients;
mod proxy_regress;
mod proxy_resources;
#[path = "../support/pseudo_terminal.rs"]
mod pseudo_terminal;
mod rogue;
#[path = "../support/run.rs"]
mod run;
mod scenarios;
mod secrets;
mod serve;
mod shop;
mod shutdown;
mod soak;
mod stalled_log;
mod terminal;
mod top;
mod traces;
mod web;
