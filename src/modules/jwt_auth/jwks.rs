//! An issuer's keys from its URL: fetched when first needed, refreshed beside the requests, one fetch at a time for all
//! workers. They outlive a reload, and serve on while the URL is down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::fault::Fault;
use super::key::{Key, KeySet};
use crate::client::{ServiceUrl, Target, simple};

/// How long a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// A set of a hundred RSA keys has 50 KiB.
const MAX_SET: usize = 1 << 20;
/// Strangers may name keys that do not exist: so often do they make us ask.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(30);
/// Between fetches that fail.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After so many intervals without a refresh, requests wait for one: nothing was asked for a long time.
const OVERDUE: u32 = 4;

/// An issuer's key set.
pub struct Jwks {
    target: Target,
    path: String,
    authority: String,
    state: Mutex<State>,
    /// Counts the fetches that have ended.
    rounds: watch::Sender<u64>,
}

/// No `Debug`: keys.
#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// Of the text that the keys were read from.
    digest: [u8; 32],
    fetched: Option<Instant>,
    tried: Option<Instant>,
    /// When a key that is not known made us ask.
    unknown_tried: Option<Instant>,
    flying: bool,
}

/// What a request does about the keys.
struct Plan {
    keys: Option<Arc<KeySet>>,
    /// Begin a fetch.
    start: bool,
    /// Wait until a fetch has ended.
    wait: bool,
}

impl State {
    /// `id`: the key wanted; `None` when any will do.
    fn plan(&mut self, id: Option<&str>, now: Instant, refresh: Duration) -> Plan {
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        let rested = |then: Option<Instant>, interval: Duration| since(then).is_none_or(|age| age >= interval);
        let known = self.keys.as_ref().is_some_and(|keys| keys.has(id));
        let stale = rested(self.fetched, refresh);
        let overdue = rested(self.fetched, refresh.saturating_mul(OVERDUE));
        let mut start = !self.flying && (self.keys.is_none() || stale) && rested(self.tried, RETRY_INTERVAL);
        if !known && self.keys.is_some() && !self.flying && rested(self.unknown_tried, UNKNOWN_KEY_INTERVAL) {
            self.unknown_tried = Some(now);
            start = true;
        }
        if start {
            self.flying = true;
            self.tried = Some(now);
        }
        Plan { keys: self.keys.clone(), start, wait: self.flying && (!known || overdue) }
    }

    /// Notes how a fetch ended. Keys that are as before stay the same object, so that what was verified with them is
    /// still known to be.
    fn landed(&mut self, fetched: Option<(Vec<Key>, [u8; 32])>, now: Instant) {
        self.flying = false;
        let Some((keys, digest)) = fetched else { return };
        self.fetched = Some(now);
        if self.keys.is_none() || self.digest != digest {
            (self.keys, self.digest) = (Some(Arc::new(KeySet(keys))), digest);
        }
    }
}

impl Jwks {
    /// The key set of a URL; the same object as long as some configuration uses it. Nothing is fetched yet.
    pub fn of(url: &str) -> Result<Arc<Self>, String> {
        static KNOWN: Mutex<Option<HashMap<String, Weak<Jwks>>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(jwks) = known.get(url).and_then(Weak::upgrade) {
            return Ok(jwks);
        }
        let jwks = Arc::new(Self::new(url)?);
        known.retain(|_, jwks| jwks.strong_count() > 0);
        known.insert(url.to_owned(), Arc::downgrade(&jwks));
        Ok(jwks)
    }

    fn new(url: &str) -> Result<Self, String> {
        let url = ServiceUrl::parse(url)?;
        let target = url.target()?;
        let ServiceUrl { authority, path, .. } = url;
        Ok(Self { target, path, authority, state: Mutex::default(), rounds: watch::Sender::new(0) })
    }

    /// Keys for a token that names this key, after a fetch where one is needed. Cancelling does not end the fetch.
    pub async fn keys(self: &Arc<Self>, id: Option<&str>, refresh: Duration) -> Result<Arc<KeySet>, Fault> {
        // Before the look, so that no end of a fetch is missed.
        let mut rounds = self.rounds.subscribe();
        let plan = self.plan(id, refresh);
        if !plan.wait {
            return plan.keys.ok_or(Fault::NoKeys);
        }
        let _ = tokio::time::timeout(PATIENCE, rounds.changed()).await;
        self.state().keys.clone().ok_or(Fault::NoKeys)
    }

    /// The keys as they are, when no request needs to wait for others; begins a refresh where it is time.
    pub fn at_hand(self: &Arc<Self>, refresh: Duration) -> Option<Arc<KeySet>> {
        let plan = self.plan(None, refresh);
        if plan.wait { None } else { plan.keys }
    }

    fn plan(self: &Arc<Self>, id: Option<&str>, refresh: Duration) -> Plan {
        let plan = self.state().plan(id, Instant::now(), refresh);
        if plan.start {
            let flight = Flight(Arc::clone(self));
            tokio::spawn(async move { flight.run().await });
        }
        plan
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<(Vec<Key>, [u8; 32]), String> {
        let request = Request::get(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, "llmproxy")
            .body(Bytes::new())
            .map_err(|e| e.to_string())?;
        let response =
            simple::request(&self.target, request, MAX_SET, FETCH_TIMEOUT).await.map_err(|e| e.to_string())?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("{}: answered {}", self.target.label(), response.status().as_u16()));
        }
        let keys = Key::read_set(response.body()).map_err(|why| format!("{}: {why}", self.target.label()))?;
        Ok((keys, Sha256::digest(response.body()).into()))
    }
}

/// A fetch under way. Ends it however it ends, also when its worker stops.
struct Flight(Arc<Jwks>);

impl Flight {
    async fn run(self) {
        match self.0.fetch().await {
            Ok(fetched) => self.0.state().landed(Some(fetched), Instant::now()),
            Err(why) => {
                tracing::warn!(target: "jwt_auth", "the issuer's keys cannot be fetched, those known serve on: {why}");
            }
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.state().landed(None, Instant::now());
        self.0.rounds.send_modify(|rounds| *rounds += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Signer;
    use super::*;

    const REFRESH: Duration = Duration::from_mins(15);

    fn keys(id: &str) -> Option<(Vec<Key>, [u8; 32])> {
        let set = Signer::ec().jwk(id).unwrap().to_string();
        Some((Key::read_set(set.as_bytes()).unwrap(), Sha256::digest(&set).into()))
    }

    /// Whether a fetch starts, and whether the request waits for one.
    fn plan(state: &mut State, id: Option<&str>, now: Instant) -> (bool, bool) {
        let plan = state.plan(id, now, REFRESH);
        (plan.start, plan.wait)
    }

    #[test]
    fn the_first_request_fetches_and_the_others_wait_with_it() {
        let (mut state, now) = (State::default(), Instant::now());
        assert_eq!(plan(&mut state, None, now), (true, true));
        assert_eq!(plan(&mut state, Some("a"), now), (false, true));
        // It fails: who comes at once is told so, the next but five seconds later tries again.
        state.landed(None, now);
        assert_eq!(plan(&mut state, None, now + Duration::from_secs(4)), (false, false));
        assert_eq!(plan(&mut state, None, now + Duration::from_secs(5)), (true, true));
    }

    #[test]
    fn a_stale_set_serves_while_it_is_refreshed() {
        let (mut state, now) = (State::default(), Instant::now());
        state.landed(keys("a"), now);
        assert_eq!(plan(&mut state, Some("a"), now + Duration::from_secs(14 * 60 + 59)), (false, false));
        let later = now + REFRESH;
        assert_eq!(plan(&mut state, Some("a"), later), (true, false));
        assert_eq!(plan(&mut state, Some("a"), later), (false, false));
        // The URL is down: the old ones serve, and it is tried again, not with each request.
        state.landed(None, later);
        assert_eq!(plan(&mut state, Some("a"), later + Duration::from_secs(1)), (false, false));
        assert_eq!(plan(&mut state, Some("a"), later + Duration::from_secs(5)), (true, false));
        assert!(state.keys.is_some());
        // Long after: a key may have been withdrawn, so the request waits.
        assert_eq!(plan(&mut state, Some("a"), now + REFRESH * 5), (false, true));
        state.landed(None, now);
        assert!(state.plan(Some("a"), now + REFRESH * 5, REFRESH).keys.is_some());
    }

    #[test]
    fn an_unknown_key_is_asked_for_at_most_every_thirty_seconds() {
        let (mut state, now) = (State::default(), Instant::now());
        state.landed(keys("a"), now);
        assert_eq!(plan(&mut state, Some("b"), now), (true, true));
        assert_eq!(plan(&mut state, Some("a"), now), (false, false), "the known key does not wait");
        state.landed(keys("a"), now);
        assert_eq!(plan(&mut state, Some("c"), now + Duration::from_secs(29)), (false, false));
        assert_eq!(plan(&mut state, Some("b"), now + Duration::from_secs(30)), (true, true));
        state.landed(keys("b"), now);
        assert_eq!(plan(&mut state, Some("b"), now + Duration::from_secs(31)), (false, false));
    }

    #[test]
    fn the_same_set_stays_the_same_object() {
        let (mut state, now) = (State::default(), Instant::now());
        let (first, digest) = keys("a").unwrap();
        state.landed(Some((first, digest)), now);
        let before = state.keys.clone().unwrap();
        state.landed(Some((keys("a").unwrap().0, digest)), now);
        assert!(Arc::ptr_eq(&before, state.keys.as_ref().unwrap()));
        state.landed(keys("b"), now);
        assert!(!Arc::ptr_eq(&before, state.keys.as_ref().unwrap()));
    }

    #[test]
    fn a_url_has_one_set() {
        assert!(Jwks::of("a.test/jwks").is_err());
        assert!(Arc::ptr_eq(&Jwks::of("http://same.test/").unwrap(), &Jwks::of("http://same.test/").unwrap()));
    }
}
