//! Looks after certificates: has each name's from the storage or from an issuer, and renews it in time.
//!
//! Runs on a thread of its own, so that neither requests nor commands wait for a disk or a CA. What was obtained stays
//! over reloads; a name that a new configuration no longer has is let go.
//!
//! ```text
//! Plan ─prepare─▶ what is kept, or made at once ─▶ ManagedStore ─▶ handshakes
//!      └─apply──▶ one task a name: wait until due ─▶ lock ─▶ issuer ─▶ storage ─▶ ManagedStore
//! ```

mod life;
mod renewal;
mod source;
mod staple;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::acme::Board;
use super::automation::{Automation, Plan};
use super::cleaning;
use super::managed::ManagedStore;
use super::on_demand::Desk;
pub(super) use source::Source;

/// Longest that a reload waits for certificates that can be had at once.
const PREPARE_LIMIT: Duration = Duration::from_secs(10);

/// A handle to the thread that looks after certificates; the thread ends with it.
pub struct Maintenance {
    commands: mpsc::UnboundedSender<Command>,
    states: States,
}

enum Command {
    Prepare(Arc<Plan>, oneshot::Sender<()>),
    Apply(Arc<Plan>),
}

/// How the certificate of one name stands, for `llmproxy status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateState {
    pub name: String,
    /// The storage key of its issuer, such as `local`; empty when there is no certificate yet.
    pub issuer: String,
    /// RFC 3339; empty when there is no certificate yet.
    pub not_after: String,
    /// Why the latest attempt failed; empty when it did not.
    pub error: String,
    /// Had when a client asked for the name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
}

pub(super) type States = Arc<Mutex<HashMap<String, CertificateState>>>;

/// Changes what is told of a name.
pub(super) fn note(states: &States, name: &str, change: impl FnOnce(&mut CertificateState)) {
    let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
    let state = states
        .entry(name.to_owned())
        .or_insert_with(|| CertificateState { name: name.to_owned(), ..CertificateState::default() });
    change(state);
}

impl Maintenance {
    /// Starts the thread.
    pub fn start(store: Arc<ManagedStore>) -> std::io::Result<Self> {
        let (commands, mut received) = mpsc::unbounded_channel();
        let states = States::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let own_states = Arc::clone(&states);
        Desk::shared().open(runtime.handle().clone(), Arc::clone(&store), Arc::clone(&states));
        std::thread::Builder::new().name("certificates".into()).spawn(move || {
            runtime.block_on(async move {
                let mut keeper = Keeper {
                    store,
                    states: own_states,
                    tasks: HashMap::new(),
                    cleaning: None,
                    staples: JoinSet::new(),
                };
                while let Some(command) = received.recv().await {
                    match command {
                        Command::Prepare(plan, done) => {
                            let _ = tokio::time::timeout(PREPARE_LIMIT, keeper.prepare(&plan)).await;
                            let _ = done.send(());
                        }
                        Command::Apply(plan) => keeper.apply(&plan),
                    }
                }
            });
        })?;
        Ok(Self { commands, states })
    }

    /// Has what can be had at once: certificates that are kept, and those of the internal CA. To be awaited before a
    /// configuration goes live, so that its first handshake finds them. What is already served stays.
    pub async fn prepare(&self, plan: &Arc<Plan>) {
        let (done, prepared) = oneshot::channel();
        if self.commands.send(Command::Prepare(Arc::clone(plan), done)).is_ok() {
            let _ = prepared.await;
        }
    }

    /// Looks after exactly these names from now on.
    pub fn apply(&self, plan: &Arc<Plan>) {
        let _ = self.commands.send(Command::Apply(Arc::clone(plan)));
    }

    /// Every name with how it stands, sorted.
    #[must_use]
    pub fn states(&self) -> Vec<CertificateState> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<CertificateState> = states.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

struct Keeper {
    store: Arc<ManagedStore>,
    states: States,
    tasks: HashMap<String, Task>,
    cleaning: Option<JoinHandle<()>>,
    /// Those of loaded certificates.
    staples: JoinSet<()>,
}

struct Task {
    /// What it was started for: another policy or storage asks for another task.
    automation: Arc<Automation>,
    plan: Arc<Plan>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Keeper {
    fn source(&self, plan: &Arc<Plan>, automation: &Arc<Automation>) -> Source {
        Source::new(plan, automation, &self.store, &self.states)
    }

    async fn prepare(&self, plan: &Arc<Plan>) {
        if (!plan.names.is_empty() || plan.on_demand.is_some())
            && let Err(error) = plan.storage.check()
        {
            tracing::error!(
                folder = %plan.storage.root().display(), %error,
                "the certificate storage cannot be written, so what is obtained is in memory only and lost at a restart: let \
                 the user llmproxy runs as write the folder, or name another with the option `storage file_system FOLDER`"
            );
        }
        plan.stapled.iter().for_each(|certificate| staple::staple_kept(certificate, &plan.storage));
        for (name, automation) in &plan.names {
            if !self.is_looked_after(plan, name, automation) {
                self.source(plan, automation).prepare(name).await;
            }
        }
    }

    fn apply(&mut self, plan: &Arc<Plan>) {
        if let Some(before) = self.cleaning.replace(tokio::spawn(keep_clean(Arc::clone(plan)))) {
            before.abort();
        }
        self.tasks.retain(|name, _| plan.names.contains_key(name));
        for (name, automation) in &plan.names {
            if self.is_looked_after(plan, name, automation) {
                continue;
            }
            let source = self.source(plan, automation);
            let name_of_task = name.clone();
            let handle = tokio::spawn(async move {
                tokio::join!(life::of(&name_of_task, &source), staple::of_name(&name_of_task, &source));
            });
            let task = Task { automation: Arc::clone(automation), plan: Arc::clone(plan), handle };
            self.tasks.insert(name.clone(), task);
        }
        self.staples = plan
            .stapled
            .iter()
            .map(|certificate| staple::of_loaded(certificate.clone(), plan.storage.clone(), plan.ocsp_interval))
            .collect();
        let mut issuers: Vec<String> = plan
            .names
            .values()
            .chain(plan.on_demand.iter().flat_map(|demand| demand.automations()))
            .flat_map(|automation| &automation.issuers)
            .filter(|issuer| issuer.acme().is_some())
            .map(source::issuer_key)
            .collect();
        issuers.sort_unstable();
        issuers.dedup();
        Board::shared().look_into(plan.storage.clone(), issuers);
        let on_demand = Desk::shared().apply(plan);
        let is_wanted = |name: &str| plan.names.contains_key(name) || on_demand(name);
        self.store.keep_only(is_wanted);
        self.states.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_wanted(name));
    }

    fn is_looked_after(&self, plan: &Plan, name: &str, automation: &Automation) -> bool {
        self.tasks.get(name).is_some_and(|task| {
            *task.automation == *automation
                && task.plan.storage == plan.storage
                && task.plan.authorities == plan.authorities
                && task.plan.challenges == plan.challenges
                && task.plan.renew_interval == plan.renew_interval
                && task.plan.ocsp_interval == plan.ocsp_interval
                && !task.handle.is_finished()
        })
    }
}

/// Cleans the storage at its times. Never ends, unless there is nothing to do; dropping it stops.
async fn keep_clean(plan: Arc<Plan>) {
    let Some(interval) = plan.clean_interval else { return };
    loop {
        let own = Arc::clone(&plan);
        let done = tokio::task::spawn_blocking(move || {
            let in_use: HashSet<String> = own.names.keys().map(|name| crate::storage::key::safe(name)).collect();
            cleaning::clean(&own.storage, interval, |name| in_use.contains(name), OffsetDateTime::now_utc())
        });
        match done.await {
            Ok(Ok(Some(cleaned))) if cleaned != cleaning::Cleaned::default() => {
                tracing::info!(?cleaned, "cleaned the certificate storage");
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot clean the certificate storage"),
            _ => {}
        }
        tokio::time::sleep(interval).await;
    }
}
