//! Messages that arrive whole are read in a shorter way, which must lead to the same as the general one.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::checker::{STARTUP, Side, replay};
use super::{client, error, message, ready};

/// Texts of statements, of which some have to be scanned.
const TEXTS: &[&str] = &[
    "SELECT n FROM numbers",
    "select f(1)",
    "INSERT INTO t VALUES ('a;b')",
    "UPDATE t SET a = 1;",
    "DELETE FROM t; COMMIT",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "(SELECT 1)",
    " \n SELECT 1",
    "/* COMMIT */ SELECT 1",
    "-- SELECT\nCOMMIT",
    "BEGIN",
    "BEGIN ISOLATION LEVEL SERIALIZABLE",
    "commit",
    "COMMIT;",
    "ROLLBACK",
    "ROLLBACK TO sp",
    "rollback",
    "RELEASE sp",
    "SAVEPOINT sp",
    "EXECUTE s1",
    "VACUUM",
    "S",
    "",
    ";",
];

const NAMES: &[&str] = &["", "s1", "s2", "s12345", "seven77", "eight888", "a name that is longer than any word"];

/// What statements whose texts do not show it turned out to be.
const COMMAND_TAGS: &[&str] = &["SELECT 1", "INSERT 0 1", "COMMIT", "ROLLBACK PREPARED"];

#[derive(Clone, Debug)]
enum Command {
    Query(&'static str),
    Parse(&'static str, &'static str, bool),
    Bind(&'static str, &'static str),
    Execute(&'static str),
    Close(u8, &'static str),
    /// Messages without a body of interest, or with an invalid one.
    Others(&'static str),
    Server(Vec<u8>),
}

fn commands() -> impl Strategy<Value = Command> {
    let text = || select(TEXTS);
    let name = || select(NAMES);
    prop_oneof![
        3 => text().prop_map(Command::Query),
        3 => (name(), text(), any::<bool>()).prop_map(|(name, text, typed)| Command::Parse(name, text, typed)),
        3 => (select(&["", "", "", "p", "portal12"][..]), name()).prop_map(|(portal, name)| Command::Bind(portal, name)),
        4 => select(&["", "", "p"][..]).prop_map(Command::Execute),
        1 => (select(&b"SSPx"[..]), name()).prop_map(|(kind, name)| Command::Close(kind, name)),
        5 => select(&["S", "S", "S", "D", "H", "c", "d", "P", "B", "BES", "PDS", "CS", "Q"][..]).prop_map(Command::Others),
        8 => select(&b"ITE"[..]).prop_map(|status| Command::Server(ready(status))),
        8 => select(&b"123nsITtDdCCANHG"[..]).prop_map(|tag| Command::Server(match tag {
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' => message(tag, b""),
            _ => message(tag, b"COMMIT\0"),
        })),
        1 => select(&["22P02", "26000", "42P05"][..]).prop_map(|code| Command::Server(error("ERROR", code))),
    ]
}

fn encode(command: &Command) -> (Side, Vec<u8>) {
    let parameters = [0, 1, 0, 0, 0, 1, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0];
    let bytes = match command {
        Command::Query(text) => message(b'Q', &[text.as_bytes(), b"\0"].concat()),
        Command::Parse(name, text, typed) => {
            let types: &[u8] = if *typed { &[0, 1, 0, 0, 0, 23] } else { &[0, 0] };
            message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0", types].concat())
        }
        Command::Bind(portal, name) => {
            message(b'B', &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0", &parameters].concat())
        }
        Command::Execute(portal) => message(b'E', &[portal.as_bytes(), b"\0\0\0\0\0"].concat()),
        Command::Close(kind, name) => message(b'C', &[&[*kind], name.as_bytes(), b"\0"].concat()),
        Command::Others(tags) => client(tags),
        Command::Server(bytes) => return (Side::Server, bytes.clone()),
    };
    (Side::Client, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    // Most of these streams break the protocol at some point, where the comparison ends.
    #[test]
    fn any_messages_read_the_same_in_parts(
        commands in vec((commands(), any::<bool>()), 1..30),
        damage in proptest::option::weighted(0.1, (any::<Index>(), any::<Index>(), any::<u8>())),
    ) {
        let mut stream: Vec<(Side, Vec<u8>)> = STARTUP.map(|(from, bytes)| (from, bytes.to_vec())).to_vec();
        for (command, joins) in &commands {
            let (from, bytes) = encode(command);
            match stream.last_mut() {
                Some((last, before)) if *last == from && *joins => before.extend(bytes),
                _ => stream.push((from, bytes)),
            }
        }
        if let Some((read, place, byte)) = damage {
            let read = read.index(stream.len());
            let place = place.index(stream[read].1.len());
            stream[read].1[place] = byte;
        }
        let stream: Vec<_> = stream.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        let _ = replay(&stream);
    }

    // What a driver sends, in any order of statements, always follows the protocol.
    #[test]
    fn queries_of_a_driver_read_the_same_in_parts(
        queries in vec(
            (select(TEXTS), select(NAMES), 0..4_u8, select(&b"ITE"[..]), any::<bool>(), select(COMMAND_TAGS)),
            1..20,
        ),
    ) {
        let mut stream: Vec<(Side, Vec<u8>)> = STARTUP.map(|(from, bytes)| (from, bytes.to_vec())).to_vec();
        let mut exchange = |requests: Vec<u8>, answers: &[u8], status: u8| {
            stream.push((Side::Client, requests));
            stream.push((Side::Server, [answers, &ready(status)].concat()));
        };
        for (text, name, kind, status, fails, tag) in queries {
            let (bind, execute) = (encode(&Command::Bind("", name)).1, encode(&Command::Execute("")).1);
            let tag = message(b'C', &[tag.as_bytes(), b"\0"].concat());
            let failure = if fails { error("ERROR", "22P02") } else { Vec::new() };
            match kind {
                0 => exchange(encode(&Command::Query(text)).1, &[message(b'D', b"row"), tag, failure].concat(), status),
                1 => exchange(
                    [encode(&Command::Parse(name, text, false)).1, client("DS")].concat(),
                    &[message(b'1', b""), message(b't', b"\0\0"), message(b'T', b"\0\0")].concat(),
                    status,
                ),
                2 => exchange(
                    [bind, execute, client("S")].concat(),
                    &[message(b'2', b""), message(b'D', b"row"), tag, failure].concat(),
                    status,
                ),
                _ => exchange([encode(&Command::Close(b'S', name)).1, client("S")].concat(), &message(b'3', b""), status),
            }
        }
        let stream: Vec<_> = stream.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        prop_assert!(replay(&stream).1.is_ok());
    }
}
