//! What one condition of an alert has seen, by its identity, so that a reload neither forgets what is usual nor tells
//! twice.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use ipnet::IpNet;

use super::baseline::{Above, Bar, Watch};
use super::networks::Networks;

/// Keys that are held off one by one; others wait for one another.
const MOST_KEYS: usize = 10_000;
const OTHERS: &str = "(others)";

/// The memory of one condition.
#[derive(Debug, Default)]
pub struct Alarm {
    watch: Mutex<Option<Watch>>,
    networks: Mutex<Networks>,
    /// When it was last told of each key.
    told: Mutex<HashMap<Box<str>, u64>>,
}

impl Alarm {
    /// The memory of the condition with this identity, for as long as a configuration has it.
    #[must_use]
    pub fn adopt(identity: &str) -> Arc<Self> {
        static ALARMS: LazyLock<Mutex<HashMap<Box<str>, Weak<Alarm>>>> = LazyLock::new(Mutex::default);
        let mut alarms = locked(&ALARMS);
        if let Some(alarm) = alarms.get(identity).and_then(Weak::upgrade) {
            return alarm;
        }
        alarms.retain(|_, alarm| alarm.strong_count() > 0);
        let alarm = Arc::new(Self::default());
        alarms.insert(identity.into(), Arc::downgrade(&alarm));
        alarm
    }

    /// Counts something; see [`Watch::note`]. Window and bar are part of the identity.
    pub fn count(&self, window: u64, bar: Bar, key: &str, amount: f64, now: u64) -> Option<Above> {
        locked(&self.watch).get_or_insert_with(|| Watch::new(window, bar)).note(key, amount, now)
    }

    /// The network of an address that is new for this user.
    pub fn new_network(&self, user: &str, ip: IpAddr) -> Option<IpNet> {
        locked(&self.networks).note(user, ip)
    }

    /// Whether it may be told of this key at `now` (seconds of a clock that only goes forward): not again within
    /// `hold_off` seconds.
    pub fn may_tell(&self, key: &str, hold_off: u64, now: u64) -> bool {
        let mut told = locked(&self.told);
        if told.len() >= MOST_KEYS && !told.contains_key(key) {
            told.retain(|_, at| now.saturating_sub(*at) < hold_off);
        }
        let key = if told.len() < MOST_KEYS || told.contains_key(key) { key } else { OTHERS };
        if told.get(key).is_some_and(|at| now.saturating_sub(*at) < hold_off) {
            return false;
        }
        told.insert(key.into(), now);
        true
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_by_its_identity_and_tells_not_too_often() {
        let alarm = Alarm::adopt("test/a");
        assert!(alarm.may_tell("k", 60, 100));
        assert!(!Alarm::adopt("test/a").may_tell("k", 60, 159));
        assert!(alarm.may_tell("other", 60, 159));
        assert!(alarm.may_tell("k", 60, 160));
        assert!(Alarm::adopt("test/b").may_tell("k", 60, 160));
        drop(alarm);
        assert!(Alarm::adopt("test/a").may_tell("k", 60, 161), "nobody held it");
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let alarm = Alarm::default();
        let told = (0..MOST_KEYS * 2).filter(|n| alarm.may_tell(&n.to_string(), 60, 1)).count();
        assert_eq!(told, MOST_KEYS + 1);
        assert!(alarm.may_tell("late", 60, 61));
        assert_eq!(locked(&alarm.told).len(), 1);
    }
}
