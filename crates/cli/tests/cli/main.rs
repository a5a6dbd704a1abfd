//! The binary, as somebody uses it who has nothing else: its output, its exit codes, and what remains of it.

mod api;
mod ends;
mod healthy;
mod inputs;
mod load;
mod own_server;
#[path = "../support/run.rs"]
mod run;
mod scenarios;
mod serve;
mod shop;
mod terminal;
mod traces;
mod web;
