//! What is reported for each message of a client and a server.

use super::checker::{CheckedProtocol, Report, STARTUP, Side, replay};
use super::*;
use Side::{Client, Server};

mod commits;
mod copy_in;
mod model;
mod recorded;
mod whole;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// Returns the client's messages with these tags, each with a valid body.
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

/// Returns the server's messages with these tags. A `Z` reports that there is no transaction.
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

/// What both sides have sent, in order. Replayed at once and byte by byte, which must report the same.
struct Dialogue {
    stream: Vec<(Side, Vec<u8>)>,
}

impl Dialogue {
    fn after_startup() -> Self {
        Self { stream: STARTUP.map(|(from, bytes)| (from, bytes.to_vec())).to_vec() }
    }

    fn send(&mut self, from: Side, bytes: &[u8]) -> &mut Self {
        self.stream.push((from, bytes.to_vec()));
        self
    }

    fn replay(&self) -> (CheckedProtocol, Result<(), ProtocolError>) {
        let stream: Vec<_> = self.stream.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        replay(&stream)
    }

    fn is_rejected(&self) -> bool {
        self.replay().1.is_err()
    }

    #[track_caller]
    fn replayed(&self) -> CheckedProtocol {
        let (protocol, result) = self.replay();
        result.unwrap();
        protocol
    }

    /// Returns whether the server has work.
    #[track_caller]
    fn busy(&self) -> bool {
        self.replayed().handler.busy.is_some()
    }

    /// Returns the number of queries sent and the number finished.
    #[track_caller]
    fn queries(&self) -> (u32, u32) {
        let handler = self.replayed().handler;
        (handler.queries, handler.finished)
    }

    #[track_caller]
    fn reports(&self) -> Vec<Report> {
        self.replayed().handler.reports
    }
}

/// Replays lines after the startup, those of the client with `>` and those of the server with `<`. Returns for each
/// line `b` if the server is busy then, `-` if not, and `!` at a protocol error, which ends the replay.
fn busy_states(lines: &[&str]) -> String {
    let mut dialogue = Dialogue::after_startup();
    let mut states = String::new();
    for line in lines {
        match line.split_at(1) {
            (">", tags) => dialogue.send(Client, &client(tags)),
            (_, tags) => dialogue.send(Server, &server(tags)),
        };
        let (protocol, result) = dialogue.replay();
        states.push(match (result, protocol.handler.busy) {
            (Err(_), _) => '!',
            (_, Some(_)) => 'b',
            (_, None) => '-',
        });
        if result.is_err() {
            break;
        }
    }
    states
}

#[test]
fn server_is_busy_from_request_until_ready() {
    for (lines, busy) in [
        // Queries: one, an empty one, one with several statements, a function call.
        (&[">Q", "<TDC", "<Z"][..], "bb-"),
        (&[">Q", "<IZ"], "b-"),
        (&[">Q", "<TDCTDC", "<Z"], "bb-"),
        (&[">F", "<V", "<Z"], "bb-"),
        // The extended protocol: prepare, execute, in portions, with Flush, with an error.
        (&[">PDS", "<1tnZ", ">BES", "<2DCZ"], "b-b-"),
        (&[">PBDE", ">S", "<12TDC", "<Z"], "bbb-"),
        (&[">BS", "<2Z", ">ES", "<DsZ", ">ES", "<DCZ"], "b-b-b-"),
        (&[">PH", "<1", ">BEH", "<2C", ">S", "<Z"], "bbbbb-"),
        (&[">PBDES", "<E", "<Z"], "bb-"),
        // Pipelines, in which each request is answered.
        (&[">BESBES", "<2CZ", "<2CZ"], "bb-"),
        (&[">QQ", "<CZ", ">Q", "<CZ", "<CZ"], "bbbb-"),
        (&[">BES", ">P", "<2CZ", ">S", "<1Z"], "bbbb-"),
        (&[">QCS", "<CZ", "<3Z"], "b--"),
        // Close, Sync and Flush are not work, but part of it when in front of it.
        (&[">CS", "<3Z", ">S", "<Z", ">H"], "-----"),
        (&[">C", ">PS", "<31Z"], "-b-"),
        (&[">CQ", "<CZ", ">CS", "<3Z"], "b---"),
        // Asynchronous messages.
        (&["<ANS", ">Q", "<ANS", "<TADNCS", "<Z", "<A"], "-bbb--"),
        // COPY OUT, and COPY in both directions.
        (&[">Q", "<H", "<ddc", "<CZ"], "bbb-"),
        (&[">BES", "<2Hdd", "<cCZ"], "bb-"),
        (&[">Q", "<W", ">d", "<d", ">c", "<cC", "<Z"], "bbbbbb-"),
        // Terminate.
        (&[">X"], "-"),
    ] {
        assert_eq!(busy_states(lines), busy, "{lines:?}");
    }
}

#[test]
fn queries_are_counted_when_sent_and_when_finished() {
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
        let mut dialogue = Dialogue::after_startup();
        for line in lines {
            let (from, tags) = line.split_at(1);
            if from == ">" {
                dialogue.send(Client, &client(tags))
            } else {
                dialogue.send(Server, &server(tags))
            };
        }
        assert_eq!(dialogue.queries(), queries, "{lines:?}");
    }
}

#[test]
fn startup_is_work_until_the_first_ready() {
    let startup = STARTUP[0].1;
    for negotiation in [&[][..], b"N", b"S"] {
        let mut dialogue = Dialogue { stream: Vec::new() };
        if !negotiation.is_empty() {
            dialogue.send(Client, b"\0\0\0\x08\x04\xd2\x16\x2f");
            assert!(dialogue.busy());
            dialogue.send(Server, negotiation);
        }
        dialogue.send(Client, startup).send(Server, &message(b'v', b"\0\x03\0\0\0\0\0\0"));
        dialogue.send(Server, &message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).send(Client, &message(b'p', b"secret\0"));
        assert!(dialogue.busy() && dialogue.reports().is_empty());
        dialogue.send(Server, &message(b'R', b"\0\0\0\0")).send(Server, &message(b'S', b"TimeZone\0UTC\0"));
        // A key of any length: version 3.2 of the protocol has longer ones.
        dialogue.send(Server, &message(b'K', &[&[0, 0, 1, 2][..], &[7; 32]].concat())).send(Server, &ready(b'I'));
        assert_eq!(dialogue.reports(), [Report::BackendPid(0x102), Report::Ready(TransactionStatus::Idle)]);
        assert!(!dialogue.busy());
    }
}

#[test]
fn refused_startup_is_never_ready() {
    let mut dialogue = Dialogue { stream: vec![(Client, STARTUP[0].1.to_vec())] };
    dialogue.send(Server, &error("FATAL", "28P01"));
    assert_eq!(dialogue.reports(), [Report::Error(ErrorCode::new("28P01"), true)]);
    assert!(dialogue.busy());
}

#[test]
fn error_is_reported_with_code_and_severity() {
    for (fields, code, fatal) in [
        ("SFEHLER\0VERROR\0C23505\0Mdoppelt\0\0", "23505", false),
        ("SFATAL\0VFATAL\0C57P01\0Mgone\0\0", "57P01", true),
        ("SPANIK\0VPANIC\0CXX000\0\0", "XX000", true),
        // Without the severity in English, the localized one counts.
        ("SFATAL\0C08P01\0\0", "08P01", true),
        ("SFEHLER\0C08P01\0\0", "08P01", false),
        ("VERROR\0SFATAL\0C08P01\0\0", "08P01", false),
        // Invalid SQLSTATEs, and bytes behind the end.
        ("SERROR\0C123456\0\0", "other", false),
        ("SERROR\0C1234\0\0", "other", false),
        ("SERROR\0C12;45\0\0", "other", false),
        ("SERROR\0\0", "other", false),
        ("SERROR\0C22P02\0\0VFATAL\0CXXXXX\0\0", "22P02", false),
        ("\0", "other", false),
    ] {
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(Client, &client("Q")).send(Server, &message(b'E', fields.as_bytes()));
        assert_eq!(dialogue.reports().last(), Some(&Report::Error(ErrorCode::new(code), fatal)), "{fields}");
        assert!(dialogue.busy());
    }
}

#[test]
fn transaction_status_is_that_of_the_last_ready() {
    for (status, transaction) in
        [(b'I', TransactionStatus::Idle), (b'T', TransactionStatus::Open), (b'E', TransactionStatus::Failed)]
    {
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(Client, &client("BES")).send(Server, &server("2C")).send(Server, &ready(status));
        assert_eq!(dialogue.reports().last(), Some(&Report::Ready(transaction)));
        // Reported again when a request ends that is not work.
        dialogue.send(Client, &client("CS")).send(Server, &server("3Z"));
        assert_eq!(dialogue.reports().last(), Some(&Report::Ready(TransactionStatus::Idle)));
    }
}

#[test]
fn rollback_is_recognized_in_any_chunks() {
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
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(Client, &query(text));
        assert_eq!(dialogue.replayed().handler.busy, Some(rollback), "{text}");
        // Two rollbacks are all ending; with any other request they are not.
        dialogue.send(Client, &query("ROLLBACK"));
        assert_eq!(dialogue.replayed().handler.busy, Some(rollback), "{text}");
        dialogue.send(Client, &client("BES"));
        assert_eq!(dialogue.replayed().handler.busy, Some(false), "{text}");
        // Only pending requests count.
        dialogue.send(Server, &server("CZ"));
        assert_eq!(dialogue.replayed().handler.busy, Some(false));
        dialogue.send(Server, &server("CZ2CZ"));
        assert!(!dialogue.busy());
        dialogue.send(Client, &client("Q")).send(Client, &query("ROLLBACK")).send(Server, &server("CZ"));
        assert_eq!(dialogue.replayed().handler.busy, Some(true));
    }
}

#[test]
fn partial_message_is_work_from_its_first_byte() {
    for whole in [client("Q"), query("ROLLBACK"), client("P"), client("B"), client("D"), client("E"), client("F")] {
        for length in 1..whole.len() {
            let mut dialogue = Dialogue::after_startup();
            dialogue.send(Client, &whole[..length]);
            assert!(dialogue.busy(), "{whole:?} of {length} bytes");
            // Also after an answer to an earlier request.
            let mut dialogue = Dialogue::after_startup();
            dialogue.send(Client, &client("S")).send(Client, &whole[..length]);
            if matches!(whole[0], b'Q' | b'F') || length < 5 {
                dialogue.send(Server, &server("Z"));
            }
            assert!(dialogue.busy(), "{whole:?} of {length} bytes");
        }
    }
    for whole in [client("C"), client("S"), client("H"), client("X")] {
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(Client, &whole[..3]);
        assert!(!dialogue.busy());
    }
}

#[test]
fn unterminated_query_is_a_query() {
    for body in [&b"ROLLBACK"[..], b"ROLLBACK TO a", b"ROLL", b"S"] {
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(Client, &message(b'Q', body));
        assert_eq!((dialogue.queries(), dialogue.replayed().handler.busy), ((1, 0), Some(false)));
        dialogue.send(Server, &server("EZ"));
        assert!(!dialogue.busy());
    }
}

#[test]
fn invalid_messages_are_rejected() {
    for (from, bytes) in [
        // Invalid tags, lengths and states.
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
        // Answers without a request.
        (Server, ready(b'I')),
        (Server, client("G")),
    ] {
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(from, &bytes);
        assert!(dialogue.is_rejected(), "{bytes:?}");
    }
    for (sent, answer) in [("Q", &ready(b'x')), ("P", &ready(b'I')), ("H", &ready(b'I'))] {
        let mut dialogue = Dialogue::after_startup();
        dialogue.send(Client, &client(sent)).send(Server, answer);
        assert!(dialogue.is_rejected(), "{sent}");
    }
    // The answer to a query inside another request cannot be told from the answer to that request.
    let mut dialogue = Dialogue::after_startup();
    dialogue.send(Client, &client("PQ"));
    assert!(dialogue.is_rejected());
    // The server cannot have finished a query that it has not read.
    let mut dialogue = Dialogue::after_startup();
    dialogue.send(Client, &query("ROLLBACK")[..9]).send(Server, &ready(b'I'));
    assert!(dialogue.is_rejected());
}

#[test]
fn invalid_startup_is_rejected() {
    for bytes in [&b"\x16\x03\x01\x02\0\x01\0"[..], b"GET / HTTP/1.1", b"\0\0\0\x07abc", b"\0\0\x27\x15\0\x03\0\0"] {
        let mut dialogue = Dialogue { stream: Vec::new() };
        dialogue.send(Client, bytes);
        assert!(dialogue.is_rejected(), "{bytes:?}");
    }
    let mut dialogue = Dialogue { stream: Vec::new() };
    dialogue.send(Client, b"\0\0\0\x08\x04\xd2\x16\x2f").send(Server, b"E");
    assert!(dialogue.is_rejected());
}

#[test]
fn passing_bytes_allocate_nothing() {
    let megabyte = vec![b' '; 1 << 20];
    let mut protocol = CheckedProtocol::new();
    for (from, bytes) in STARTUP {
        protocol.feed(from, bytes).unwrap();
    }
    protocol.handler.reports.reserve(10);
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
                protocol.feed(*from, read).unwrap();
            }
        }
    });
    assert_eq!(allocated.count_total, 0);
}
