//! Hashes of passwords and tokens that are slow on purpose: their formats, the bounded work of verifying them beside the
//! workers, and a memory of what was right.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

/// How a password was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Bcrypt,
    Argon2id,
}

impl Algorithm {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "bcrypt" => Some(Self::Bcrypt),
            "argon2id" => Some(Self::Argon2id),
            _ => None,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bcrypt => "bcrypt",
            Self::Argon2id => "argon2id",
        }
    }

    /// Whether this is a hash of the algorithm.
    #[must_use]
    pub fn accepts(self, hash: &str) -> bool {
        match self {
            Self::Bcrypt => hash.parse::<bcrypt::HashParts>().is_ok(),
            Self::Argon2id => {
                hash.starts_with("$argon2id$") && PasswordHash::new(hash).is_ok_and(|parsed| parsed.hash.is_some())
            }
        }
    }

    /// Takes tens to hundreds of milliseconds: not for a worker, see [`Hashing`].
    #[must_use]
    pub fn verify(self, password: &[u8], hash: &str) -> bool {
        match self {
            Self::Bcrypt => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2id => {
                PasswordHash::new(hash).is_ok_and(|parsed| Argon2::default().verify_password(password, &parsed).is_ok())
            }
        }
    }
}

/// The argon2id hash of a secret, with a salt of its own; `None` when the system gives no random bytes.
#[must_use]
pub fn hash_argon2id(secret: &[u8]) -> Option<String> {
    Some(Argon2::default().hash_password(secret).ok()?.to_string())
}

/// Bounds the hashing that strangers can cause: as many at one time as there are cores, and a short queue.
pub struct Hashing {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// More verifications are asked for than the queue holds: for the client, try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Default for Hashing {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { permits: Arc::new(Semaphore::new(cores)), waiting: AtomicUsize::new(0) }
    }
}

impl Hashing {
    /// At some tens of milliseconds each, the last of them waits a few seconds.
    const MOST_WAITING: usize = 128;

    /// Whether the password is right. May be dropped: a verification that has begun then runs to its end and counts
    /// until then, so that clients that leave at once do not start more of them.
    pub async fn verify(&self, algorithm: Algorithm, password: Vec<u8>, hash: Arc<str>) -> Result<bool, Busy> {
        let _place = Place::take(&self.waiting)?;
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Err(Busy) };
        let verify = move || {
            let right = algorithm.verify(&password, &hash);
            drop(permit);
            right
        };
        Ok(tokio::task::spawn_blocking(verify).await.unwrap_or(false))
    }
}

/// A place in the queue, given back on drop.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, Busy> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) < Hashing::MOST_WAITING { Ok(place) } else { Err(Busy) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keyed digests of passwords that were right: neither the passwords nor anything to test guesses against elsewhere.
pub struct Remembered {
    key: [u8; 32],
    known: Mutex<HashSet<[u8; 32]>>,
}

impl Remembered {
    const CAPACITY: usize = 1000;

    /// Fails when the system gives no random bytes.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key, known: Mutex::default() })
    }

    /// What stands for a password beside the hash it belongs to.
    #[must_use]
    pub fn digest(&self, hash: &str, password: &[u8]) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return [0; 32] };
        mac.update(&(hash.len() as u64).to_le_bytes());
        mac.update(hash.as_bytes());
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    #[must_use]
    pub fn knows(&self, digest: &[u8; 32]) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    pub fn remember(&self, digest: [u8; 32]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::CAPACITY {
            // Full only with very many users: starting anew costs one hashing each.
            known.clear();
        }
        known.insert(digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_has_an_end_and_places_are_given_back() {
        let hashing = Hashing::default();
        let places: Vec<_> = (0..Hashing::MOST_WAITING).map(|_| Place::take(&hashing.waiting).ok().unwrap()).collect();
        assert!(Place::take(&hashing.waiting).is_err());
        drop(places);
        assert!(Place::take(&hashing.waiting).is_ok());
        assert_eq!(hashing.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_was_right_is_known_for_its_own_hash_only() {
        let remembered = Remembered::new().unwrap();
        let digest = remembered.digest("hash", b"password");
        assert!(!remembered.knows(&digest));
        remembered.remember(digest);
        assert!(remembered.knows(&remembered.digest("hash", b"password")));
        assert!(!remembered.knows(&remembered.digest("hashp", b"assword")));
        assert_ne!(digest, Remembered::new().unwrap().digest("hash", b"password"), "each has a key of its own");
    }
}
