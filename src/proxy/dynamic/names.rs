//! Answers of the DNS, kept by question for all handlers and over reloads, with one lookup at a time for each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};

use super::freshness::{Freshness, Step};
use super::{Asked, Question};
use crate::client::dns::{Dns, DnsError, in_order};

/// Questions that are remembered; more are a stranger's doing.
const MAX_NAMES: usize = 256;
/// Lookups under way, over all questions.
const MAX_LOOKUPS: usize = 64;
/// Longest time for one lookup, whatever the servers do.
const LONGEST: Duration = Duration::from_secs(15);

/// What a lookup brought: addresses to dial, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub dials: Box<[Box<str>]>,
}

/// One question and its answer over time.
pub(super) struct Entry {
    question: Question,
    known: Mutex<Freshness<Arc<Answer>>>,
    changed: Notify,
}

static NAMES: LazyLock<Mutex<HashMap<Box<str>, Arc<Entry>>>> = LazyLock::new(Mutex::default);
static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// The entry of a question, which a reload finds again.
pub(super) fn entry(question: &Question) -> Arc<Entry> {
    let key = question.key();
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(entry) = names.get(&*key) {
        return Arc::clone(entry);
    }
    if names.len() >= MAX_NAMES {
        let unused = names.iter().find(|(_, entry)| Arc::strong_count(entry) == 1).map(|(key, _)| key.clone());
        if let Some(old) = unused.or_else(|| names.keys().next().cloned()) {
            names.remove(&old);
        }
    }
    let entry = Arc::new(Entry { question: question.clone(), known: Mutex::default(), changed: Notify::new() });
    names.insert(key.into(), Arc::clone(&entry));
    entry
}

/// The answer, looked up if need be; `None` when there is none.
pub(super) async fn answer(entry: &Arc<Entry>, anew: bool) -> Option<Arc<Answer>> {
    loop {
        let mut changed = pin!(entry.changed.notified());
        // Counted as waiting from here on: a lookup that ends before the wait begins is not missed.
        changed.as_mut().enable();
        let step = entry.known().step(Instant::now(), anew);
        match step {
            Step::Use(answer) => return Some(answer),
            Step::UseAndAsk(answer) => {
                begin(entry);
                return Some(answer);
            }
            Step::Nothing => return None,
            Step::Ask => begin(entry),
            Step::Wait => {}
        }
        changed.await;
    }
}

/// The lookup is a task of its own: it goes on for the others when the request that began it goes away.
fn begin(entry: &Arc<Entry>) {
    let asking = Asking { entry: Arc::clone(entry), found: None };
    tokio::task::spawn_local(asking.run());
}

/// A lookup under way. Dropped at any point it has ended, so that nobody waits for it for ever.
struct Asking {
    entry: Arc<Entry>,
    found: Option<(Answer, Duration)>,
}

impl Asking {
    async fn run(mut self) {
        let question = &self.entry.question;
        let found = match LOOKUPS.try_acquire() {
            Err(_) => Err("too many lookups at once".to_owned()),
            Ok(_permit) => match tokio::time::timeout(LONGEST, look_up(question)).await {
                Err(_) => Err("it took too long".to_owned()),
                Ok(found) => found.map_err(|error| error.to_string()),
            },
        };
        match found {
            Ok(found) => self.found = Some(found),
            Err(error) => tracing::error!(error, "looking up upstreams"),
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let options = &self.entry.question.options;
        let now = Instant::now();
        {
            let mut known = self.entry.known();
            match self.found.take() {
                Some((answer, ttl)) => known.learn(now, Arc::new(answer), options.refresh, ttl),
                None => known.fail(now, options.grace),
            }
        }
        self.entry.changed.notify_waiters();
    }
}

impl Entry {
    fn known(&self) -> MutexGuard<'_, Freshness<Arc<Answer>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be dialled, and how long that holds.
async fn look_up(question: &Question) -> Result<(Answer, Duration), DnsError> {
    let Question { asked, options } = question;
    // Made for this lookup alone: its sockets belong to this worker, and the system's servers may have changed.
    let dns = Dns::for_upstreams(&options.servers, options.timeout)?;
    match asked {
        Asked::Addresses { name, port, families } => {
            let found = dns.hosts(name, families.v4, families.v6).await?;
            let dials = found.records.into_iter().map(|ip| SocketAddr::new(ip, *port).to_string().into());
            Ok((Answer { dials: dials.collect() }, found.ttl))
        }
        Asked::Services { name } => {
            let found = dns.services(name).await?;
            let services = in_order(found.records, &mut fastrand::Rng::new());
            let dials = services.into_iter().map(|service| format!("{}:{}", service.target, service.port).into());
            Ok((Answer { dials: dials.collect() }, found.ttl))
        }
    }
}
