//! Which of the upstreams at hand may be chosen for an attempt.

use std::time::Instant;

use super::again::Past;
use super::attempt::Plan;
use super::engine::Engine;
use super::ewma;
use super::policy::{Candidates, Choice, Policy};
use super::tried::Outlook;
use super::upstream::Upstream;
use crate::http::exchange::Exchange;

/// Who comes into question, the better first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Tier {
    /// Has not failed this request, where that counts.
    Fresh,
    /// Has failed it, and may answer another time.
    Again,
    /// In cooldown too.
    Any,
}

impl Engine {
    /// `None` when no upstream is available. One in cooldown is the last resort, and none where an answer is at hand.
    pub(super) fn choose(
        &self,
        upstreams: &[Upstream],
        ex: &Exchange,
        plan: &Plan,
        past: &Past,
        now: Instant,
    ) -> Option<Choice> {
        let mut candidates = Available { engine: self, upstreams, plan, past, tier: Tier::Fresh, now };
        let fresh = candidates.select(ex);
        if fresh.is_some() || (past.tried.is_empty() && self.cooldown.is_none()) {
            return fresh;
        }
        candidates.tier = Tier::Again;
        candidates.select(ex).or_else(|| if past.has_answer() { None } else { candidates.free_soonest() })
    }

    /// Whether another attempt could go anywhere without asking one in cooldown.
    pub(super) fn has_another(&self, upstreams: &[Upstream], plan: &Plan, past: &Past, now: Instant) -> bool {
        let candidates = Available { engine: self, upstreams, plan, past, tier: Tier::Again, now };
        (0..upstreams.len()).any(|index| candidates.available(index))
    }
}

struct Available<'e> {
    engine: &'e Engine,
    upstreams: &'e [Upstream],
    plan: &'e Plan,
    past: &'e Past,
    tier: Tier,
    now: Instant,
}

impl Available<'_> {
    fn select(&self, ex: &Exchange) -> Option<Choice> {
        if self.upstreams.len() == 1 && !matches!(self.engine.policy, Policy::Cookie(_)) {
            return self.available(0).then(Choice::default);
        }
        RNG.with_borrow_mut(|rng| self.engine.policy.select(self, ex, rng))
    }

    fn free_soonest(&self) -> Option<Choice> {
        let any = Available { tier: Tier::Any, ..*self };
        let left = |index: usize| self.upstreams.get(index).and_then(|u| u.state.cooling.left(self.now));
        let soonest = (0..any.count()).filter(|index| any.available(*index)).min_by_key(|index| left(*index));
        soonest.map(|index| Choice { index, set_cookie: None })
    }
}

impl Candidates for Available<'_> {
    fn count(&self) -> usize {
        self.upstreams.len()
    }

    fn available(&self, index: usize) -> bool {
        let Some(upstream) = self.upstreams.get(index) else { return false };
        let again = match self.past.tried.outlook(&upstream.state) {
            None => true,
            Some(Outlook::Hopeless) => false,
            Some(Outlook::MayRecover) => self.tier != Tier::Fresh || !self.engine.retry.exclude_failed,
        };
        let cooled =
            self.tier == Tier::Any || self.engine.cooldown.is_none() || upstream.state.cooling.left(self.now).is_none();
        let max_fails = self.engine.passive.as_ref().map(|p| p.max_fails);
        again && cooled && upstream.takes(self.plan.model.as_deref()) && upstream.available(self.now, max_fails)
    }

    fn requests(&self, index: usize) -> usize {
        self.upstreams.get(index).map_or(0, |u| u.state.requests())
    }

    fn name(&self, index: usize) -> &str {
        self.upstreams.get(index).map_or("", |u| &u.identity)
    }

    fn weight(&self, index: usize) -> u32 {
        self.upstreams.get(index).map_or(1, |u| u.own.weight.max(1))
    }

    fn cost(&self, index: usize) -> f32 {
        let Some(upstream) = self.upstreams.get(index) else { return f32::MAX };
        ewma::cost(upstream.state.ewma.average(self.now), upstream.state.requests(), self.weight(index))
    }

    fn prompt(&self) -> Option<u64> {
        self.past.prompt
    }
}

thread_local! {
    /// Chance for balancing: one generator per worker.
    static RNG: std::cell::RefCell<fastrand::Rng> = std::cell::RefCell::new(fastrand::Rng::new());
}
