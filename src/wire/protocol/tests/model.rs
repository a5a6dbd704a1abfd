//! Random sessions: valid ones against a model of the expected reports, and arbitrary bytes.

use proptest::prelude::*;

use super::checker::{CheckedProtocol, Report, STARTUP, Side, messages, reads, replay};
use super::{Client, ErrorCode, Server, TransactionStatus, client, error, message, query, ready, server};

/// A part of a session that one side sends.
#[derive(Debug, Default)]
struct Step {
    from_server: bool,
    bytes: Vec<u8>,
    /// Whether the client sends it without waiting for the server's messages in front of it.
    eager: bool,
    /// The number of its request.
    request: usize,
    /// The kind of request that the client begins with it.
    begins: Option<Kind>,
    queries: u32,
    /// The error that the server reports with it.
    failed: Option<&'static str>,
    /// Whether it completes a COPY OUT.
    copied: bool,
    ready: Option<TransactionStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Work,
    Rollback,
    /// A COPY IN. If it fails, the client may still send the rest of its data.
    CopyIn,
}

/// A request of the client.
#[derive(Clone, Copy, Debug)]
enum Command {
    Simple { failed: bool },
    Empty,
    Rollback { savepoint: bool },
    Call,
    Prepare,
    Extended { queries: u8, failed: bool, flushed: bool },
    Close,
    Sync,
    CopyOut { extended: bool },
    CopyIn { how: CopyIn, eager: bool, end: CopyEnd },
}

#[derive(Clone, Copy, Debug)]
enum CopyIn {
    Simple,
    /// With a Sync in front of the data.
    Synced,
    /// With a Flush in front of the data, or nothing.
    Flushed,
}

#[derive(Clone, Copy, Debug)]
enum CopyEnd {
    Done,
    /// The client aborted it.
    Aborted,
    /// The server found an error in the data.
    Bad,
    /// The server reported an error before it read any data.
    Refused,
}

fn commands() -> impl Strategy<Value = Command> {
    let how = prop_oneof![Just(CopyIn::Simple), Just(CopyIn::Synced), Just(CopyIn::Flushed)];
    let end = prop_oneof![Just(CopyEnd::Done), Just(CopyEnd::Aborted), Just(CopyEnd::Bad), Just(CopyEnd::Refused)];
    prop_oneof![
        any::<bool>().prop_map(|failed| Command::Simple { failed }),
        Just(Command::Empty),
        any::<bool>().prop_map(|savepoint| Command::Rollback { savepoint }),
        Just(Command::Call),
        Just(Command::Prepare),
        (0..4_u8, any::<bool>(), any::<bool>()).prop_map(|(queries, failed, flushed)| Command::Extended {
            queries,
            failed,
            flushed
        }),
        Just(Command::Close),
        Just(Command::Sync),
        any::<bool>().prop_map(|extended| Command::CopyOut { extended }),
        (how, any::<bool>(), end).prop_map(|(how, eager, end)| Command::CopyIn { how, eager, end }),
    ]
}

/// The steps of a session.
#[derive(Default)]
struct Script {
    steps: Vec<Step>,
    request: usize,
}

impl Script {
    fn client(&mut self, bytes: &[u8]) -> &mut Step {
        let step = Step { bytes: bytes.to_vec(), request: self.request, ..Step::default() };
        self.steps.push(step);
        self.steps.last_mut().unwrap()
    }

    /// A request that is work, with its number of queries.
    fn work(&mut self, bytes: &[u8], queries: u32) -> &mut Step {
        let step = self.client(bytes);
        (step.begins, step.queries) = (Some(Kind::Work), queries);
        step
    }

    fn server(&mut self, bytes: &[u8]) -> &mut Step {
        let step = self.client(bytes);
        step.from_server = true;
        step
    }

    fn error(&mut self) {
        self.server(&error("ERROR", "22P02")).failed = Some("22P02");
    }

    fn answer(&mut self, failed: bool, tags: &str) {
        if failed {
            self.error();
        } else {
            self.server(&server(tags));
        }
    }

    /// The end of the request, with a transaction status derived from `status`.
    fn ready(&mut self, status: u8) {
        let (letter, transaction) = match status % 3 {
            0 => (b'I', TransactionStatus::Idle),
            1 => (b'T', TransactionStatus::Open),
            _ => (b'E', TransactionStatus::Failed),
        };
        self.server(&ready(letter)).ready = Some(transaction);
        self.request += 1;
    }

    fn write(&mut self, command: Command, status: u8) {
        match command {
            Command::Simple { failed } => {
                self.work(&client("Q"), 1);
                self.server(&server("TD"));
                self.answer(failed, "DC");
            }
            Command::Empty => {
                self.work(&query(""), 1);
                self.server(&server("I"));
            }
            Command::Rollback { savepoint } => {
                let text = if savepoint { "ROLLBACK TO sp_1" } else { "ROLLBACK" };
                self.work(&query(text), 1).begins = Some(Kind::Rollback);
                self.server(&server("C"));
            }
            Command::Call => {
                self.work(&client("F"), 1);
                self.server(&server("V"));
            }
            Command::Prepare => {
                self.work(&client("PD"), 0);
                self.client(&client("S"));
                self.server(&server("1tT"));
            }
            Command::Extended { queries, failed, flushed } => {
                self.work(&client("PB"), 0);
                if flushed {
                    self.client(&client("H"));
                    self.server(&server("12")).eager = true;
                }
                for _ in 0..queries {
                    self.client(&client("DE")).queries = 1;
                    self.steps.last_mut().unwrap().eager = true;
                }
                self.client(&client("S")).eager = true;
                self.answer(failed, "TDC");
            }
            Command::Close => {
                self.client(&client("CS"));
                self.server(&server("3"));
            }
            Command::Sync => {
                self.client(&client("S"));
            }
            Command::CopyOut { extended } => {
                self.work(&client(if extended { "BES" } else { "Q" }), 1);
                self.server(&server(if extended { "2Hd" } else { "Hd" }));
                self.server(&server("dcC")).copied = extended;
            }
            Command::CopyIn { how, eager, end } => return self.copy_in(how, eager, end, status),
        }
        self.ready(status);
    }

    fn copy_in(&mut self, how: CopyIn, eager: bool, end: CopyEnd, status: u8) {
        let (request, answer, sync) = match how {
            CopyIn::Simple => ("Q", "G", ""),
            CopyIn::Synced => ("BES", "2G", "S"),
            CopyIn::Flushed => ("BEH", "2G", "S"),
        };
        self.work(&client(request), 1).begins = Some(Kind::CopyIn);
        self.server(&server(answer));
        let aborted = matches!(end, CopyEnd::Aborted);
        let done = [if aborted { "f" } else { "c" }, sync].concat();
        if matches!(end, CopyEnd::Refused) {
            self.error();
            // The server then does not ignore the first Sync, and anything behind it is another request.
            if !matches!(how, CopyIn::Flushed) {
                self.ready(status);
            }
        }
        self.client(&client("d")).eager = eager;
        if matches!(end, CopyEnd::Bad) {
            self.error();
        }
        self.client(&client("d")).eager = eager;
        self.client(&client(&done)).eager = eager;
        match (end, how) {
            (CopyEnd::Refused, CopyIn::Simple) => return self.request += 1,
            (CopyEnd::Done | CopyEnd::Aborted, _) => self.answer(aborted, "C"),
            (CopyEnd::Bad | CopyEnd::Refused, _) => {}
        }
        self.ready(status);
    }
}

/// A cyclic sequence of decisions.
struct Choices<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Choices<'_> {
    fn below(&mut self, end: usize) -> usize {
        usize::from(*self.0.next().unwrap()) % end
    }
}

/// Puts the steps in a valid order: the client may send before its earlier requests are answered, and the server's
/// answers follow their requests.
fn interleave(steps: Vec<Step>, choices: &mut Choices<'_>) -> Vec<Step> {
    let mut left: std::collections::VecDeque<Step> = steps.into();
    let mut passed = Vec::new();
    while let Some(first) = left.front() {
        let mut next = 0;
        if first.from_server && choices.below(2) == 0 {
            // The client goes ahead, unless it waits for an answer to the same request.
            let ahead = left.iter().position(|step| !step.from_server);
            let waits = |ahead: usize| left.iter().take(ahead).any(|step| step.request == left[ahead].request);
            next = ahead.filter(|ahead| left[*ahead].eager || !waits(*ahead)).unwrap_or(0);
        }
        passed.extend(left.remove(next));
    }
    passed
}

/// The expected state after the steps so far.
#[derive(Default)]
struct Model {
    /// The kind of each unanswered request that is work.
    pending: Vec<(usize, Kind)>,
    sent: Vec<(usize, u32)>,
    /// Requests of which only the `ReadyForQuery` is missing.
    settled: Vec<usize>,
    queries: u32,
    finished: u32,
    errors: usize,
    transaction: Option<TransactionStatus>,
}

impl Model {
    fn pass(&mut self, step: &Step) {
        if let Some(kind) = step.begins {
            self.pending.push((step.request, kind));
        }
        self.queries += step.queries;
        self.sent.push((step.request, step.queries));
        if step.failed.is_some() {
            self.errors += 1;
        }
        if step.failed.is_some() || step.copied {
            self.settled.push(step.request);
        }
        if step.ready.is_some() {
            self.transaction = step.ready;
            self.pending.retain(|(request, _)| *request != step.request);
            self.finished += self.queries_of(step.request);
        }
    }

    fn queries_of(&self, request: usize) -> u32 {
        self.sent.iter().filter(|(of, _)| *of == request).map(|(_, queries)| queries).sum()
    }

    /// Returns whether there is work and, where that is certain, whether all of it is ending.
    fn busy(&self) -> (bool, Option<bool>) {
        let certain =
            !self.pending.iter().any(|(request, kind)| *kind == Kind::CopyIn && self.settled.contains(request));
        let ends = |(request, kind): &(usize, Kind)| {
            *kind == Kind::Rollback || self.settled.contains(request) || self.queries_of(*request) == 0
        };
        (!self.pending.is_empty(), certain.then(|| self.pending.iter().all(ends)))
    }
}

/// Splits bytes into a few reads.
fn cut<'a>(mut bytes: &'a [u8], choices: &mut Choices<'_>) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    while !bytes.is_empty() {
        let (read, rest) = bytes.split_at(1 + choices.below(bytes.len()));
        reads.push(read);
        bytes = rest;
    }
    reads
}

fn from(step: &Step) -> Side {
    if step.from_server { Server } else { Client }
}

/// Generates a valid session.
fn session(commands: &[(Command, u8)], choices: &mut Choices<'_>) -> Vec<Step> {
    let mut script = Script::default();
    for (command, status) in commands {
        script.write(*command, *status);
    }
    let mut steps = interleave(script.steps, choices);
    for step in steps.iter_mut().filter(|step| step.from_server) {
        // Asynchronous messages may come between any two others.
        match choices.below(8) {
            0 => step.bytes.splice(..0, message(b'A', b"\0\0\0\x01a\0b\0")).for_each(drop),
            1 => step.bytes.extend(message(b'N', b"SNOTICE\0C00000\0\0")),
            2 => step.bytes.extend(message(b'S', b"a\0b\0")),
            _ => {}
        }
    }
    steps
}

type Sampled = (Vec<(Command, u8)>, Vec<u8>);

fn sampled() -> impl Strategy<Value = Sampled> {
    (proptest::collection::vec((commands(), any::<u8>()), 1..12), proptest::collection::vec(any::<u8>(), 1..150))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn valid_session_is_reported_correctly_at_every_step((commands, choices) in sampled()) {
        let mut choices = Choices(choices.iter().cycle());
        let steps = session(&commands, &mut choices);
        let (mut protocol, mut model) = (CheckedProtocol::new(), Model::default());
        for (from, bytes) in STARTUP {
            protocol.feed(from, bytes).unwrap();
        }
        for step in &steps {
            for read in cut(&step.bytes, &mut choices) {
                protocol.feed(from(step), read).unwrap();
            }
            model.pass(step);
            let handler = &protocol.handler;
            let (busy, ending) = model.busy();
            prop_assert_eq!(handler.busy.is_some(), busy, "after {:?} of {:?}", step, steps);
            if let (true, Some(ending)) = (busy, ending) {
                prop_assert_eq!(handler.busy, Some(ending), "after {:?} of {:?}", step, steps);
            }
            prop_assert_eq!((handler.queries, handler.finished), (model.queries, model.finished), "{:?}", steps);
            let ready = handler.reports.iter().rev().find_map(|report| if let Report::Ready(transaction) = report { Some(*transaction) } else { None });
            if step.ready.is_some() && !busy {
                prop_assert_eq!(ready, model.transaction);
            }
            let failed = Report::Error(ErrorCode::new("22P02"), false);
            prop_assert_eq!(handler.reports.iter().filter(|report| **report == failed).count(), model.errors);
        }
        prop_assert_eq!(protocol.handler.busy, None);
        prop_assert_eq!(model.finished, model.queries);
    }

    #[test]
    fn reports_do_not_depend_on_chunks((commands, choices) in sampled()) {
        let mut choices = Choices(choices.iter().cycle());
        let mut stream: Vec<(Side, Vec<u8>)> = STARTUP.map(|(from, bytes)| (from, bytes.to_vec())).to_vec();
        for step in session(&commands, &mut choices) {
            // All that one side sends in a row is one read.
            match stream.last_mut() {
                Some((last, bytes)) if *last == from(&step) => bytes.extend(step.bytes),
                _ => stream.push((from(&step), step.bytes)),
            }
        }
        let stream: Vec<_> = stream.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        replay(&stream).1.unwrap();
        let mut corrupted: Vec<_> = stream.iter().map(|(from, bytes)| (*from, bytes.to_vec())).collect();
        for _ in 0..=choices.below(3) {
            let at = choices.below(corrupted.len());
            let place = choices.below(corrupted[at].1.len());
            corrupted[at].1[place] = u8::try_from(choices.below(256)).unwrap();
        }
        let corrupted: Vec<_> = corrupted.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        let _ = replay(&corrupted);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), numbers in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = replay(&reads(&bytes));
        let mut stream = STARTUP.to_vec();
        stream.extend(messages(&numbers));
        let _ = replay(&stream);
    }
}
