//! Tokens whose signature was right, remembered: an RSA or EC verification costs more than the rest of a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;

use super::claims::Caller;
use super::key::KeySet;

/// Keyed digests of tokens, never the tokens. Bounded: the younger of two generations takes the place of the older.
pub struct Verified {
    key: hmac::Key,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Entry>,
    old: HashMap<Digest, Entry>,
}

pub type Digest = [u8; 32];

#[derive(Clone)]
struct Entry {
    caller: Arc<Caller>,
    /// What it was verified with; other keys, another verdict.
    keys: Arc<KeySet>,
}

impl Verified {
    /// Tokens in each generation; one takes 1 to 2 KiB.
    const CAPACITY: usize = 4096;

    /// `None` when the system has no randomness.
    #[must_use]
    pub fn new() -> Option<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).ok()?;
        Some(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), generations: Mutex::default() })
    }

    #[must_use]
    pub fn digest(&self, token: &[u8]) -> Digest {
        let tag = hmac::sign(&self.key, token);
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        digest
    }

    /// The bearer of a token that one of these key sets has verified and that has not expired.
    #[must_use]
    pub fn find(&self, digest: &Digest, keys: &[&Arc<KeySet>], now: i64) -> Option<Arc<Caller>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match generations.young.get(digest) {
            Some(entry) => entry.clone(),
            None => {
                // Used again: it does not go with the old ones.
                let entry = generations.old.remove(digest)?;
                generations.insert(*digest, entry.clone());
                entry
            }
        };
        let valid = now < found.caller.until && keys.iter().any(|keys| Arc::ptr_eq(&found.keys, keys));
        valid.then_some(found.caller)
    }

    pub fn remember(&self, digest: Digest, keys: Arc<KeySet>, caller: Arc<Caller>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(digest, Entry { caller, keys });
    }
}

impl Generations {
    fn insert(&mut self, digest: Digest, entry: Entry) {
        if self.young.len() >= Verified::CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(until: i64) -> Arc<Caller> {
        Arc::new(Caller { user: crate::http::exchange::User::default(), until })
    }

    #[test]
    fn it_forgets_with_the_expiry_and_with_the_keys() {
        let verified = Verified::new().unwrap();
        let (keys, other) = (Arc::new(KeySet::default()), Arc::new(KeySet::default()));
        let digest = verified.digest(b"token");
        verified.remember(digest, Arc::clone(&keys), caller(100));
        assert!(verified.find(&digest, &[&keys], 99).is_some());
        assert!(verified.find(&digest, &[&keys], 100).is_none());
        assert!(verified.find(&digest, &[&other], 99).is_none());
        assert!(verified.find(&verified.digest(b"token2"), &[&keys], 99).is_none());
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let verified = Verified::new().unwrap();
        let keys = Arc::new(KeySet::default());
        let used = verified.digest(b"used");
        verified.remember(used, Arc::clone(&keys), caller(100));
        for i in 0..Verified::CAPACITY * 5 {
            verified.remember(verified.digest(&i.to_le_bytes()), Arc::clone(&keys), caller(100));
            if i % 1000 == 0 {
                assert!(verified.find(&used, &[&keys], 0).is_some(), "forgotten after {i}");
            }
        }
        let generations = verified.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * Verified::CAPACITY);
    }
}
