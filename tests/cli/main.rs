//! The binary, as somebody uses it who has nothing else: its output, its exit codes, and what remains of it.

mod api;
mod ends;
mod examples;
mod healthy;
#[path = "../support/http.rs"]
mod http;
mod inputs;
mod load;
#[path = "../support/otlp.rs"]
mod otlp;
mod own_server;
#[path = "../support/remains.rs"]
mod remains;
#[path = "../support/run.rs"]
mod run;
mod scenarios;
#[path = "../support/scrape.rs"]
mod scrape;
mod serve;
mod shop;
mod terminal;
mod traces;
mod web;
