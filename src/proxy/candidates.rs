//! Which of the upstreams at hand may be chosen for an attempt.

use std::time::Instant;

use super::engine::Engine;
use super::policy::{Candidates, Choice, Policy};
use super::upstream::Upstream;
use crate::http::exchange::Exchange;

impl Engine {
    /// `None` when no upstream is available.
    pub(super) fn choose(
        &self,
        upstreams: &[Upstream],
        ex: &Exchange,
        model: Option<&str>,
        now: Instant,
    ) -> Option<Choice> {
        let candidates = Available { engine: self, upstreams, model, now };
        if upstreams.len() == 1 && !matches!(self.policy, Policy::Cookie(_)) {
            return candidates.available(0).then(Choice::default);
        }
        RNG.with_borrow_mut(|rng| self.policy.select(&candidates, ex, rng))
    }
}

struct Available<'e> {
    engine: &'e Engine,
    upstreams: &'e [Upstream],
    model: Option<&'e str>,
    now: Instant,
}

impl Candidates for Available<'_> {
    fn count(&self) -> usize {
        self.upstreams.len()
    }

    fn available(&self, index: usize) -> bool {
        let max_fails = self.engine.passive.as_ref().map(|p| p.max_fails);
        self.upstreams.get(index).is_some_and(|u| u.takes(self.model) && u.available(self.now, max_fails))
    }

    fn requests(&self, index: usize) -> usize {
        self.upstreams.get(index).map_or(0, |u| u.state.requests())
    }

    fn name(&self, index: usize) -> &str {
        self.upstreams.get(index).map_or("", |u| &u.identity)
    }
}

thread_local! {
    /// Chance for balancing: one generator per worker.
    static RNG: std::cell::RefCell<fastrand::Rng> = std::cell::RefCell::new(fastrand::Rng::new());
}
