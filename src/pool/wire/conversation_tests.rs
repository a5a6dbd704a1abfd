//! What is told of each thing that a client and a server can say.

use super::witness::{Fact, From, STARTUP, Talk, compare};
use super::*;
use crate::labels::ErrorCode;
use From::{Client, Server};

#[path = "conversation_tests/copy.rs"]
mod copy;
#[path = "conversation_tests/lasting.rs"]
mod lasting;
#[path = "conversation_tests/model.rs"]
mod model;
#[path = "conversation_tests/recorded.rs"]
mod recorded;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// The messages whose tags these are, each with a body that becomes it.
fn client(tags: &str) -> Vec<u8> {
    tags.bytes()
        .flat_map(|tag| match tag {
            b'S' | b'H' | b'c' | b'X' => message(tag, b""),
            b'Q' => message(tag, b"SELECT 1\0"),
            b'E' => message(tag, b"\0\0\0\0\0"),
            _ => message(tag, b"body\0"),
        })
        .collect()
}

/// The same of the server. Its `Z` says that there is no transaction.
fn server(tags: &str) -> Vec<u8> {
    tags.bytes()
        .flat_map(|tag| match tag {
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => message(tag, b""),
            b'Z' => message(tag, b"I"),
            b'E' => error("ERROR", "22P02"),
            _ => message(tag, b"body\0"),
        })
        .collect()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    message(b'E', format!("SFEHLER\0V{severity}\0C{code}\0MC1: V2\0\0").as_bytes())
}

/// A conversation that has begun. What is said next is heard at once and byte by byte, which must tell the same.
struct Both {
    said: Vec<(From, Vec<u8>)>,
}

impl Both {
    fn begun() -> Self {
        Self { said: STARTUP.map(|(from, bytes)| (from, bytes.to_vec())).to_vec() }
    }

    fn says(&mut self, from: From, bytes: &[u8]) -> &mut Self {
        self.said.push((from, bytes.to_vec()));
        self
    }

    fn hear(&self) -> (Talk, Result<(), OutOfStep>) {
        let said: Vec<_> = self.said.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        compare(&said)
    }

    fn is_lost(&self) -> bool {
        self.hear().1.is_err()
    }

    #[track_caller]
    fn understood(&self) -> Talk {
        let (talk, result) = self.hear();
        result.unwrap();
        talk
    }

    /// Whether there is work.
    #[track_caller]
    fn busy(&self) -> bool {
        self.understood().witness.busy.is_some()
    }

    /// Queries that were sent, and that came to their end.
    #[track_caller]
    fn queries(&self) -> (u32, u32) {
        let witness = self.understood().witness;
        (witness.queries, witness.finished)
    }

    #[track_caller]
    fn told(&self) -> Vec<Fact> {
        self.understood().witness.facts
    }
}

/// Plays a dialogue after the startup, `>` by the client and `<` by the server, and says after each line whether the
/// server is busy. `!` stands for what is not understood.
fn dialogue(lines: &[&str]) -> String {
    let mut both = Both::begun();
    let mut seen = String::new();
    for line in lines {
        match line.split_at(1) {
            (">", tags) => both.says(Client, &client(tags)),
            (_, tags) => both.says(Server, &server(tags)),
        };
        let (talk, result) = both.hear();
        seen.push(match (result, talk.witness.busy) {
            (Err(_), _) => '!',
            (_, Some(_)) => 'b',
            (_, None) => '-',
        });
        if result.is_err() {
            break;
        }
    }
    seen
}

#[test]
fn the_server_is_busy_from_a_request_until_it_is_ready() {
    for (lines, busy) in [
        // Queries, an empty one, several statements in one, a call of a function.
        (&[">Q", "<TDC", "<Z"][..], "bb-"),
        (&[">Q", "<IZ"], "b-"),
        (&[">Q", "<TDCTDC", "<Z"], "bb-"),
        (&[">F", "<V", "<Z"], "bb-"),
        // The extended protocol: prepared, run, by portions, with Flush, with an error.
        (&[">PDS", "<1tnZ", ">BES", "<2DCZ"], "b-b-"),
        (&[">PBDE", ">S", "<12TDC", "<Z"], "bbb-"),
        (&[">BS", "<2Z", ">ES", "<DsZ", ">ES", "<DCZ"], "b-b-b-"),
        (&[">PH", "<1", ">BEH", "<2C", ">S", "<Z"], "bbbbb-"),
        (&[">PBDES", "<E", "<Z"], "bb-"),
        // Pipelines, which are answered one by one.
        (&[">BESBES", "<2CZ", "<2CZ"], "bb-"),
        (&[">QQ", "<CZ", ">Q", "<CZ", "<CZ"], "bbbb-"),
        (&[">BES", ">P", "<2CZ", ">S", "<1Z"], "bbbb-"),
        (&[">QCS", "<CZ", "<3Z"], "b--"),
        // Closing, synchronising and flushing are no work, but before work they are part of it.
        (&[">CS", "<3Z", ">S", "<Z", ">H"], "-----"),
        (&[">C", ">PS", "<31Z"], "-b-"),
        (&[">CQ", "<CZ", ">CS", "<3Z"], "b---"),
        // The server's word in between.
        (&["<ANS", ">Q", "<ANS", "<TADNCS", "<Z", "<A"], "-bbb--"),
        // COPY OUT, and COPY in both directions.
        (&[">Q", "<H", "<ddc", "<CZ"], "bbb-"),
        (&[">BES", "<2Hdd", "<cCZ"], "bb-"),
        (&[">Q", "<W", ">d", "<d", ">c", "<cC", "<Z"], "bbbbbb-"),
        // The end.
        (&[">X"], "-"),
    ] {
        assert_eq!(dialogue(lines), busy, "{lines:?}");
    }
}

#[test]
fn queries_are_counted_when_they_are_sent_and_when_their_request_ends() {
    for (lines, queries) in [
        (&[">Q"][..], (1, 0)),
        (&[">QQQ", "<CZIZ"], (3, 2)),
        (&[">PBDEBES", "<1"], (2, 0)),
        (&[">PBDEBES", "<12C2CZ"], (2, 2)),
        (&[">PDS", "<1tnZ", ">CS", "<3Z", ">S", "<Z"], (0, 0)),
        (&[">F", "<VZ"], (1, 1)),
        (&[">BES", "<2G", ">dcS", "<CZ"], (1, 1)),
        (&[">BES", "<2G", ">cBES", "<C2CZ"], (2, 2)),
        (&[">BESdcBES", "<2GC2CZ"], (2, 2)),
    ] {
        let mut both = Both::begun();
        for line in lines {
            let (from, said) = line.split_at(1);
            if from == ">" {
                both.says(Client, &client(said))
            } else {
                both.says(Server, &server(said))
            };
        }
        assert_eq!(both.queries(), queries, "{lines:?}");
    }
}

#[test]
fn the_startup_is_work_and_ends_with_the_first_ready() {
    let startup = STARTUP[0].1;
    for negotiation in [&[][..], b"N", b"S"] {
        let mut both = Both { said: Vec::new() };
        if !negotiation.is_empty() {
            both.says(Client, b"\0\0\0\x08\x04\xd2\x16\x2f");
            assert!(both.busy());
            both.says(Server, negotiation);
        }
        both.says(Client, startup).says(Server, &message(b'v', b"\0\x03\0\0\0\0\0\0"));
        both.says(Server, &message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).says(Client, &message(b'p', b"secret\0"));
        assert!(both.busy() && both.told().is_empty());
        both.says(Server, &message(b'R', b"\0\0\0\0")).says(Server, &message(b'S', b"TimeZone\0UTC\0"));
        // A key of any length: the protocol's version 3.2 has longer ones.
        both.says(Server, &message(b'K', &[&[0, 0, 1, 2][..], &[7; 32]].concat())).says(Server, &ready(b'I'));
        assert_eq!(both.told(), [Fact::Backend(0x102), Fact::Ready(Transaction::None)]);
        assert!(!both.busy());
    }
}

#[test]
fn a_startup_that_is_refused_is_never_ready() {
    let mut both = Both { said: vec![(Client, STARTUP[0].1.to_vec())] };
    both.says(Server, &error("FATAL", "28P01"));
    assert_eq!(both.told(), [Fact::Failed(ErrorCode::word("28P01"), true)]);
    assert!(both.busy());
}

#[test]
fn an_error_is_told_with_its_code_and_whether_it_ends_the_session() {
    for (fields, code, fatal) in [
        ("SFEHLER\0VERROR\0C23505\0Mdoppelt\0\0", "23505", false),
        ("SFATAL\0VFATAL\0C57P01\0Mgone\0\0", "57P01", true),
        ("SPANIK\0VPANIC\0CXX000\0\0", "XX000", true),
        // Without the severity in English it is as it is translated.
        ("SFATAL\0C08P01\0\0", "08P01", true),
        ("SFEHLER\0C08P01\0\0", "08P01", false),
        ("VERROR\0SFATAL\0C08P01\0\0", "08P01", false),
        // What is no SQLSTATE, and what follows the end.
        ("SERROR\0C123456\0\0", "other", false),
        ("SERROR\0C1234\0\0", "other", false),
        ("SERROR\0C12;45\0\0", "other", false),
        ("SERROR\0\0", "other", false),
        ("SERROR\0C22P02\0\0VFATAL\0CXXXXX\0\0", "22P02", false),
        ("\0", "other", false),
    ] {
        let mut both = Both::begun();
        both.says(Client, &client("Q")).says(Server, &message(b'E', fields.as_bytes()));
        assert_eq!(both.told().last(), Some(&Fact::Failed(ErrorCode::word(code), fatal)), "{fields}");
        assert!(both.busy());
    }
}

#[test]
fn the_transaction_is_as_the_last_ready_says() {
    for (status, transaction) in [(b'I', Transaction::None), (b'T', Transaction::Open), (b'E', Transaction::Failed)] {
        let mut both = Both::begun();
        both.says(Client, &client("BES")).says(Server, &server("2C")).says(Server, &ready(status));
        assert_eq!(both.told().last(), Some(&Fact::Ready(transaction)));
        // It is told again when a request ends that is no work.
        both.says(Client, &client("CS")).says(Server, &server("3Z"));
        assert_eq!(both.told().last(), Some(&Fact::Ready(Transaction::None)));
    }
}

#[test]
fn a_rollback_is_known_however_it_is_cut() {
    for (text, rollback) in [
        ("ROLLBACK", true),
        ("ROLLBACK TO sp_1", true),
        ("ROLLBACK TO \"a b\"", true),
        ("ROLLBACK; SELECT 1", false),
        ("ROLLBACK TO a; SELECT 1", false),
        ("ROLLBACKS", false),
        ("ROLLBACK TO", false),
        ("ROLLBACK AND CHAIN", false),
        ("rollback", false),
        ("ROLL", false),
        ("", false),
        ("SELECT 1", false),
    ] {
        let mut both = Both::begun();
        both.says(Client, &query(text));
        assert_eq!(both.understood().witness.busy, Some(rollback), "{text}");
        // Two of them are still nothing else; anything beside it is.
        both.says(Client, &query("ROLLBACK"));
        assert_eq!(both.understood().witness.busy, Some(rollback), "{text}");
        both.says(Client, &client("BES"));
        assert_eq!(both.understood().witness.busy, Some(false), "{text}");
        // What is left is what counts.
        both.says(Server, &server("CZ"));
        assert_eq!(both.understood().witness.busy, Some(false));
        both.says(Server, &server("CZ2CZ"));
        assert!(!both.busy());
        both.says(Client, &client("Q")).says(Client, &query("ROLLBACK")).says(Server, &server("CZ"));
        assert_eq!(both.understood().witness.busy, Some(true));
    }
}

#[test]
fn a_message_that_was_cut_is_work_from_its_first_byte() {
    for whole in [client("Q"), query("ROLLBACK"), client("P"), client("B"), client("D"), client("E"), client("F")] {
        for length in 1..whole.len() {
            let mut both = Both::begun();
            both.says(Client, &whole[..length]);
            assert!(both.busy(), "{whole:?} of {length} bytes");
            // Not even an answer to something else changes that.
            let mut both = Both::begun();
            both.says(Client, &client("S")).says(Client, &whole[..length]);
            if matches!(whole[0], b'Q' | b'F') || length < 5 {
                both.says(Server, &server("Z"));
            }
            assert!(both.busy(), "{whole:?} of {length} bytes");
        }
    }
    for whole in [client("C"), client("S"), client("H"), client("X")] {
        let mut both = Both::begun();
        both.says(Client, &whole[..3]);
        assert!(!both.busy());
    }
}

#[test]
fn a_query_without_an_end_is_a_query() {
    for body in [&b"ROLLBACK"[..], b"ROLLBACK TO a", b"ROLL", b"S"] {
        let mut both = Both::begun();
        both.says(Client, &message(b'Q', body));
        assert_eq!((both.queries(), both.understood().witness.busy), ((1, 0), Some(false)));
        both.says(Server, &server("EZ"));
        assert!(!both.busy());
    }
}

#[test]
fn what_no_protocol_says_is_not_understood() {
    for (from, bytes) in [
        // Tags, lengths and states that there are not.
        (Client, message(b'\0', b"abcd")),
        (Client, message(b'\0', b"abcdefgh")),
        (Client, message(b'Z', b"I")),
        (Client, message(b'S', b"I")),
        (Client, message(b'H', b"I")),
        (Client, message(b'Q', b"")),
        (Client, b"Q\0\0\0\x03".to_vec()),
        (Server, message(b'Q', b"SELECT 1\0")),
        (Server, message(b'\0', b"")),
        (Server, message(b'1', b"1")),
        (Server, message(b'K', b"1234")),
        (Server, message(b'E', b"")),
        (Server, message(b'Z', b"")),
        (Server, message(b'Z', b"II")),
        // Answers to nothing.
        (Server, ready(b'I')),
        (Server, client("G")),
    ] {
        let mut both = Both::begun();
        both.says(from, &bytes);
        assert!(both.is_lost(), "{bytes:?}");
    }
    for (sent, answer) in [("Q", &ready(b'x')), ("P", &ready(b'I')), ("H", &ready(b'I'))] {
        let mut both = Both::begun();
        both.says(Client, &client(sent)).says(Server, answer);
        assert!(both.is_lost(), "{sent}");
    }
    // A query within another request has no answer that could be told from the other's.
    let mut both = Both::begun();
    both.says(Client, &client("PQ"));
    assert!(both.is_lost());
    // The server cannot be done with what it has not read.
    let mut both = Both::begun();
    both.says(Client, &query("ROLLBACK")[..9]).says(Server, &ready(b'I'));
    assert!(both.is_lost());
}

#[test]
fn what_no_startup_looks_like_is_not_understood() {
    for bytes in [&b"\x16\x03\x01\x02\0\x01\0"[..], b"GET / HTTP/1.1", b"\0\0\0\x07abc", b"\0\0\x27\x15\0\x03\0\0"] {
        let mut both = Both { said: Vec::new() };
        both.says(Client, bytes);
        assert!(both.is_lost(), "{bytes:?}");
    }
    let mut both = Both { said: Vec::new() };
    both.says(Client, b"\0\0\0\x08\x04\xd2\x16\x2f").says(Server, b"E");
    assert!(both.is_lost());
}

#[test]
fn nothing_is_allocated_for_what_passes() {
    let megabyte = vec![b' '; 1 << 20];
    let mut talk = Talk::new();
    for (from, bytes) in STARTUP {
        talk.hear(from, bytes).unwrap();
    }
    talk.witness.facts.reserve(10);
    let passes = [
        (Client, message(b'Q', &[b"ROLLBACK TO ", &megabyte[..], b"\0"].concat())),
        (Server, message(b'D', &megabyte)),
        (Server, message(b'E', &[b"SERROR\0C", &megabyte[..], b"\0\0"].concat())),
        (Server, ready(b'I')),
        (Client, [message(b'P', &megabyte), client("S"), message(b'd', &megabyte)].concat()),
    ];
    let allocated = allocation_counter::measure(|| {
        for (from, bytes) in &passes {
            for read in bytes.chunks(8192) {
                talk.hear(*from, read).unwrap();
            }
        }
    });
    assert_eq!(allocated.count_total, 0);
}
