//! All tokens of one `auth_token`, found in a time that does not depend on how many there are, nor on how much of one a
//! credential has right (docs/decisions/0009).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::token::{LONGEST, Secret, Token, digest};
use crate::base::password::{Algorithm, Busy, Hashing, Remembered};
use crate::config::compile_cx::CompileError;

/// What `llmproxy new-token NAME` makes tokens of: `llmp_NAME_RANDOM`.
pub const PREFIX: &str = "llmp_";

pub struct TokenSet {
    tokens: Vec<Token>,
    by_name: HashMap<Arc<str>, usize>,
    /// By the keyed digest of the token's digest. Where a credential falls in the table is thus nothing that a stranger
    /// can choose or foresee.
    by_digest: HashMap<[u8; 32], usize>,
    /// With a random key of this set, and not used up: cloned for each credential.
    keyed: Hmac<Sha256>,
    hashing: Hashing,
    remembered: Remembered,
    /// Where each token was given.
    origins: Vec<Origin>,
    slow: bool,
}

/// Where a token was given, for messages about two of them.
#[derive(Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration itself.
    Config,
    /// A line of a token file, one-based.
    Line(Arc<str>, usize),
}

/// What a credential is.
pub enum Found<'s> {
    Known(&'s Token),
    /// Perhaps this token: whether it is must be worked out beside the workers.
    Slow(&'s Token, Arc<str>),
    Unknown,
}

impl TokenSet {
    pub fn new() -> Result<Self, CompileError> {
        let no_randomness = || CompileError::new("no-randomness", "the system gives no random bytes");
        let mut key = [0_u8; 32];
        getrandom::fill(&mut key).map_err(|_| no_randomness())?;
        Ok(Self {
            tokens: Vec::new(),
            by_name: HashMap::new(),
            by_digest: HashMap::new(),
            keyed: Hmac::<Sha256>::new_from_slice(&key).map_err(|_| no_randomness())?,
            hashing: Hashing::default(),
            remembered: Remembered::new().map_err(|_| no_randomness())?,
            origins: Vec::new(),
            slow: false,
        })
    }

    /// Adds a token; two with one name or one value are a mistake, as nobody could say whose rights count.
    pub fn add(&mut self, token: Token, origin: Origin) -> Result<(), CompileError> {
        let index = self.tokens.len();
        let twice = |other: usize, what: &str| {
            let message = match (&self.origins[other], &origin) {
                (Origin::Config, Origin::Config) => {
                    format!("the tokens {} and {} have the same {what}", self.tokens[other].name, token.name)
                }
                (Origin::Config, _) => format!("the {what} is that of the token {}", self.tokens[other].name),
                (Origin::Line(file, line), _) => format!("the {what} is that of {file}:{line}"),
            };
            CompileError::new("duplicate-token", message)
        };
        if let Some(other) = self.by_name.get(&token.name) {
            return Err(twice(*other, "name"));
        }
        match &token.secret {
            Secret::Digest(digest) => match self.by_digest.entry(keyed(&self.keyed, digest)) {
                Entry::Occupied(other) => return Err(twice(*other.get(), "value")),
                Entry::Vacant(place) => drop(place.insert(index)),
            },
            Secret::Argon2(_) => self.slow = true,
        }
        self.by_name.insert(Arc::clone(&token.name), index);
        self.tokens.push(token);
        self.origins.push(origin);
        Ok(())
    }

    /// Whether answering may take waiting: for a slow hash, or for a body that tells the model.
    pub fn waits(&self) -> bool {
        self.slow || self.tokens.iter().any(|token| token.models.is_some())
    }

    pub fn named(&self, name: &str) -> Option<&Token> {
        self.tokens.get(*self.by_name.get(name)?)
    }

    pub fn find(&self, credential: &[u8]) -> Found<'_> {
        if credential.len() > LONGEST {
            return Found::Unknown;
        }
        let given = digest(credential);
        if let Some(token) = self.by_digest.get(&keyed(&self.keyed, &given)).and_then(|index| self.tokens.get(*index))
            && let Secret::Digest(known) = &token.secret
            && bool::from(known.ct_eq(&given))
        {
            return Found::Known(token);
        }
        if self.slow { self.find_slow(credential) } else { Found::Unknown }
    }

    /// A token with a slow hash is looked for by the name in it: an unknown credential costs one verification at most,
    /// however many tokens there are, and none when it names no such token.
    fn find_slow(&self, credential: &[u8]) -> Found<'_> {
        let Some(token) = name_in(credential).and_then(|name| self.named(name)) else { return Found::Unknown };
        match &token.secret {
            Secret::Argon2(hash) if self.remembered.knows(&self.remembered.digest(hash, credential)) => {
                Found::Known(token)
            }
            Secret::Argon2(hash) => Found::Slow(token, Arc::clone(hash)),
            Secret::Digest(_) => Found::Unknown,
        }
    }

    /// Verifies what [`Found::Slow`] left open.
    pub async fn verify(&self, hash: Arc<str>, credential: Vec<u8>) -> Result<bool, Busy> {
        let digest = self.remembered.digest(&hash, &credential);
        let right = self.hashing.verify(Algorithm::Argon2id, credential, hash).await?;
        if right {
            self.remembered.remember(digest);
        }
        Ok(right)
    }
}

/// The name in a token that `new-token` made; random parts have no `_`, names may.
pub fn name_in(credential: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(credential).ok()?;
    Some(text.strip_prefix(PREFIX)?.rsplit_once('_')?.0)
}

fn keyed(key: &Hmac<Sha256>, digest: &[u8; 32]) -> [u8; 32] {
    let mut mac = key.clone();
    mac.update(digest);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::super::token::Written;
    use super::*;
    use std::time::Instant;

    fn add(set: &mut TokenSet, name: &str, value: &str) -> Result<(), CompileError> {
        set.add(Written { name: name.into(), ..Written::default() }.settle(value)?, Origin::Config)
    }

    fn known<'s>(set: &'s TokenSet, credential: &str) -> Option<&'s str> {
        match set.find(credential.as_bytes()) {
            Found::Known(token) => Some(&token.name),
            _ => None,
        }
    }

    #[test]
    fn each_token_is_found_and_nothing_else() {
        let mut set = TokenSet::new().unwrap();
        for i in 0..100 {
            add(&mut set, &format!("n{i}"), &format!("token-number-{i}")).unwrap();
        }
        assert_eq!(known(&set, "token-number-42"), Some("n42"));
        for wrong in ["token-number-100", "token-number-", "token-number-42 ", "", "n42"] {
            assert_eq!(known(&set, wrong), None, "{wrong}");
        }
        assert_eq!(set.named("n7").map(|t| &*t.name), Some("n7"));
        assert!(!set.waits());
    }

    #[test]
    fn one_name_or_one_value_for_two_is_refused() {
        let mut set = TokenSet::new().unwrap();
        add(&mut set, "a", "the-first-token").unwrap();
        let name = add(&mut set, "a", "the-second-token").err().unwrap();
        assert_eq!((name.code, &*name.message), ("duplicate-token", "the tokens a and a have the same name"));
        let hash: String = crate::base::hex::hex(&digest(b"the-first-token"));
        let value = add(&mut set, "b", &format!("sha256:{hash}")).err().unwrap();
        assert_eq!((value.code, &*value.message), ("duplicate-token", "the tokens a and b have the same value"));
    }

    #[test]
    fn slow_hashes_are_worked_out_only_for_the_token_that_is_named() {
        let hash = crate::base::password::hash_argon2id(b"llmp_my_ide_Random").unwrap();
        let mut set = TokenSet::new().unwrap();
        add(&mut set, "my_ide", &hash).unwrap();
        add(&mut set, "plain", "llmp_plain_Random").unwrap();
        assert!(set.waits());
        assert_eq!(known(&set, "llmp_plain_Random"), Some("plain"));
        for wrong in ["llmp_ide_Random", "my_ide", "llmp_my_ide", "llmp_plain_Rand", "Bearer llmp_my_ide_Random"] {
            assert!(matches!(set.find(wrong.as_bytes()), Found::Unknown), "{wrong}");
        }
        let verify = |credential: &str| {
            let Found::Slow(token, hash) = set.find(credential.as_bytes()) else { panic!("{credential}") };
            assert_eq!(&*token.name, "my_ide");
            crate::modules::testing::block_on(set.verify(hash, credential.into()))
        };
        assert_eq!(verify("llmp_my_ide_Wrong"), Ok(false));
        assert_eq!(verify("llmp_my_ide_Random"), Ok(true));
        assert_eq!(known(&set, "llmp_my_ide_Random"), Some("my_ide"), "remembered");
        assert!(matches!(set.find(b"llmp_my_ide_Wrong"), Found::Slow(..)), "what was wrong is not");
    }

    /// `cargo test --release -- --ignored --nocapture a_lookup_costs`: 10,000 tokens cost what 10 cost.
    #[test]
    #[ignore = "prints times"]
    fn a_lookup_costs_the_same_among_many() {
        for count in [10, 10_000] {
            let mut set = TokenSet::new().unwrap();
            let began = Instant::now();
            for i in 0..count {
                add(&mut set, &format!("n{i}"), &format!("llmp_n{i}_{i:0>40}")).unwrap();
            }
            let made = began.elapsed();
            let credentials: Vec<String> = (0..10).map(|i| format!("llmp_n{i}_{i:0>40}")).collect();
            let rounds = 100_000;
            for (what, suffix) in [("right", ""), ("wrong", "x")] {
                let asked: Vec<String> = credentials.iter().map(|c| format!("{c}{suffix}")).collect();
                let began = Instant::now();
                let found = (0..rounds).filter(|i| known(&set, &asked[i % 10]).is_some()).count();
                let each = began.elapsed() / u32::try_from(rounds).unwrap();
                println!("{count} tokens (made in {made:?}), {what}: {each:?} each, {found} found");
            }
        }
    }
}
