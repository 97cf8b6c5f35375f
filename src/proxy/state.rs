//! What is known about upstreams while the program runs: requests under way, recent failures, turn of round robin.
//! Kept by identity in one table, so that a reload adopts it; an entry lives as long as a configuration holds it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::breaker::{Circuit, Standing};
use super::cooldown::Cooling;
use super::counters::Counters;
use super::ewma::PeakEwma;
use super::health::ActiveHealth;

/// More failures than this at once say nothing new; the oldest is forgotten.
const MAX_FAILS: usize = 1024;

/// One upstream, over all workers and handlers.
#[derive(Debug, Default)]
pub struct HostState {
    requests: AtomicUsize,
    /// How many entries `fails` holds: asked on every request, without the lock.
    fail_count: AtomicUsize,
    /// When each recent failure stops counting.
    fails: Mutex<VecDeque<Instant>>,
    /// Until when it asked to be left alone.
    pub cooling: Cooling,
    /// How soon it answers.
    pub ewma: PeakEwma,
    /// What has happened so far, for people.
    pub counters: Counters,
    /// The checks and breakers of the handlers that use it, to tell of them.
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    checks: Vec<Weak<ActiveHealth>>,
    circuits: Vec<Weak<Circuit>>,
}

impl HostState {
    /// The state of the upstream with this identity (`scheme://address`).
    #[must_use]
    pub fn adopt(identity: &str) -> Arc<Self> {
        HOSTS.adopt(identity)
    }

    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Failures that still count at `now`.
    pub fn fails(&self, now: Instant) -> usize {
        if self.fail_count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let mut fails = self.fails.lock().unwrap_or_else(PoisonError::into_inner);
        fails.retain(|until| *until > now);
        self.fail_count.store(fails.len(), Ordering::Relaxed);
        fails.len()
    }

    /// Notes a failure that counts for `duration`.
    pub fn fail(&self, now: Instant, duration: Duration) {
        let mut fails = self.fails.lock().unwrap_or_else(PoisonError::into_inner);
        fails.retain(|until| *until > now);
        if fails.len() >= MAX_FAILS {
            fails.pop_front();
        }
        fails.push_back(now + duration);
        self.fail_count.store(fails.len(), Ordering::Relaxed);
    }

    /// Has a handler's check told of, for as long as the handler lives.
    pub fn tell_of_check(&self, check: &Arc<ActiveHealth>) {
        note(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner).checks, check);
    }

    /// Has a handler's circuit breaker told of, likewise.
    pub fn tell_of_circuit(&self, circuit: &Arc<Circuit>) {
        note(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner).circuits, circuit);
    }

    /// Whether all active checks of it pass.
    #[must_use]
    pub fn passes_checks(&self) -> bool {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.checks.iter().filter_map(Weak::upgrade).all(|check| check.is_healthy())
    }

    /// The circuit breaker that stands worst; `None` where there is none.
    #[must_use]
    pub fn circuit(&self, now: Instant) -> Option<Standing> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.circuits.iter().filter_map(Weak::upgrade).map(|circuit| circuit.standing(now)).max()
    }

    /// Counts a request until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request under way.
#[derive(Debug)]
pub struct InFlight(Arc<HostState>);

impl InFlight {
    /// What it counts for.
    #[must_use]
    pub fn host(&self) -> &Arc<HostState> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whose turn it is among a list of upstreams.
#[derive(Debug, Default)]
pub struct Turn(AtomicU32);

impl Turn {
    /// The turn of the list with this identity.
    #[must_use]
    pub fn adopt(identity: &str) -> Arc<Self> {
        TURNS.adopt(identity)
    }

    /// The next number; the first is 1, so that a list of two begins with its second (Caddy, behaviour 64).
    pub fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

/// Once, however many reloads adopt it.
fn note<T>(list: &mut Vec<Weak<T>>, new: &Arc<T>) {
    list.retain(|weak| weak.strong_count() > 0 && weak.as_ptr() != Arc::as_ptr(new));
    list.push(Arc::downgrade(new));
}

/// Every upstream somebody holds, with its identity.
#[must_use]
pub fn hosts() -> Vec<(Box<str>, Arc<HostState>)> {
    HOSTS.held()
}

static HOSTS: Table<HostState> = Table::new();
static TURNS: Table<Turn> = Table::new();

/// States of one kind by identity, for as long as somebody holds them.
pub(super) struct Table<T>(LazyLock<Mutex<HashMap<Box<str>, Weak<T>>>>);

impl<T: Default> Table<T> {
    pub(super) const fn new() -> Self {
        Self(LazyLock::new(Mutex::default))
    }

    pub(super) fn adopt(&self, identity: &str) -> Arc<T> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = table.get(identity).and_then(Weak::upgrade) {
            return found;
        }
        table.retain(|_, weak| weak.strong_count() > 0);
        let made = Arc::new(T::default());
        table.insert(identity.into(), Arc::downgrade(&made));
        made
    }

    fn held(&self) -> Vec<(Box<str>, Arc<T>)> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.iter().filter_map(|(identity, weak)| Some((identity.clone(), weak.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_adopted_while_somebody_holds_it() {
        let first = HostState::adopt("http://state.test:1");
        let guard = first.begin();
        let second = HostState::adopt("http://state.test:1");
        assert_eq!(second.requests(), 1);
        drop(guard);
        assert_eq!(first.requests(), 0);
        second.fail(Instant::now(), Duration::from_secs(9));
        drop((first, second));
        assert_eq!(HostState::adopt("http://state.test:1").fails(Instant::now()), 0);
    }

    #[test]
    fn a_failure_counts_for_its_time() {
        let host = HostState::default();
        let now = Instant::now();
        host.fail(now, Duration::from_secs(10));
        host.fail(now + Duration::from_secs(5), Duration::from_secs(10));
        assert_eq!(host.fails(now + Duration::from_secs(9)), 2);
        assert_eq!(host.fails(now + Duration::from_secs(10)), 1);
        assert_eq!(host.fails(now + Duration::from_secs(15)), 0);
    }

    #[test]
    fn failures_are_bounded() {
        let host = HostState::default();
        let now = Instant::now();
        for _ in 0..MAX_FAILS + 5 {
            host.fail(now, Duration::from_secs(10));
        }
        assert_eq!(host.fails(now), MAX_FAILS);
    }

    #[test]
    fn reloads_do_not_add_up() {
        let (host, kept) = (HostState::default(), Arc::new(ActiveHealth::default()));
        for _ in 0..100 {
            host.tell_of_check(&kept);
            host.tell_of_check(&Arc::new(ActiveHealth::default()));
        }
        assert_eq!(host.watched.lock().unwrap().checks.len(), 2);
    }
}
