//! Reads `basic_auth_users`, and verifies passwords at a bounded cost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use hyper::header::{AUTHORIZATION, HeaderMap};
use ring::hmac;
use ring::rand::SystemRandom;

use super::error::LineError;
use super::section::{entries, wrong_kind};
use super::yaml::{Node, Value};
use crate::exporter::blocking::{BlockingLimiter, JobError};

/// The name of the section in the file.
pub(super) const NAME: &str = "basic_auth_users";

/// The allowed costs of bcrypt. Each step doubles the time, from less than a millisecond to some seconds.
const COSTS: RangeInclusive<u32> = 4..=16;

/// The number of right, and of wrong, passwords whose verification is remembered.
const MAX_REMEMBERED: usize = 256;

/// The users and their password hashes.
pub(super) struct Users {
    hashes: HashMap<Box<str>, Box<str>>,
    /// The hash that passwords of unknown users are compared with, so that they take as long.
    decoy: Box<str>,
    key: hmac::Key,
    verified: Mutex<Verified>,
    #[cfg(test)]
    pub(super) bcrypt_threads: Mutex<Vec<std::thread::ThreadId>>,
}

/// The results of the latest verifications, by the digest of the credentials.
#[derive(Default)]
struct Verified {
    right: RecentDigests,
    wrong: RecentDigests,
}

#[derive(Clone, Default)]
struct RecentDigests {
    digests: HashSet<Digest>,
    order: VecDeque<Digest>,
}

impl RecentDigests {
    fn insert(&mut self, digest: Digest) {
        if self.digests.insert(digest) {
            self.order.push_back(digest);
        }
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
    }
}

type Digest = [u8; 32];

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}

/// Reads the section. Returns `None` if it has no users, so that no authentication is required.
pub(super) fn read(node: Option<&Node>) -> Result<Option<Users>, LineError> {
    let mut hashes = HashMap::new();
    let mut highest_cost = *COSTS.start();
    for entry in entries(node, NAME)? {
        // Neither name nor value is repeated: they may be swapped.
        if entry.key.is_empty() || entry.key.contains(':') {
            return Err(LineError::new(entry.line, "a user name must not be empty or contain a colon"));
        }
        let Value::Text(hash) = &entry.node.value else {
            return Err(wrong_kind(&entry.node, "the value of a user", "a bcrypt hash"));
        };
        let Ok(parts) = hash.parse::<HashParts>() else {
            let problem =
                "invalid bcrypt hash; create one with `htpasswd -nBC 10 \"\"`: 60 characters that begin with $2y$";
            return Err(LineError::new(entry.node.line, problem));
        };
        if !COSTS.contains(&parts.get_cost()) {
            let problem = format!(
                "the cost of a hash must be from {} to {}; verifying with a higher one takes longer than a scrape may",
                COSTS.start(),
                COSTS.end()
            );
            return Err(LineError::new(entry.node.line, problem));
        }
        highest_cost = highest_cost.max(parts.get_cost());
        hashes.insert(entry.key.as_str().into(), hash.as_str().into());
    }
    if hashes.is_empty() {
        return Ok(None);
    }
    let line = node.map_or(0, |node| node.line);
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| {
        LineError::new(line, format!("{NAME} requires random numbers, which the system did not provide"))
    })?;
    Ok(Some(Users {
        hashes,
        // The hash of an unknown password.
        decoy: format!("$2b${highest_cost:02}${}", "abcdefghijklmnopqrstuuOQYfLzFhWtd1AzXVOFmRCDcGMDcIkVS").into(),
        key,
        verified: Mutex::default(),
        #[cfg(test)]
        bcrypt_threads: Mutex::default(),
    }))
}

impl Users {
    /// Returns whether the headers have the name and the password of a user.
    ///
    /// The password is verified on a blocking thread, and the result is remembered.
    pub(super) async fn is_authorized(
        self: &Arc<Self>,
        headers: &HeaderMap,
        limiter: &BlockingLimiter,
    ) -> Result<bool, JobError> {
        let Some((name, password)) = credentials(headers) else { return Ok(false) };
        let digest = self.digest(&name, &password);
        if let Some(is_right) = self.remembered(&digest) {
            return Ok(is_right);
        }
        let users = Arc::clone(self);
        limiter.run(move || users.verify(&name, &password, digest)).await
    }

    fn verify(&self, name: &str, password: &[u8], digest: Digest) -> bool {
        // A concurrent request may have verified it in the meantime.
        if let Some(is_right) = self.remembered(&digest) {
            return is_right;
        }
        #[cfg(test)]
        self.bcrypt_threads.lock().unwrap_or_else(PoisonError::into_inner).push(std::thread::current().id());
        let hash = self.hashes.get(name);
        let matches = bcrypt::verify(password, hash.unwrap_or(&self.decoy)).unwrap_or(false);
        let is_right = matches && hash.is_some();
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if is_right { &mut verified.right } else { &mut verified.wrong }.insert(digest);
        is_right
    }

    fn remembered(&self, digest: &Digest) -> Option<bool> {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.right.digests.contains(digest) {
            return Some(true);
        }
        verified.wrong.digests.contains(digest).then_some(false)
    }

    /// Takes over the right passwords of `previous`. Digests include the hash, so those of other hashes do not apply.
    pub(super) fn inherit(&mut self, previous: &Self) {
        let right = previous.verified.lock().unwrap_or_else(PoisonError::into_inner).right.clone();
        self.key = previous.key.clone();
        self.verified = Mutex::new(Verified { right, wrong: RecentDigests::default() });
    }

    /// Returns a digest of credentials, with a key that only this process has.
    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        let hash = self.hashes.get(name).unwrap_or(&self.decoy);
        // Neither names nor hashes contain a colon.
        for part in [name.as_bytes(), b":", hash.as_bytes(), b":", password] {
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

/// Returns the name and the password in the headers of a request.
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

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::super::yaml;
    use super::*;

    /// Returns headers with these credentials.
    pub(in super::super) fn basic(name: &str, password: &str) -> HeaderMap {
        let credentials = BASE64_STANDARD.encode(format!("{name}:{password}"));
        HeaderMap::from_iter([(AUTHORIZATION, format!("Basic {credentials}").parse().unwrap())])
    }

    impl Users {
        /// Returns how many passwords were verified with bcrypt.
        pub(in super::super) fn bcrypt_runs(&self) -> usize {
            self.bcrypt_threads.lock().unwrap().len()
        }
    }

    /// A limit under which every job runs before its timeout.
    fn limiter() -> BlockingLimiter {
        BlockingLimiter::new(2, Duration::from_secs(60))
    }

    fn users(users: &[(&str, &str)]) -> Arc<Users> {
        let yaml: String = users.iter().map(|(name, hash)| format!("{name}: {hash}\n")).collect();
        Arc::new(read(yaml::parse(&yaml).unwrap().as_ref()).unwrap().unwrap())
    }

    #[tokio::test]
    async fn each_password_is_verified_once() {
        let users = users(&[("alice", &bcrypt::hash("sesame", 4).unwrap())]);
        let limiter = limiter();
        for (name, password, is_right, bcrypt_runs) in [
            ("alice", "sesame", true, 1),
            ("alice", "sesame", true, 1),
            ("alice", "wrong", false, 2),
            ("alice", "wrong", false, 2),
            // An unknown user costs as much as a known one.
            ("mallory", "wrong", false, 3),
            ("mallory", "wrong", false, 3),
            ("alice", "sesame", true, 3),
        ] {
            let authorized = users.is_authorized(&basic(name, password), &limiter).await;
            assert_eq!(authorized, Ok(is_right), "{name} {password}");
            assert_eq!(users.bcrypt_runs(), bcrypt_runs, "{name} {password}");
        }
        assert_eq!(users.is_authorized(&HeaderMap::new(), &limiter).await, Ok(false));
        assert_eq!(users.bcrypt_runs(), 3);
        // Tasks run on this thread.
        assert!(!users.bcrypt_threads.lock().unwrap().contains(&std::thread::current().id()));
    }

    /// Wrong passwords, however many, neither evict a right one nor starve another.
    #[tokio::test]
    async fn flood_of_wrong_passwords_is_harmless() {
        // Verifying takes some milliseconds, so that the flood lasts.
        let hash = bcrypt::hash("sesame", 6).unwrap();
        let users = users(&[("alice", &hash), ("bob", &hash)]);
        let limiter = limiter();
        let known = basic("alice", "sesame");
        assert_eq!(users.is_authorized(&known, &limiter).await, Ok(true));

        let flood: Vec<_> = (0..100)
            .map(|number| {
                let (users, limiter) = (Arc::clone(&users), limiter.clone());
                tokio::spawn(async move {
                    let mut authorized = Vec::new();
                    for round in 0..4 {
                        let wrong = basic("alice", &format!("{number} {round}"));
                        authorized.push(users.is_authorized(&wrong, &limiter).await);
                    }
                    authorized
                })
            })
            .collect();
        while users.bcrypt_runs() < 5 {
            tokio::task::yield_now().await;
        }
        // The password of alice is remembered and does not queue.
        let before = users.bcrypt_runs();
        assert_eq!(users.is_authorized(&known, &limiter).await, Ok(true));
        assert!(users.bcrypt_runs() - before < 50, "it waited for the flood");
        // That of bob is not, and gets a turn.
        assert_eq!(users.is_authorized(&basic("bob", "sesame"), &limiter).await, Ok(true));
        assert!(flood.iter().any(|task| !task.is_finished()), "the flood ended before");
        for task in flood {
            assert_eq!(task.await.unwrap(), [const { Ok(false) }; 4]);
        }
        let before = users.bcrypt_runs();
        assert_eq!(users.is_authorized(&known, &limiter).await, Ok(true));
        assert_eq!(users.bcrypt_runs(), before, "400 wrong passwords evicted it");
    }
}
