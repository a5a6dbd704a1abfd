//! The binary: its output, its exit codes, and the processes and files that it leaves.

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
