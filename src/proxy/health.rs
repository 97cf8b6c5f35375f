//! Active health: whether an upstream passes its checks. The counting is pure; the checks themselves are made by
//! [`super::active_check`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::state::Table;

/// How many checks in a row change the verdict.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Passes in a row that make an unhealthy upstream healthy again; at least 1.
    pub passes: u32,
    /// Failures in a row that make a healthy upstream unhealthy; at least 1.
    pub fails: u32,
}

/// The verdict and what speaks against it. An upstream is healthy until it has failed.
#[derive(Debug, Default)]
struct Standing {
    unhealthy: bool,
    /// Checks in a row that contradict the verdict.
    against: u32,
}

impl Standing {
    /// Counts one check; `true` when it changed the verdict.
    fn note(&mut self, passed: bool, rules: Rules) -> bool {
        if passed != self.unhealthy {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let enough = if self.unhealthy { rules.passes } else { rules.fails };
        if self.against < enough {
            return false;
        }
        *self = Self { unhealthy: !self.unhealthy, against: 0 };
        true
    }
}

/// What the checks say about one upstream. Kept over reloads by what is asked of whom, so that a reload does not send
/// requests to an upstream that is known to be down.
#[derive(Debug, Default)]
pub struct ActiveHealth {
    standing: Mutex<Standing>,
    /// The verdict, asked on every request.
    unhealthy: AtomicBool,
}

impl ActiveHealth {
    #[must_use]
    pub fn adopt(identity: &str) -> Arc<Self> {
        STATES.adopt(identity)
    }

    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// Counts one check; `true` when the verdict changed.
    pub fn note(&self, passed: bool, rules: Rules) -> bool {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = standing.note(passed, rules);
        self.unhealthy.store(standing.unhealthy, Ordering::Relaxed);
        changed
    }
}

static STATES: Table<ActiveHealth> = Table::new();

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person would say from the whole history: the verdict turns when the last `n` checks all contradict it.
    fn by_definition(history: &[bool], rules: Rules) -> bool {
        let (mut healthy, mut since) = (true, 0);
        for end in 1..=history.len() {
            let n = if healthy { rules.fails } else { rules.passes } as usize;
            let last = &history[since..end];
            if last.len() >= n && last[last.len() - n..].iter().all(|passed| *passed != healthy) {
                healthy = !healthy;
                since = end;
            }
        }
        healthy
    }

    #[test]
    fn any_history_gives_the_verdict_of_the_definition() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let rules = Rules { passes: rng.u32(1..4), fails: rng.u32(1..4) };
            let (health, mut history) = (ActiveHealth::default(), Vec::new());
            for _ in 0..60 {
                let before = health.is_healthy();
                let passed = rng.bool();
                history.push(passed);
                let changed = health.note(passed, rules);
                assert_eq!(health.is_healthy(), by_definition(&history, rules), "seed {seed}: {history:?} {rules:?}");
                assert_eq!(changed, before != health.is_healthy(), "seed {seed}");
            }
        }
    }

    #[test]
    fn one_bad_check_among_good_ones_is_forgotten() {
        let health = ActiveHealth::default();
        let rules = Rules { passes: 1, fails: 2 };
        for passed in [false, true, false, true, false] {
            assert!(!health.note(passed, rules));
        }
        assert!(health.note(false, rules) && !health.is_healthy());
        assert!(health.note(true, rules) && health.is_healthy());
    }

    #[test]
    fn the_verdict_is_adopted_while_somebody_holds_it() {
        let first = ActiveHealth::adopt("GET /health.test");
        first.note(false, Rules { passes: 1, fails: 1 });
        assert!(!ActiveHealth::adopt("GET /health.test").is_healthy());
        drop(first);
        assert!(ActiveHealth::adopt("GET /health.test").is_healthy());
    }
}
