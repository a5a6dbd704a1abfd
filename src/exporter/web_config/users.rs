//! `basic_auth_users`: who may ask, and how that is found out without costing more than it may.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use ring::rand::SystemRandom;

use super::error::Problem;
use super::section::{entries, wants};
use super::yaml::{Node, Value};
use crate::exporter::turns::{Turns, Undone};

/// What this part is called in the file.
pub(super) const NAME: &str = "basic_auth_users";

/// What bcrypt takes twice as long for with each step: from less than a millisecond to some seconds.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;

/// How many answers of bcrypt's are remembered, of right and of wrong passwords each.
const REMEMBERED: usize = 256;

/// Who may ask.
pub(super) struct Users {
    hashes: HashMap<Box<str>, Box<str>>,
    /// What a password of somebody unknown is compared with, so that it takes as long.
    decoy: Box<str>,
    key: hmac::Key,
    known: Mutex<Known>,
    #[cfg(test)]
    pub(super) verified: Mutex<Vec<std::thread::ThreadId>>,
}

/// What bcrypt said. Of what was asked only a keyed hash is kept.
#[derive(Default)]
struct Known {
    right: Latest,
    wrong: Latest,
}

/// The latest of them.
#[derive(Clone, Default)]
struct Latest {
    all: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl Latest {
    fn add(&mut self, digest: Digest) {
        if self.all.insert(digest) {
            self.order.push_back(digest);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

type Digest = [u8; 32];

/// Whether somebody may have an answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::exporter) enum Verdict {
    Admitted,
    /// No name, no password, or not the right ones.
    Refused,
    /// Nobody looked.
    Undone(Undone),
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

/// Reads the part. `None` where nobody is named, and so everybody may ask.
pub(super) fn read(node: Option<&Node>) -> Result<Option<Arc<Users>>, Problem> {
    let mut hashes = HashMap::new();
    let mut highest = *COSTS.start();
    for entry in entries(node, NAME)? {
        // Neither name nor value is repeated: someone may have mistaken one for the other.
        if entry.key.is_empty() || entry.key.contains(':') {
            return Err(Problem::at(entry.line, "no user can have a name that is empty or has a colon in it"));
        }
        let Value::Text(hash) = &entry.node.value else { return Err(wants(&entry.node, "a user", "a hash")) };
        let Ok(parts) = hash.parse::<HashParts>() else {
            let problem =
                "this is no hash of bcrypt's, as `htpasswd -nBC 10 \"\"` makes it: 60 characters that begin with $2y$";
            return Err(Problem::at(entry.node.line, problem));
        };
        if !COSTS.contains(&parts.get_cost()) {
            let problem = format!(
                "a hash's cost is from {} to {}; a higher one takes longer than a scrape may",
                COSTS.start(),
                COSTS.end()
            );
            return Err(Problem::at(entry.node.line, problem));
        }
        highest = highest.max(parts.get_cost());
        hashes.insert(entry.key.as_str().into(), hash.as_str().into());
    }
    if hashes.is_empty() {
        return Ok(None);
    }
    let line = node.map_or(0, |node| node.line);
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
        .map_err(|_| Problem::at(line, format!("{NAME} needs random numbers, which the system does not give")))?;
    Ok(Some(Arc::new(Users {
        hashes,
        // Of no password that anybody knows.
        decoy: format!("$2b${highest:02}${}", "abcdefghijklmnopqrstuuOQYfLzFhWtd1AzXVOFmRCDcGMDcIkVS").into(),
        key,
        known: Mutex::default(),
        #[cfg(test)]
        verified: Mutex::default(),
    })))
}

impl Users {
    /// Whether who sends these headers is one of them.
    ///
    /// bcrypt takes its time on a blocking thread, once it is its turn, and what it says is remembered.
    pub(super) async fn judge(self: &Arc<Self>, headers: &HeaderMap, turns: &Turns) -> Verdict {
        let Some((name, password)) = credentials(headers) else { return Verdict::Refused };
        let digest = self.digest(&name, &password);
        if let Some(verdict) = self.remembered(&digest) {
            return verdict;
        }
        let users = Arc::clone(self);
        match turns.take(move || users.verify(&name, &password, digest)).await {
            Ok(verdict) => verdict,
            Err(undone) => Verdict::Undone(undone),
        }
    }

    fn verify(&self, name: &str, password: &[u8], digest: Digest) -> Verdict {
        // Whoever asked at the same time may have had their turn before.
        if let Some(verdict) = self.remembered(&digest) {
            return verdict;
        }
        #[cfg(test)]
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).push(std::thread::current().id());
        let hash = self.hashes.get(name);
        let matches = bcrypt::verify(password, hash.unwrap_or(&self.decoy)).unwrap_or(false);
        let right = matches && hash.is_some();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if right { &mut known.right } else { &mut known.wrong }.add(digest);
        if right { Verdict::Admitted } else { Verdict::Refused }
    }

    fn remembered(&self, digest: &Digest) -> Option<Verdict> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.right.all.contains(digest) {
            return Some(Verdict::Admitted);
        }
        known.wrong.all.contains(digest).then_some(Verdict::Refused)
    }

    /// Takes over which passwords `former` ones found to be right. What was right by another hash is not found here.
    pub(super) fn inherit(&mut self, former: &Self) {
        let right = former.known.lock().unwrap_or_else(PoisonError::into_inner).right.clone();
        self.key = former.key.clone();
        self.known = Mutex::new(Known { right, wrong: Latest::default() });
    }

    /// By a key that no one has but this process, as long as it runs.
    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        let hash = self.hashes.get(name).unwrap_or(&self.decoy);
        // Names have no colon in them, and neither has a hash.
        for part in [name.as_bytes(), b":", hash.as_bytes(), b":", password] {
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

/// The name and the password that a request brings, if it brings any.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(decoded.get(..colon)?).ok()?;
    Some((name.to_owned(), decoded.get(colon + 1..)?.to_vec()))
}
