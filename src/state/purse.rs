//! What one budget has been spent, for all workers: the interface of the store, and its engine in memory.
//!
//! The sums outlive a reload for as long as a configuration holds the purse; what a new process begins with is loaded
//! once, before the first call is admitted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use smallvec::SmallVec;

use super::Answer;
use super::period::Period;
use super::spend::{Amount, Book, Hold, Limit, Moved, Refused, Standing};

/// Sums that are kept elsewhere, for the purse to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub key: String,
    pub period: Period,
    /// When the period began, Unix seconds.
    pub start: i64,
    pub spent: Amount,
}

/// The sums of one budget. Operations are atomic for their key; limits come with each, so that a reload changes them at
/// once. See [`super::spend`] for the rules.
pub trait Purse: Send + Sync {
    /// Begins with these sums, the first time only; whoever comes meanwhile waits. An engine that keeps its sums
    /// elsewhere does not ask for them.
    fn open(&self, sums: &mut dyn FnMut() -> Vec<Sum>);

    /// Sets `most` aside for a call that costs at least `least`, at `now` (Unix seconds).
    fn reserve(
        &self,
        limits: &[Limit],
        key: &str,
        now: i64,
        least: Amount,
        most: Amount,
    ) -> Answer<Result<Hold, Refused>>;

    /// What a call under way has cost so far; false when a limit is spent by it and the others. Answers at once, by
    /// what this process knows.
    fn running(&self, limits: &[Limit], hold: &mut Hold, used: Amount) -> bool;

    /// A call under this hold has cost `spent` and another goes on under it.
    fn charge(&self, limits: &[Limit], hold: &Hold, spent: Amount) -> Answer<SmallVec<[Moved; 2]>>;

    /// The call has cost `spent`; what was set aside is given back.
    fn settle(&self, limits: &[Limit], hold: &Hold, spent: Amount) -> Answer<SmallVec<[Moved; 2]>>;

    /// The call was not made; what was set aside is given back.
    fn release(&self, hold: &Hold) -> Answer<()>;

    /// What a key has of each limit.
    fn standing(&self, limits: &[Limit], key: &str, now: i64) -> Answer<SmallVec<[Standing; 2]>>;
}

/// Budgets by name, in memory.
#[derive(Debug, Default)]
pub struct Purses(Mutex<HashMap<Box<str>, Weak<MemoryPurse>>>);

impl Purses {
    /// The purse of this name, as it is or empty.
    pub fn adopt(&self, name: &str) -> Arc<MemoryPurse> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(purse) = known.get(name).and_then(Weak::upgrade) {
            return purse;
        }
        known.retain(|_, purse| purse.strong_count() > 0);
        let purse = Arc::new(MemoryPurse::default());
        known.insert(name.into(), Arc::downgrade(&purse));
        purse
    }
}

/// Parts that are locked one by one.
const PARTS: usize = 16;

#[derive(Debug)]
pub struct MemoryPurse {
    parts: [Mutex<Book>; PARTS],
    hasher: RandomState,
    opened: Once,
}

impl Default for MemoryPurse {
    fn default() -> Self {
        let parts = std::array::from_fn(|_| Mutex::default());
        Self { parts, hasher: RandomState::new(), opened: Once::new() }
    }
}

impl MemoryPurse {
    fn book(&self, part: usize) -> MutexGuard<'_, Book> {
        self.parts[part % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[allow(clippy::cast_possible_truncation)] // any part of a hash is one
    fn part(&self, key: &str) -> usize {
        self.hasher.hash_one(key) as usize % PARTS
    }
}

impl Purse for MemoryPurse {
    fn open(&self, sums: &mut dyn FnMut() -> Vec<Sum>) {
        self.opened.call_once(|| {
            for sum in sums() {
                let part = self.part(&sum.key);
                self.book(part).load(&sum.key, sum.period, sum.start, sum.spent);
            }
        });
    }

    fn reserve(
        &self,
        limits: &[Limit],
        key: &str,
        now: i64,
        least: Amount,
        most: Amount,
    ) -> Answer<Result<Hold, Refused>> {
        let part = self.part(key);
        Answer::Now(self.book(part).reserve(limits, key, now, least, most).map(|hold| hold.of_part(part)))
    }

    fn running(&self, limits: &[Limit], hold: &mut Hold, used: Amount) -> bool {
        self.book(hold.part()).running(limits, hold, used)
    }

    fn charge(&self, limits: &[Limit], hold: &Hold, spent: Amount) -> Answer<SmallVec<[Moved; 2]>> {
        Answer::Now(self.book(hold.part()).charge(limits, hold, spent))
    }

    fn settle(&self, limits: &[Limit], hold: &Hold, spent: Amount) -> Answer<SmallVec<[Moved; 2]>> {
        Answer::Now(self.book(hold.part()).settle(limits, hold, spent))
    }

    fn release(&self, hold: &Hold) -> Answer<()> {
        self.book(hold.part()).release(hold);
        Answer::Now(())
    }

    fn standing(&self, limits: &[Limit], key: &str, now: i64) -> Answer<SmallVec<[Standing; 2]>> {
        Answer::Now(self.book(self.part(key)).standing(limits, key, now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::spend::Unit;
    use super::*;

    fn now<T>(answer: Answer<T>) -> T {
        match answer {
            Answer::Now(value) => value,
            Answer::Later(_) => panic!("memory answers at once"),
        }
    }

    fn money(nano: u64) -> Amount {
        Amount { nano, tokens: 0 }
    }

    const LIMITS: [Limit; 1] = [Limit { unit: Unit::Money, most: 1000, period: Period::Day }];

    #[test]
    fn a_purse_is_found_by_its_name_while_it_is_held() {
        let purses = Purses::default();
        let first = purses.adopt("a");
        let hold = now(first.reserve(&LIMITS, "k", 0, money(1), money(1))).unwrap();
        now(first.settle(&LIMITS, &hold, money(7)));
        let spent = |name| now(purses.adopt(name).standing(&LIMITS, "k", 0))[0].spent;
        assert_eq!((spent("a"), spent("b")), (7, 0));
        drop(first);
        assert_eq!(spent("a"), 0);
    }

    #[test]
    fn it_begins_once_with_what_was_spent_before() {
        let purse = MemoryPurse::default();
        let mut asked = 0;
        for _ in 0..2 {
            purse.open(&mut || {
                asked += 1;
                vec![Sum { key: "k".to_owned(), period: Period::Day, start: 0, spent: money(999) }]
            });
        }
        assert_eq!((asked, now(purse.standing(&LIMITS, "k", 5))[0].spent), (1, 999));
        assert!(now(purse.reserve(&LIMITS, "k", 5, money(2), money(2))).is_err());
    }

    /// Threads that spend as fast as they can: together never more than the limit and one call's worth.
    #[test]
    fn threads_at_once_never_spend_more_than_the_limit_and_one_call() {
        for seed in 0..20 {
            let purse = MemoryPurse::default();
            let spent: u64 = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|n| {
                        let purse = &purse;
                        scope.spawn(move || {
                            let mut rng = fastrand::Rng::with_seed(seed * 8 + n);
                            let mut sum = 0;
                            for _ in 0..500 {
                                let most = rng.u64(1..=50);
                                let Ok(hold) = now(purse.reserve(&LIMITS, "k", 0, money(0), money(most))) else {
                                    continue;
                                };
                                let cost = rng.u64(0..=most);
                                now(purse.settle(&LIMITS, &hold, money(cost)));
                                sum += cost;
                            }
                            sum
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert!((1000..=1050).contains(&spent), "seed {seed}: {spent}");
            assert_eq!(now(purse.standing(&LIMITS, "k", 0))[0].spent, spent);
        }
    }
}
