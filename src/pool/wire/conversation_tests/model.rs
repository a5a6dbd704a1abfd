//! Conversations made up at random: valid ones, against a model of what they say; and any bytes at all.

use proptest::prelude::*;

use super::super::witness::{Fact, From, STARTUP, Talk, compare, messages, reads};
use super::{Client, ErrorCode, Server, Transaction, client, error, message, query, ready, server};

/// A part of a conversation that one side writes.
#[derive(Debug, Default)]
struct Step {
    /// Nothing is the client's.
    from_server: bool,
    bytes: Vec<u8>,
    /// Whether the client writes it without waiting for what the server says before it.
    eager: bool,
    /// Of which request it is.
    request: usize,
    /// What the client says with it.
    begins: Option<Kind>,
    queries: u32,
    /// What the server says with it.
    failed: Option<&'static str>,
    /// Whether all of a COPY OUT is there with it.
    copied: bool,
    ready: Option<Transaction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Work,
    Rollback,
    /// Data from the client: what is left of it to write when it fails is the client's affair.
    CopyIn,
}

/// What a client may ask for.
#[derive(Clone, Copy, Debug)]
enum Ask {
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
    /// With a Flush there, or nothing.
    Flushed,
}

#[derive(Clone, Copy, Debug)]
enum CopyEnd {
    Done,
    /// The client gave up.
    GivenUp,
    /// The server found an error in the data.
    Bad,
    /// The server found an error before it read anything.
    Refused,
}

fn asks() -> impl Strategy<Value = Ask> {
    let how = prop_oneof![Just(CopyIn::Simple), Just(CopyIn::Synced), Just(CopyIn::Flushed)];
    let end = prop_oneof![Just(CopyEnd::Done), Just(CopyEnd::GivenUp), Just(CopyEnd::Bad), Just(CopyEnd::Refused)];
    prop_oneof![
        any::<bool>().prop_map(|failed| Ask::Simple { failed }),
        Just(Ask::Empty),
        any::<bool>().prop_map(|savepoint| Ask::Rollback { savepoint }),
        Just(Ask::Call),
        Just(Ask::Prepare),
        (0..4_u8, any::<bool>(), any::<bool>()).prop_map(|(queries, failed, flushed)| Ask::Extended {
            queries,
            failed,
            flushed
        }),
        Just(Ask::Close),
        Just(Ask::Sync),
        any::<bool>().prop_map(|extended| Ask::CopyOut { extended }),
        (how, any::<bool>(), end).prop_map(|(how, eager, end)| Ask::CopyIn { how, eager, end }),
    ]
}

/// Writes requests down, step by step.
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

    /// What is work, and so many queries.
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

    /// The end of the request, with whatever transaction.
    fn ready(&mut self, status: u8) {
        let (letter, transaction) = match status % 3 {
            0 => (b'I', Transaction::None),
            1 => (b'T', Transaction::Open),
            _ => (b'E', Transaction::Failed),
        };
        self.server(&ready(letter)).ready = Some(transaction);
        self.request += 1;
    }

    fn write(&mut self, ask: Ask, status: u8) {
        match ask {
            Ask::Simple { failed } => {
                self.work(&client("Q"), 1);
                self.server(&server("TD"));
                self.answer(failed, "DC");
            }
            Ask::Empty => {
                self.work(&query(""), 1);
                self.server(&server("I"));
            }
            Ask::Rollback { savepoint } => {
                let text = if savepoint { "ROLLBACK TO sp_1" } else { "ROLLBACK" };
                self.work(&query(text), 1).begins = Some(Kind::Rollback);
                self.server(&server("C"));
            }
            Ask::Call => {
                self.work(&client("F"), 1);
                self.server(&server("V"));
            }
            Ask::Prepare => {
                self.work(&client("PD"), 0);
                self.client(&client("S"));
                self.server(&server("1tT"));
            }
            Ask::Extended { queries, failed, flushed } => {
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
            Ask::Close => {
                self.client(&client("CS"));
                self.server(&server("3"));
            }
            Ask::Sync => {
                self.client(&client("S"));
            }
            Ask::CopyOut { extended } => {
                self.work(&client(if extended { "BES" } else { "Q" }), 1);
                self.server(&server(if extended { "2Hd" } else { "Hd" }));
                self.server(&server("dcC")).copied = extended;
            }
            Ask::CopyIn { how, eager, end } => return self.copy_in(how, eager, end, status),
        }
        self.ready(status);
    }

    fn copy_in(&mut self, how: CopyIn, eager: bool, end: CopyEnd, status: u8) {
        let (asked, answered, sync) = match how {
            CopyIn::Simple => ("Q", "G", ""),
            CopyIn::Synced => ("BES", "2G", "S"),
            CopyIn::Flushed => ("BEH", "2G", "S"),
        };
        self.work(&client(asked), 1).begins = Some(Kind::CopyIn);
        self.server(&server(answered));
        let given_up = matches!(end, CopyEnd::GivenUp);
        let done = [if given_up { "f" } else { "c" }, sync].concat();
        if matches!(end, CopyEnd::Refused) {
            self.error();
            // The first Sync is not ignored then, and what comes behind it is a request of its own.
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
            (CopyEnd::Done | CopyEnd::GivenUp, _) => self.answer(given_up, "C"),
            (CopyEnd::Bad | CopyEnd::Refused, _) => {}
        }
        self.ready(status);
    }
}

/// Decisions, one after another and round again.
struct Choices<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Choices<'_> {
    fn below(&mut self, end: usize) -> usize {
        usize::from(*self.0.next().unwrap()) % end
    }
}

/// Puts the steps in an order in which they may pass: what the client writes may come before the answers to what it
/// wrote before, and what the server says comes behind what it answers.
fn interleave(steps: Vec<Step>, choices: &mut Choices<'_>) -> Vec<Step> {
    let mut left: std::collections::VecDeque<Step> = steps.into();
    let mut passed = Vec::new();
    while let Some(first) = left.front() {
        let mut next = 0;
        if first.from_server && choices.below(2) == 0 {
            // The client is ahead, if it need not wait for the answers to what it does.
            let ahead = left.iter().position(|step| !step.from_server);
            let waits = |ahead: usize| left.iter().take(ahead).any(|step| step.request == left[ahead].request);
            next = ahead.filter(|ahead| left[*ahead].eager || !waits(*ahead)).unwrap_or(0);
        }
        passed.extend(left.remove(next));
    }
    passed
}

/// What is true of the requests so far.
#[derive(Default)]
struct Model {
    /// The work of each request that is not answered.
    outstanding: Vec<(usize, Kind)>,
    asked: Vec<(usize, u32)>,
    /// Requests of which all is said but that the server is ready.
    over: Vec<usize>,
    queries: u32,
    finished: u32,
    errors: usize,
    transaction: Option<Transaction>,
}

impl Model {
    fn pass(&mut self, step: &Step) {
        if let Some(kind) = step.begins {
            self.outstanding.push((step.request, kind));
        }
        self.queries += step.queries;
        self.asked.push((step.request, step.queries));
        if step.failed.is_some() {
            self.errors += 1;
        }
        if step.failed.is_some() || step.copied {
            self.over.push(step.request);
        }
        if step.ready.is_some() {
            self.transaction = step.ready;
            self.outstanding.retain(|(request, _)| *request != step.request);
            self.finished += self.asked(step.request);
        }
    }

    fn asked(&self, request: usize) -> u32 {
        self.asked.iter().filter(|(of, _)| *of == request).map(|(_, queries)| queries).sum()
    }

    /// Whether there is work, and if so whether all of it only comes to its end; where that is certain.
    fn busy(&self) -> (bool, Option<bool>) {
        let certain =
            !self.outstanding.iter().any(|(request, kind)| *kind == Kind::CopyIn && self.over.contains(request));
        let ends = |(request, kind): &(usize, Kind)| {
            *kind == Kind::Rollback || self.over.contains(request) || self.asked(*request) == 0
        };
        (!self.outstanding.is_empty(), certain.then(|| self.outstanding.iter().all(ends)))
    }
}

/// Cuts bytes into a few reads.
fn cut<'a>(mut bytes: &'a [u8], choices: &mut Choices<'_>) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    while !bytes.is_empty() {
        let (read, rest) = bytes.split_at(1 + choices.below(bytes.len()));
        reads.push(read);
        bytes = rest;
    }
    reads
}

fn from(step: &Step) -> From {
    if step.from_server { Server } else { Client }
}

/// A conversation that may take place.
fn conversation(asks: &[(Ask, u8)], choices: &mut Choices<'_>) -> Vec<Step> {
    let mut script = Script::default();
    for (ask, status) in asks {
        script.write(*ask, *status);
    }
    let mut steps = interleave(script.steps, choices);
    for step in steps.iter_mut().filter(|step| step.from_server) {
        // What comes by itself, between any two messages.
        match choices.below(8) {
            0 => step.bytes.splice(..0, message(b'A', b"\0\0\0\x01a\0b\0")).for_each(drop),
            1 => step.bytes.extend(message(b'N', b"SNOTICE\0C00000\0\0")),
            2 => step.bytes.extend(message(b'S', b"a\0b\0")),
            _ => {}
        }
    }
    steps
}

type Sampled = (Vec<(Ask, u8)>, Vec<u8>);

fn sampled() -> impl Strategy<Value = Sampled> {
    (proptest::collection::vec((asks(), any::<u8>()), 1..12), proptest::collection::vec(any::<u8>(), 1..150))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_of_a_valid_conversation_is_true_at_every_step((asks, choices) in sampled()) {
        let mut choices = Choices(choices.iter().cycle());
        let steps = conversation(&asks, &mut choices);
        let (mut talk, mut model) = (Talk::new(), Model::default());
        for (from, bytes) in STARTUP {
            talk.hear(from, bytes).unwrap();
        }
        for step in &steps {
            for read in cut(&step.bytes, &mut choices) {
                talk.hear(from(step), read).unwrap();
            }
            model.pass(step);
            let witness = &talk.witness;
            let (busy, ending) = model.busy();
            prop_assert_eq!(witness.busy.is_some(), busy, "after {:?} of {:?}", step, steps);
            if let (true, Some(ending)) = (busy, ending) {
                prop_assert_eq!(witness.busy, Some(ending), "after {:?} of {:?}", step, steps);
            }
            prop_assert_eq!((witness.queries, witness.finished), (model.queries, model.finished), "{:?}", steps);
            let ready = witness.facts.iter().rev().find_map(|fact| if let Fact::Ready(transaction) = fact { Some(*transaction) } else { None });
            if step.ready.is_some() && !busy {
                prop_assert_eq!(ready, model.transaction);
            }
            let failed = Fact::Failed(ErrorCode::word("22P02"), false);
            prop_assert_eq!(witness.facts.iter().filter(|fact| **fact == failed).count(), model.errors);
        }
        prop_assert_eq!(talk.witness.busy, None);
        prop_assert_eq!(model.finished, model.queries);
    }

    #[test]
    fn what_is_told_does_not_depend_on_how_the_reads_come((asks, choices) in sampled()) {
        let mut choices = Choices(choices.iter().cycle());
        let mut stream: Vec<(From, Vec<u8>)> = STARTUP.map(|(from, bytes)| (from, bytes.to_vec())).to_vec();
        for step in conversation(&asks, &mut choices) {
            // As much as one side writes in a row is one read.
            match stream.last_mut() {
                Some((last, bytes)) if *last == from(&step) => bytes.extend(step.bytes),
                _ => stream.push((from(&step), step.bytes)),
            }
        }
        let stream: Vec<_> = stream.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        compare(&stream).1.unwrap();
        let mut corrupted: Vec<_> = stream.iter().map(|(from, bytes)| (*from, bytes.to_vec())).collect();
        for _ in 0..=choices.below(3) {
            let at = choices.below(corrupted.len());
            let place = choices.below(corrupted[at].1.len());
            corrupted[at].1[place] = u8::try_from(choices.below(256)).unwrap();
        }
        let corrupted: Vec<_> = corrupted.iter().map(|(from, bytes)| (*from, &bytes[..])).collect();
        let _ = compare(&corrupted);
    }

    #[test]
    fn no_bytes_are_too_much_for_it(bytes in proptest::collection::vec(any::<u8>(), 0..400), said in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = compare(&reads(&bytes));
        let mut stream = STARTUP.to_vec();
        stream.extend(messages(&said));
        let _ = compare(&stream);
    }
}
