//! The binary, as somebody uses it who has nothing else: its output, its exit codes, and what remains of it.

mod ends;
mod inputs;
mod load;
mod own_server;
mod run;
#[path = "../support/scrape.rs"]
mod scrape;
mod terminal;
