//! What has happened so far, for metrics: plain counts by name, for as long as the process lives.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Counts of one budget.
#[derive(Debug, Default)]
pub struct BudgetTally {
    /// Calls that were refused since a limit is spent, or since calls under way hold what is left.
    pub refused: Count,
    /// Calls that were refused since nobody knows their price.
    pub without_price: Count,
    /// How often `soft` was reached, by any key.
    pub soft: Count,
    /// How often a limit was reached.
    pub spent: Count,
    /// Streams that were cut off.
    pub cut_off: Count,
}

/// Counts of one alert.
#[derive(Debug, Default)]
pub struct AlertTally {
    pub told: Count,
    /// What would have been told but for `hold_off`.
    pub held_off: Count,
}

#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

type Named<T> = LazyLock<Mutex<BTreeMap<Box<str>, Arc<T>>>>;

static BUDGETS: Named<BudgetTally> = LazyLock::new(Mutex::default);
static ALERTS: Named<AlertTally> = LazyLock::new(Mutex::default);

/// The counts of the budget of this name. Names come from configurations, so there are not many.
#[must_use]
pub fn budget(name: &str) -> Arc<BudgetTally> {
    Arc::clone(locked(&BUDGETS).entry(name.into()).or_default())
}

/// The counts of the alert of this name.
#[must_use]
pub fn alert(name: &str) -> Arc<AlertTally> {
    Arc::clone(locked(&ALERTS).entry(name.into()).or_default())
}

/// All budgets that ever were, by name.
#[must_use]
pub fn budgets() -> Vec<(Box<str>, Arc<BudgetTally>)> {
    locked(&BUDGETS).iter().map(|(name, tally)| (name.clone(), Arc::clone(tally))).collect()
}

/// All alerts that ever were, by name.
#[must_use]
pub fn alerts() -> Vec<(Box<str>, Arc<AlertTally>)> {
    locked(&ALERTS).iter().map(|(name, tally)| (name.clone(), Arc::clone(tally))).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_under_their_name() {
        budget("tally-test").refused.add();
        budget("tally-test").refused.add();
        alert("tally-test").told.add();
        assert_eq!(budget("tally-test").refused.get(), 2);
        assert!(budgets().iter().any(|(name, tally)| &**name == "tally-test" && tally.refused.get() == 2));
        assert!(alerts().iter().any(|(name, tally)| &**name == "tally-test" && tally.told.get() == 1));
    }
}
