//! How often CAs are asked for orders: at most ten per account in ten seconds, as Caddy does. A first start with many
//! names does not order all of them at one moment.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const ORDERS: usize = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// The starts of the latest orders, by account.
#[derive(Debug, Default)]
pub struct Throttle {
    accounts: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl Throttle {
    /// The one of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Throttle> = OnceLock::new();
        SHARED.get_or_init(Self::default)
    }

    /// Waits until this account may order. A turn that is given up while waiting is lost, which errs on the CA's side.
    pub async fn turn(&self, account: &str) {
        let at = self.reserve(account, Instant::now());
        tokio::time::sleep_until(at).await;
    }

    /// When the next order of the account may start; it counts from then.
    fn reserve(&self, account: &str, now: Instant) -> Instant {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let starts = accounts.entry(account.to_owned()).or_default();
        let at = match starts.front() {
            Some(oldest) if starts.len() >= ORDERS => now.max(*oldest + WINDOW),
            _ => now,
        };
        if starts.len() >= ORDERS {
            starts.pop_front();
        }
        starts.push_back(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_orders_start_at_once_and_the_next_ten_after_ten_seconds() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let waits: Vec<u64> = (0..25).map(|_| (throttle.reserve("a", now) - now).as_secs()).collect();
        let wanted = [[0; 10].as_slice(), &[10; 10], &[20; 5]].concat();
        assert_eq!(waits, wanted);
        assert_eq!(throttle.reserve("another", now), now);
        // What lies ten seconds back counts no more.
        let later = now + Duration::from_secs(31);
        assert_eq!(throttle.reserve("a", later), later);
    }
}
