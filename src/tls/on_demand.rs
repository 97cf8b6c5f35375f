//! Certificates on demand: had when the first client asks for the name, which waits meanwhile.
//!
//! ```text
//! handshake ─look─▶ held and good? ──────────────────────────────▶ served; renewed beside it when due
//!                └▶ Gate (one flight a name, bounds, refusals) ─▶ flight on the certificates' thread:
//!                   sources ─▶ permission ─▶ storage ─▶ issuers ─▶ ManagedStore ─▶ all that wait go on
//! ```
//!
//! A flight belongs to nobody: a client that leaves ends its own waiting, not that of others. Names of strangers cost a
//! bounded amount of memory and no access to the disk before permission was given.

mod endpoint;
mod external;
mod gate;
mod permission;

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureScheme};
use time::OffsetDateTime;
use tokio::sync::Semaphore;

pub use external::{External, Offer};
pub use gate::MAX_HELD;
pub use permission::Permission;

use super::automation::{Automation, Plan};
use super::certificate::Certificate;
use super::maintenance::{Source, States, note};
use super::managed::ManagedStore;
use super::subject;
use gate::{Entry, Gate, Landing, Now, Seat, Start, Terms, Why};
use permission::Answer;

/// Longest that a handshake waits (Caddy's limit for those that join).
const WAIT: Duration = Duration::from_mins(2);
/// Longest that a flight takes (Caddy's limit too).
const FLIGHT: Duration = Duration::from_mins(3);
/// Orders and other work at issuers at one moment; further flights wait for their turn.
const AT_ISSUERS: usize = 32;
/// How long a certificate from another program is served before that is asked for it anew, beside the handshake.
const FRESH: i64 = 600;
/// Told as the issuer of a certificate from another program.
const EXTERNAL: &str = "get_certificate";

/// Which names get a certificate on demand, in one configuration.
#[derive(Debug, Default)]
pub struct Demand {
    /// Subjects, lower case, none = every name; the first that is for a name counts. `None`: not on demand.
    pub policies: Vec<(Vec<String>, Option<Arc<DemandPolicy>>)>,
    /// Names that the configuration itself writes: nobody can make up more of them, so that they are always kept.
    pub written: BTreeSet<String>,
}

impl Demand {
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Arc<DemandPolicy>> {
        let is_for = |subjects: &[String]| subjects.is_empty() || subjects.iter().any(|s| subject::matches(s, name));
        self.policies.iter().find(|(subjects, _)| is_for(subjects))?.1.as_ref()
    }

    /// How certificates are to be had, of each policy.
    pub fn automations(&self) -> impl Iterator<Item = &Arc<Automation>> {
        self.policies.iter().filter_map(|(_, policy)| policy.as_ref().map(|policy| &policy.automation))
    }
}

/// How certificates on demand are to be had.
#[derive(Debug, PartialEq)]
pub struct DemandPolicy {
    pub automation: Arc<Automation>,
    /// `None`: every name that the policy is for may have one.
    pub permission: Option<Permission>,
    /// Other programs that may have the certificate, asked first.
    pub sources: Vec<External>,
    /// Whether the issuers may be asked when no source has it.
    pub issues: bool,
    /// Whether certificates are kept in the storage. Not when anybody can make up a name.
    pub keeps: bool,
    /// Issuers that sign public names alone: others are not even asked permission for.
    pub public_only: bool,
}

/// What a handshake knows.
#[derive(Debug)]
pub struct Hello<'a> {
    /// Lower case.
    pub name: &'a str,
    pub client: IpAddr,
    pub local: Option<IpAddr>,
    pub signature_schemes: &'a [SignatureScheme],
    pub cipher_suites: &'a [CipherSuite],
}

/// The place of this process where handshakes come to.
#[derive(Debug, Default)]
pub struct Desk {
    gate: Mutex<Gate>,
    ground: Mutex<Option<Ground>>,
}

/// What flights are made with.
#[derive(Debug, Clone)]
struct Ground {
    runtime: tokio::runtime::Handle,
    store: Arc<ManagedStore>,
    states: States,
    /// The configuration that runs.
    plan: Arc<Plan>,
}

/// A handshake that waits; dropping it gives its place back.
#[derive(Debug)]
pub struct Waiting {
    desk: &'static Desk,
    seat: Seat,
}

impl Waiting {
    /// Returns when it is decided whether there is a certificate, or too much time has gone. Cancel-safe.
    pub async fn over(mut self) {
        let landed = self.seat.landed.wait_for(|landed| *landed);
        let _ = tokio::time::timeout(WAIT, landed).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.gate().leave(&self.seat);
    }
}

impl Desk {
    /// The one of this process: what is held outlives reloads.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Desk> = OnceLock::new();
        SHARED.get_or_init(Self::default)
    }

    /// What the handshake has to wait for; `None` = nothing, there is a certificate or there will be none.
    pub fn look(&'static self, plan: &Arc<Plan>, hello: &Hello<'_>) -> Option<Waiting> {
        let name = hello.name;
        if plan.names.contains_key(name) {
            return None;
        }
        let policy = plan.on_demand.as_ref()?.policy(name)?;
        if !subject::is_host(name) || (policy.public_only && !subject::qualifies_for_public(name)) {
            return None;
        }
        let fits = policy.sources.is_empty() || {
            let held = self.ground().as_ref().and_then(|ground| ground.store.get(name));
            held.is_none_or(|key| fits(&key, hello.signature_schemes))
        };
        // A statement of its own: the gate must be free again before a flight is begun.
        let entry = self.gate().enter(name, hello.client, fits, now());
        match entry {
            Entry::Serve => None,
            Entry::Join(seat) => Some(Waiting { desk: self, seat }),
            Entry::Renew(start) => {
                self.fly(start, plan, policy, hello);
                None
            }
            Entry::Start(start, seat) => {
                let waiting = Waiting { desk: self, seat };
                self.fly(start, plan, policy, hello);
                Some(waiting)
            }
            Entry::Refuse(Why::Lately) => None,
            Entry::Refuse(Why::Full) => {
                tracing::debug!(name, "too many certificates are waited for");
                None
            }
        }
    }

    /// Where flights are made from now on.
    pub(super) fn open(&self, runtime: tokio::runtime::Handle, store: Arc<ManagedStore>, states: States) {
        *self.ground() = Some(Ground { runtime, store, states, plan: Arc::default() });
    }

    /// Takes over the configuration that now runs. The answer tells whether something is held, or known to fail, for a
    /// name: what is not is to be let go.
    pub(super) fn apply(&self, plan: &Arc<Plan>) -> impl Fn(&str) -> bool {
        let mut names = HashSet::new();
        if let Some(ground) = self.ground().as_mut() {
            let before = std::mem::replace(&mut ground.plan, Arc::clone(plan));
            let same = before.storage == plan.storage && before.authorities == plan.authorities;
            let policy = |plan: &Plan, name: &str| {
                let demand = plan.on_demand.as_ref().filter(|_| !plan.names.contains_key(name))?;
                demand.policy(name).cloned()
            };
            let mut gate = self.gate();
            gate.retain(|name| {
                let now = policy(plan, name);
                same && now.is_some() && now == policy(&before, name)
            });
            names = gate.names();
        }
        move |name| names.contains(name)
    }

    fn fly(&'static self, start: Start, plan: &Arc<Plan>, policy: &Arc<DemandPolicy>, hello: &Hello<'_>) {
        let mut flight = Flight { desk: self, name: Arc::clone(&start.name), plan: Arc::default(), landed: false };
        let Some(ground) = self.ground().clone() else { return };
        flight.plan = Arc::clone(&ground.plan);
        let offer = Offer {
            signature_schemes: hello.signature_schemes.iter().map(|s| u16::from(*s)).collect(),
            cipher_suites: hello.cipher_suites.iter().map(|s| u16::from(*s)).collect(),
            local_ip: hello.local.map(|ip| ip.to_canonical().to_string()).unwrap_or_default(),
        };
        let source = Source::new(plan, &policy.automation, &ground.store, &ground.states);
        let policy = Arc::clone(policy);
        let keeps = policy.keeps || plan.on_demand.as_ref().is_some_and(|d| d.written.contains(hello.name));
        ground.runtime.spawn(async move {
            let work = obtain(&start, &policy, keeps, &source, &offer);
            let landing = tokio::time::timeout(FLIGHT, work).await.unwrap_or_else(|_| {
                tracing::error!(name = &*start.name, "no certificate on demand: it takes too long");
                Landing::Failed(None)
            });
            flight.land(landing);
        });
    }

    /// `before`: the configuration that ran when the flight began.
    fn land(&self, name: &str, landing: Landing, before: &Arc<Plan>) {
        let Some(ground) = self.ground().clone() else { return };
        // A reload may have taken the name away meanwhile.
        let wanted = Arc::ptr_eq(&ground.plan, before)
            || ground.plan.on_demand.as_ref().is_some_and(|demand| demand.policy(name).is_some());
        let landing = if wanted { landing } else { Landing::Denied };
        let gone = self.gate().land(name, landing, now());
        let gone: Vec<_> = gone.into_iter().filter(|name| !ground.plan.names.contains_key(&**name)).collect();
        if !gone.is_empty() {
            ground.store.remove(&gone);
            let mut states = ground.states.lock().unwrap_or_else(PoisonError::into_inner);
            for name in &gone {
                states.remove(&**name);
            }
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ground(&self) -> MutexGuard<'_, Option<Ground>> {
        self.ground.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that a flight ends whatever becomes of its task.
struct Flight {
    desk: &'static Desk,
    name: Arc<str>,
    plan: Arc<Plan>,
    landed: bool,
}

impl Flight {
    fn land(mut self, landing: Landing) {
        self.landed = true;
        self.desk.land(&self.name, landing, &self.plan);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            self.desk.gate().lose(&self.name);
        }
    }
}

/// Who may be at the issuers.
static TURNS: Semaphore = Semaphore::const_new(AT_ISSUERS);

/// Has the certificate of a name from whoever may give it, and serves it from then on.
async fn obtain(start: &Start, policy: &DemandPolicy, keeps: bool, source: &Source, offer: &Offer) -> Landing {
    let name = &*start.name;
    let mut failed = false;
    for external in &policy.sources {
        match external.get(name, offer).await {
            Ok(Some(certificate)) => return take(name, certificate, source),
            Ok(None) => failed = false,
            Err(error) => {
                tracing::error!(name, source = ?external, error, "no certificate from the source of certificates");
                failed = true;
            }
        }
    }
    if failed {
        return Landing::Unknown;
    }
    if !policy.issues {
        return Landing::Denied;
    }
    match &policy.permission {
        None => {}
        Some(permission) => match permission.ask(name).await {
            Answer::Yes => {}
            Answer::No => {
                tracing::debug!(name, "no permission for a certificate on demand");
                return Landing::Denied;
            }
            Answer::Unknown(error) => {
                tracing::error!(name, error, "cannot get permission for a certificate on demand");
                return Landing::Unknown;
            }
        },
    }
    let _turn = TURNS.acquire().await;
    let had = if keeps { source.load_or_obtain(name, start.failures).await } else { source.issue_in_memory(name) };
    note(&source.states, name, |state| state.on_demand = true);
    if let Err(failure) = had {
        return Landing::Failed(failure.retry_after);
    }
    let Some(certificate) = source.store.certificate(name) else { return Landing::Failed(None) };
    let due = source.due(name).unwrap_or(certificate.validity.not_after);
    // Rounded up: in the rest of a second before it is due, every handshake would ask anew, for a certificate that stays.
    let due = (due + time::Duration::nanoseconds(999_999_999)).unix_timestamp();
    Landing::Held(Terms { due, expires: certificate.validity.not_after.unix_timestamp() })
}

fn take(name: &str, certificate: Certificate, source: &Source) -> Landing {
    tracing::debug!(name, "certificate from another program");
    let expires = certificate.validity.not_after.unix_timestamp();
    source.serve(name, EXTERNAL, certificate, None);
    note(&source.states, name, |state| state.on_demand = true);
    Landing::Held(Terms { due: now().unix + FRESH, expires })
}

fn fits(key: &CertifiedKey, schemes: &[SignatureScheme]) -> bool {
    key.key.choose_scheme(schemes).is_some()
}

fn now() -> Now {
    Now { instant: Instant::now(), unix: OffsetDateTime::now_utc().unix_timestamp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Option<Arc<DemandPolicy>> {
        let automation = Automation {
            issuers: Vec::new(),
            key_type: crate::tls::KeyType::default(),
            renewal_ratio: 0.3,
            reuse_private_keys: false,
            must_staple: false,
            stapling: None,
        };
        Some(Arc::new(DemandPolicy {
            automation: Arc::new(automation),
            permission: None,
            sources: Vec::new(),
            issues: true,
            keeps: true,
            public_only: false,
        }))
    }

    #[test]
    fn the_first_policy_that_is_for_a_name_says_whether_it_is_on_demand() {
        let demand = Demand {
            policies: vec![
                (vec!["a.test".into(), "*.b.test".into()], None),
                (vec!["*.test".into()], policy()),
                (Vec::new(), None),
            ],
            ..Demand::default()
        };
        for (name, on_demand) in
            [("a.test", false), ("x.b.test", false), ("b.test", true), ("x.test", true), ("x.y", false)]
        {
            assert_eq!(demand.policy(name).is_some(), on_demand, "{name}");
        }
    }
}
