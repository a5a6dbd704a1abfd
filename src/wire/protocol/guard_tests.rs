#![allow(clippy::unwrap_used)]

use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

/// Returns the header of a message.
fn announced(tag: u8, length: u32) -> Vec<u8> {
    [&[tag], &length.to_be_bytes()[..]].concat()
}

fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

/// Returns a guard whose session has started.
fn started(limit: AnswerLimit) -> ServerGuard {
    let mut guard = ServerGuard::new(Some(limit));
    guard.sent(b"\0\0\0\x0d\0\x03\0\0user\0");
    assert_eq!(guard.received(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()), Ok(true));
    guard
}

/// As [`started`], with requests that were sent, split at each byte.
fn requested(limit: AnswerLimit, requests: &[u8]) -> ServerGuard {
    let mut guard = started(limit);
    requests.chunks(1).for_each(|part| guard.sent(part));
    guard
}

/// Reads a stream at once and byte by byte, which must have the same result.
fn read(new: impl Fn() -> ServerGuard, stream: &[u8]) -> Result<bool, LimitExceeded> {
    let at_once = new().received(stream);
    let mut guard = new();
    let bytewise = stream.chunks(1).try_fold(true, |needed, byte| Ok(needed && guard.received(byte)?));
    assert_eq!(at_once, bytewise);
    at_once
}

#[test]
fn messages_of_a_starting_session_are_bounded() {
    let new = || ServerGuard::new(None);
    for tag in *b"RSNKEv" {
        assert_eq!(read(new, &announced(tag, 65_536)), Ok(true));
        let result = read(new, &announced(tag, 65_537));
        assert!(matches!(result, Err(LimitExceeded::StartupMessage { length: 65_537 })), "{result:?}");
    }
    let notices = message(b'N', &[0; 1019]).repeat(1024);
    assert_eq!(read(new, &notices), Ok(true), "1 MiB");
    assert_eq!(read(new, &[&notices[..], b"Z\0\0\0\x05I"].concat()), Err(LimitExceeded::Startup));
}

#[test]
fn guard_ends_with_the_start_of_an_unlimited_session() {
    assert_eq!(read(|| ServerGuard::new(None), &message(b'Z', b"I")), Ok(false));
    let limited = || ServerGuard::new(Some(AnswerLimit::Unlimited));
    assert_eq!(read(limited, &message(b'Z', b"I")), Ok(true));
}

#[test]
fn messages_without_a_request_are_bounded() {
    let (query, sync) = (message(b'Q', b"SELECT 1\0"), message(b'S', b""));
    let execute = [message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    let answer = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    let large = announced(b'D', 0x4000_0003);
    let refused = Err(LimitExceeded::Unrequested { length: 0x4000_0003 });
    for limit in [AnswerLimit::Unlimited, AnswerLimit::Bytes(u64::MAX)] {
        assert_eq!(read(|| started(limit), &large), refused);
        assert_eq!(read(|| started(limit), &announced(b'N', 65_536)), Ok(true));
        for requests in [query.clone(), [&execute[..], &sync].concat(), message(b'F', &[0; 70_000])] {
            let new = || requested(limit, &requests);
            assert_eq!(read(new, &large), Ok(true));
            assert_eq!(read(new, &[&answer[..], &large].concat()), refused);
        }
        // Requests that are sent at once are answered one by one.
        let new = || requested(limit, &[&query[..], &execute, &sync, &query].concat());
        assert_eq!(read(new, &[&answer.repeat(2)[..], &large].concat()), Ok(true));
        assert_eq!(read(new, &[&answer.repeat(3)[..], &large].concat()), refused);
        // A server ignores the `Sync` before the data of a COPY, which counts all the same.
        let copy = [&execute[..], &sync, &message(b'd', &[0; 100]), &message(b'c', b""), &sync].concat();
        assert_eq!(read(|| requested(limit, &copy), &[&answer[..], &large].concat()), Ok(true));
    }
    // Without a limit, the guard ends with the start.
    let mut guard = ServerGuard::new(None);
    guard.sent(b"\0\0\0\x0d\0\x03\0\0user\0");
    assert_eq!(guard.received(&message(b'Z', b"I")), Ok(false));
}

#[test]
fn impossible_lengths_are_refused_in_each_state() {
    for length in [0, 3, 0x4000_0004, 0x7fff_fff4, u32::MAX] {
        let new = || requested(AnswerLimit::Unlimited, &message(b'Q', b"SELECT 1\0"));
        assert_eq!(read(new, &announced(b'D', length)), Err(LimitExceeded::ImpossibleLength { length }));
        let expected = Err(LimitExceeded::ImpossibleLength { length });
        assert_eq!(read(|| ServerGuard::new(None), &announced(b'R', length)), expected);
        assert_eq!(read(|| started(AnswerLimit::Unlimited), &announced(b'D', length)), expected);
    }
}

#[test]
fn answers_are_bounded_from_ready_to_ready() {
    let new = || started(AnswerLimit::Bytes(100));
    let answer = [message(b'D', &[0; 50]), message(b'Z', b"I")].concat();
    assert_eq!(read(new, &answer.repeat(10)), Ok(true));
    let expected = Err(LimitExceeded::Answer { limit: 100 });
    assert_eq!(read(new, &message(b'D', &[0; 50]).repeat(2)), expected);
    assert_eq!(read(new, &announced(b'D', 100)), expected, "as soon as it is announced");
    assert_eq!(read(new, &announced(b'D', 99)), Ok(true));
}

#[test]
fn notifications_are_small_in_any_number() {
    let new = || started(AnswerLimit::SmallMessages);
    let listening = [message(b'C', b"LISTEN\0"), message(b'Z', b"I")].concat();
    let notifications = message(b'A', &[b'x'; 8000]).repeat(300);
    assert_eq!(new().received(&[&listening[..], &notifications].concat()), Ok(true));
    assert!(new().received(&notifications).is_err(), "while LISTEN is not answered");
    let large = [&listening[..], &announced(b'A', 65_537)].concat();
    assert_eq!(read(new, &large), Err(LimitExceeded::Unrequested { length: 65_537 }));
}

#[test]
fn parameters_are_bounded_by_name() {
    let new = || started(AnswerLimit::Unlimited);
    assert_eq!(new().received(&parameter("application_name", &"x".repeat(60_000)).repeat(100)), Ok(true));
    let distinct: Vec<u8> = (0..129).flat_map(|number| parameter(&format!("p{number}"), "on")).collect();
    assert_eq!(read(new, &distinct), Err(LimitExceeded::Parameters));
    let long: Vec<u8> =
        ["a", "b", "c", "d", "e"].iter().flat_map(|name| parameter(name, &"x".repeat(60_000))).collect();
    assert_eq!(new().received(&long), Err(LimitExceeded::Parameters));
    let new = || requested(AnswerLimit::Unlimited, &message(b'Q', b"SET a = b\0"));
    assert_eq!(read(new, &announced(b'S', 65_537)), Err(LimitExceeded::Parameters));
}

/// The server's answer to the request for encryption is a byte, which is not the beginning of a message.
#[test]
fn answer_to_the_request_for_encryption_is_skipped() {
    for answer in [b"S", b"N"] {
        for chunk in [1, 100] {
            let mut guard = ServerGuard::new(None);
            b"\0\0\0\x08\x04\xd2\x16\x2f".chunks(chunk).for_each(|part| guard.sent(part));
            assert_eq!(guard.received(answer), Ok(true));
            guard.sent(b"\0\0\0\x0d\0\x03\0\0user\0");
            assert_eq!(guard.received(&message(b'R', &[0; 4])), Ok(true));
            assert_eq!(guard.received(&message(b'Z', b"I")), Ok(false));
        }
    }
}

#[test]
fn requested_authentication_method_is_checked() {
    use crate::config::{AuthenticationMethods, DatabaseUrl};

    let methods = |list: &str| -> Option<AuthenticationMethods> {
        format!("postgres://h/d?require_auth={list}").parse::<DatabaseUrl>().unwrap().require_auth()
    };
    let request = |code: u32| message(b'R', &[&code.to_be_bytes()[..], b"more"].concat());
    let refused = |method| Err(LimitExceeded::AuthenticationMethod { method });
    for (methods, clear_text, code, expected) in [
        (None, true, 3, Ok(true)),
        (None, false, 3, Err(LimitExceeded::ClearTextPassword)),
        (None, false, 5, Ok(true)),
        (None, false, 10, Ok(true)),
        (methods("scram-sha-256"), true, 10, Ok(true)),
        (methods("scram-sha-256"), true, 3, refused("password")),
        (methods("scram-sha-256"), true, 5, refused("md5")),
        (methods("scram-sha-256"), true, 0, refused("none")),
        (methods("!password"), true, 3, refused("password")),
        (methods("!password"), true, 0, Ok(true)),
    ] {
        let policy = AuthenticationPolicy { methods, clear_text };
        let result = read(|| ServerGuard::new(None).authentication(policy), &request(code));
        assert_eq!(result, expected, "{methods:?} {clear_text} {code}");
    }
    // With TLS, it is encrypted.
    let encrypted = || {
        let policy = AuthenticationPolicy { methods: None, clear_text: false };
        let mut guard = ServerGuard::new(None).authentication(policy);
        guard.sent(b"\0\0\0\x08\x04\xd2\x16\x2f");
        assert_eq!(guard.received(b"S"), Ok(true));
        guard.begin_tls();
        guard
    };
    assert_eq!(read(encrypted, &request(3)), Ok(true));
    // The further messages of an exchange are not requests.
    let scram = AuthenticationPolicy { methods: methods("scram-sha-256"), clear_text: false };
    let exchange = [request(10), request(11), request(12), request(0), message(b'Z', b"I")].concat();
    assert_eq!(read(|| ServerGuard::new(None).authentication(scram), &exchange), Ok(false));
}
