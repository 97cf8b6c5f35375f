//! The CA behind the directive: who asks, what for, and the rules that hold for every request. Synchronous, blocks on
//! the storage: runs beside the requests.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::binding::ExternalKeys;
use super::jwk::{Jwk, Key};
use super::jws::{Jws, Signer};
use super::nonce::Nonces;
use super::order::Method;
use super::policy::Policy;
use super::problem::{Kind, Problem};
use super::request::{Asked, Reply};
use super::store::{Account, Store};
use crate::storage::FileStorage;
use crate::tls::authority::AuthoritySettings;

/// Requests of one CA that are worked on at a time, over all workers.
pub const MAX_REQUESTS: usize = 32;
/// Validations of one CA at a time; others wait.
const MAX_VALIDATIONS: usize = 32;
/// Validations that are under way or wait.
pub const MAX_WAITING: usize = 512;
/// How often what has ended is removed, in seconds; and how often at most when there is no room.
const SWEEP: i64 = 3600;
const SWEEP_IN_NEED: i64 = 60;

/// What the configuration says.
pub struct Settings {
    /// Id of the authority.
    pub ca: String,
    pub authority: AuthoritySettings,
    pub lifetime: Duration,
    pub sign_with_root: bool,
    pub methods: Vec<Method>,
    pub policy: Policy,
    /// When there are any, an account must be bound to one.
    pub external: ExternalKeys,
}

/// One CA as one configuration sees it.
pub struct Ca {
    pub settings: Settings,
    pub state: Arc<State>,
}

/// What a CA knows beyond requests and configurations: shared by all workers and handlers of this process.
pub struct State {
    pub store: Store,
    pub nonces: Nonces,
    /// Taken by everything that changes what is kept.
    counts: Mutex<Option<Counts>>,
    /// Challenges being validated: order, number, method.
    validating: Mutex<HashSet<(String, usize, Method)>>,
    pub requests: Arc<Semaphore>,
    pub validations: Arc<Semaphore>,
}

/// How much is kept.
pub struct Counts {
    pub accounts: usize,
    pub orders: usize,
    swept: i64,
}

impl State {
    /// The one of an authority in a storage.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn of(storage: &FileStorage, ca: &str) -> Result<Arc<Self>, getrandom::Error> {
        static ALL: OnceLock<Mutex<HashMap<(PathBuf, String), Weak<State>>>> = OnceLock::new();
        let mut all = ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, state| state.strong_count() > 0);
        let place = (storage.root().to_owned(), ca.to_owned());
        if let Some(known) = all.get(&place).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let state = Arc::new(Self {
            store: Store::new(storage.clone(), ca),
            nonces: Nonces::new()?,
            counts: Mutex::default(),
            validating: Mutex::default(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            validations: Arc::new(Semaphore::new(MAX_VALIDATIONS)),
        });
        all.insert(place, Arc::downgrade(&state));
        Ok(state)
    }

    /// Waits for the turn to change what is kept.
    pub fn turn(&self) -> MutexGuard<'_, Option<Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is kept, after what has ended was removed when it is time to, or `needed`.
    pub fn counts<'a>(
        &self,
        turn: &'a mut Option<Counts>,
        now: i64,
        needed: impl Fn(&Counts) -> bool,
    ) -> Result<&'a mut Counts, Problem> {
        let due = turn.as_ref().is_none_or(|counts| {
            let age = now - counts.swept;
            !(0..SWEEP).contains(&age) || (age >= SWEEP_IN_NEED && needed(counts))
        });
        if due {
            *turn = Some(Counts { accounts: self.store.accounts()?, orders: self.store.sweep(now)?, swept: now });
        }
        turn.as_mut().ok_or_else(|| Problem::internal("nothing was counted"))
    }

    /// Marks a challenge as being validated, until the guard is dropped; `None` when it is already, or too many are.
    pub fn begin(self: &Arc<Self>, order: &str, n: usize, method: Method) -> Option<Validating> {
        let mut validating = self.validating.lock().unwrap_or_else(PoisonError::into_inner);
        let what = (order.to_owned(), n, method);
        if validating.len() >= MAX_WAITING || !validating.insert(what.clone()) {
            return None;
        }
        Some(Validating { state: Arc::clone(self), what })
    }

    pub fn is_full(&self) -> bool {
        self.validating.lock().unwrap_or_else(PoisonError::into_inner).len() >= MAX_WAITING
    }
}

/// A validation that is under way or waits.
pub struct Validating {
    state: Arc<State>,
    what: (String, usize, Method),
}

impl Drop for Validating {
    fn drop(&mut self) {
        self.state.validating.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.what);
    }
}

/// A request whose signature was verified.
pub struct Signed {
    pub key: Key,
    /// As it came, when the request was signed by a key that it names itself.
    pub jwk: Option<Jwk>,
    /// When it was signed by an account.
    pub account: Option<Account>,
    pub payload: Vec<u8>,
}

impl Signed {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.payload)
            .map_err(|_| Problem::malformed("the payload is not the JSON that belongs here"))
    }

    /// POST-as-GET (RFC 8555 section 6.3).
    pub fn is_get(&self) -> bool {
        self.payload.is_empty()
    }

    pub fn get_only(&self) -> Result<(), Problem> {
        if self.is_get() { Ok(()) } else { Err(Problem::malformed("the payload must be empty here (POST-as-GET)")) }
    }
}

impl Ca {
    /// Answers a request.
    pub fn answer(self: &Arc<Self>, asked: &Asked) -> Reply {
        let mut reply = self.route(asked).unwrap_or_else(Reply::from);
        reply.link(format!("{}/directory", asked.base), "index");
        reply
    }

    fn route(self: &Arc<Self>, asked: &Asked) -> Result<Reply, Problem> {
        let segments: Vec<&str> = asked.path.split('/').collect();
        let reading = asked.method != http::Method::POST;
        match (reading, segments.as_slice()) {
            (true, ["directory"]) => Ok(Reply::json(200, self.directory(&asked.base))),
            (true, ["new-nonce"]) if asked.method == http::Method::HEAD => Ok(Reply::empty(200)),
            (true, ["new-nonce"]) => Ok(Reply::empty(204)),
            (true, ["renewal-info", id]) => self.renewal_info(id, asked.seconds()),
            (false, ["new-account"]) => self.new_account(asked),
            (false, ["account", id]) => self.account(asked, id),
            (false, ["account", id, "orders"]) => self.orders(asked, id),
            (false, ["key-change"]) => self.key_change(asked),
            (false, ["new-order"]) => self.new_order(asked),
            (false, ["order", id]) => self.order(asked, id),
            (false, ["order", id, "finalize"]) => self.finalize(asked, id),
            (false, ["authz", order, n]) => self.authorization(asked, order, n),
            (false, ["challenge", order, n, method]) => self.challenge(asked, order, n, method),
            (false, ["certificate", serial]) => self.certificate(asked, serial),
            (false, ["revoke-cert"]) => self.revoke(asked),
            (
                _,
                ["directory" | "new-nonce" | "new-account" | "key-change" | "new-order" | "revoke-cert"]
                | ["renewal-info" | "account" | "order" | "certificate", _]
                | ["account", _, "orders"]
                | ["order", _, "finalize"]
                | ["authz", _, _]
                | ["challenge", _, _, _],
            ) => {
                let allow = if reading { "POST" } else { "GET, HEAD" };
                Ok(Reply::from(Problem::malformed("the method is not allowed here").status(405)).allow(allow))
            }
            _ => Err(Problem::malformed("there is nothing at this path").status(404)),
        }
    }

    fn directory(&self, base: &str) -> Value {
        json!({
            "newNonce": format!("{base}/new-nonce"),
            "newAccount": format!("{base}/new-account"),
            "newOrder": format!("{base}/new-order"),
            "revokeCert": format!("{base}/revoke-cert"),
            "keyChange": format!("{base}/key-change"),
            "renewalInfo": format!("{base}/renewal-info"),
            "meta": {"externalAccountRequired": !self.settings.external.is_empty()},
        })
    }

    /// A request signed by a key that it carries.
    pub fn by_key(&self, asked: &Asked) -> Result<Signed, Problem> {
        let signed = self.signed(asked)?;
        if signed.account.is_some() {
            return Err(Problem::malformed("this request is signed with `jwk`, not `kid`"));
        }
        Ok(signed)
    }

    /// A request of an account that may act.
    pub fn by_account(&self, asked: &Asked) -> Result<(Account, Signed), Problem> {
        let mut signed = self.signed(asked)?;
        let account = signed.account.take();
        let account = account.ok_or_else(|| Problem::malformed("this request is signed with `kid`, not `jwk`"))?;
        Ok((account, signed))
    }

    /// A request of the account whose URL it goes to.
    pub fn by_own_account(&self, asked: &Asked, id: &str) -> Result<(Account, Signed), Problem> {
        let (account, signed) = self.by_account(asked)?;
        if account.id == id { Ok((account, signed)) } else { Err(Problem::not_found("account").status(403)) }
    }

    /// Checks a request: its form, its URL, its key, its signature, its nonce, in this order.
    pub fn signed(&self, asked: &Asked) -> Result<Signed, Problem> {
        if !asked.is_jose {
            return Err(Problem::malformed("the content type must be application/jose+json").status(415));
        }
        let jws = Jws::read(&asked.body)?;
        if jws.url != asked.url {
            return Err(Problem::new(Kind::Unauthorized, "the request was signed for another URL"));
        }
        let (key, jwk, account) = match jws.signer {
            Signer::Key(jwk) => (Key::try_from(&jwk)?, Some(jwk), None),
            Signer::Id(url) => {
                let account = self.account_at(&asked.base, &url)?;
                (Key::try_from(&account.key)?, None, Some(account))
            }
        };
        key.verify(&jws.algorithm, &jws.message, &jws.signature)?;
        if !jws.nonce.is_some_and(|nonce| self.state.nonces.take(&nonce)) {
            return Err(Problem::new(Kind::BadNonce, "the nonce is not one of ours, or was used before"));
        }
        if let Some(account) = &account {
            self.may_act(account)?;
        }
        Ok(Signed { key, jwk, account, payload: jws.payload })
    }

    fn account_at(&self, base: &str, url: &str) -> Result<Account, Problem> {
        let unknown = || Problem::new(Kind::AccountDoesNotExist, "there is no account at the URL in `kid`");
        let id = url.strip_prefix(base).and_then(|rest| rest.strip_prefix("/account/")).ok_or_else(unknown)?;
        match self.state.store.account(id) {
            Ok(found) => found.ok_or_else(unknown),
            Err(problem) if problem.status == 404 => Err(unknown()),
            Err(problem) => Err(problem),
        }
    }

    fn may_act(&self, account: &Account) -> Result<(), Problem> {
        if account.deactivated {
            return Err(Problem::new(Kind::Unauthorized, "the account is deactivated"));
        }
        let external = &self.settings.external;
        if !external.is_empty() && !account.external.as_ref().is_some_and(|id| external.has(id)) {
            return Err(Problem::new(Kind::Unauthorized, "the account is not bound to an external one known here"));
        }
        Ok(())
    }
}
