//! Calls on their way to the writer. Whoever records never waits: a lock for as long as it takes to push a pointer, and
//! one wake-up of the writer per flush.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::row::{Charge, Row};

/// Calls that wait for the disk at most, those in the writer's hand among them; about 30 MB.
pub const MOST: usize = 32_768;
/// So many are written without waiting for the end of the flush interval.
pub const BATCH: usize = 2_000;
/// Sums of charges that are kept for calls that could not be.
const MOST_OWED: usize = 65_536;

/// A sum that `spend` keeps: budget, key, per, period.
pub type SpendKey = (Arc<str>, String, &'static str, i64);

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// For the writer: there is something to do.
    wake: Condvar,
    /// For who waits for a flush.
    flushed: Condvar,
}

#[derive(Default)]
#[allow(clippy::vec_box)] // what is pushed and grown under the lock is a pointer
struct State {
    rows: Vec<Box<Row>>,
    /// When the oldest of `rows` came.
    since: Option<Instant>,
    /// In the writer's hand, not written yet.
    in_hand: usize,
    owed: Owed,
    /// Flushes asked for, and done.
    asked: u64,
    done: u64,
    closed: bool,
    /// The writer has written all and is gone.
    ended: bool,
}

/// Charges of calls for which there was no room: budgets are told right though their calls are not kept.
#[derive(Default)]
pub struct Owed {
    pub calls: u64,
    pub sums: HashMap<SpendKey, (i128, i128)>,
}

impl Owed {
    fn add(&mut self, row: &Row) {
        self.calls += 1;
        for charge in &row.charges {
            let Charge { budget, key, per, period, cost, tokens } = charge;
            let key = (Arc::clone(budget), key.clone(), *per, *period);
            if self.sums.len() < MOST_OWED || self.sums.contains_key(&key) {
                let sum = self.sums.entry(key).or_default();
                sum.0 += i128::from(cost.0);
                sum.1 += i128::from(*tokens);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.calls == 0
    }
}

/// What the writer finds.
#[allow(clippy::vec_box)] // as it was pushed
pub struct Work {
    pub rows: Vec<Box<Row>>,
    pub owed: Owed,
    /// Flushes that are done when this is written.
    pub ticket: u64,
    /// Nothing comes after this.
    pub closed: bool,
}

impl Queue {
    /// Adds a call; false when there is no room for it, and only its charges are kept.
    pub fn push(&self, row: Box<Row>) -> bool {
        let mut state = self.lock();
        if state.closed || state.rows.len() + state.in_hand >= MOST {
            state.owed.add(&row);
            return false;
        }
        state.rows.push(row);
        let count = state.rows.len();
        if count == 1 {
            state.since = Some(Instant::now());
        }
        drop(state);
        if count == 1 || count == BATCH {
            self.wake.notify_one();
        }
        true
    }

    /// Waits until there is something to write: the interval is over since the first call came, many came, somebody
    /// asks for a flush, or it is the end. `None` after `idle` with nothing to do.
    pub fn next(&self, interval: Duration, idle: Duration) -> Option<Work> {
        let idle_until = Instant::now() + idle;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = state.since.map(|since| since + interval);
            let is_due = due.is_some_and(|due| due <= now) || state.rows.len() >= BATCH;
            if is_due || state.asked > state.done || state.closed || (!state.owed.is_empty() && state.rows.is_empty()) {
                let rows = std::mem::take(&mut state.rows);
                state.since = None;
                state.in_hand = rows.len();
                let owed = std::mem::take(&mut state.owed);
                return Some(Work { rows, owed, ticket: state.asked, closed: state.closed });
            }
            if idle_until <= now {
                return None;
            }
            let until = due.unwrap_or(idle_until).min(idle_until);
            state = wait(&self.wake, state, until - now);
        }
    }

    /// The work in hand is done, or given up.
    pub fn finish(&self, ticket: u64) {
        let mut state = self.lock();
        state.in_hand = 0;
        state.done = state.done.max(ticket);
        drop(state);
        self.flushed.notify_all();
    }

    /// Waits `pause` before another attempt, less when the end comes; false when it has come.
    pub fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.closed || until <= now {
                return !state.closed;
            }
            state = wait(&self.wake, state, until - now);
        }
    }

    /// Waits until everything that came before is written; false when that takes longer than `limit`.
    pub fn flush(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        state.asked += 1;
        let ticket = state.asked;
        self.wake.notify_one();
        loop {
            let now = Instant::now();
            if state.done >= ticket || state.ended || until <= now {
                return state.done >= ticket || state.ended;
            }
            state = wait(&self.flushed, state, until - now);
        }
    }

    /// Nobody writes any more: nobody is to wait.
    pub fn end(&self) {
        self.lock().ended = true;
        self.flushed.notify_all();
    }

    /// Takes no more calls, and waits until the writer has written all and is gone; false when that takes longer.
    pub fn close_and_wait(&self, limit: Duration) -> bool {
        self.close();
        let until = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.ended || until <= now {
                return state.ended;
            }
            state = wait(&self.flushed, state, until - now);
        }
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(condvar: &Condvar, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
    condvar.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::super::row::testing::{charge, row};
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn work_comes_when_it_is_due() {
        let queue = Queue::default();
        assert!(queue.next(LONG, Duration::ZERO).is_none());
        assert!(queue.push(Box::new(row("a", "m", None))));
        assert!(queue.next(LONG, Duration::from_millis(1)).is_none());
        let work = queue.next(Duration::ZERO, LONG).unwrap();
        assert_eq!((work.rows.len(), work.closed), (1, false));
        for _ in 0..BATCH {
            queue.push(Box::new(row("a", "m", None)));
        }
        assert_eq!(queue.next(LONG, LONG).unwrap().rows.len(), BATCH);
        queue.close();
        assert!(queue.next(LONG, LONG).unwrap().closed);
        // Whoever asks after the end is not kept waiting.
        queue.end();
        assert!(queue.flush(LONG));
        assert!(!queue.push(Box::new(row("a", "m", None))));
    }

    #[test]
    fn what_finds_no_room_still_charges_its_budgets() {
        let queue = Queue::default();
        for _ in 0..MOST {
            assert!(queue.push(Box::new(row("a", "m", None))));
        }
        // Also while they are in the writer's hand.
        let work = queue.next(Duration::ZERO, LONG).unwrap();
        for _ in 0..3 {
            let mut late = row("a", "m", Some(7));
            late.charges.push(charge("k", 7));
            assert!(!queue.push(Box::new(late)));
        }
        queue.finish(work.ticket);
        assert!(queue.push(Box::new(row("a", "m", None))));
        let work = queue.next(Duration::ZERO, LONG).unwrap();
        assert_eq!((work.rows.len(), work.owed.calls), (1, 3));
        assert_eq!(work.owed.sums.values().collect::<Vec<_>>(), [&(21, 330)]);
    }

    #[test]
    fn a_flush_waits_for_what_came_before() {
        let queue = Arc::new(Queue::default());
        queue.push(Box::new(row("a", "m", None)));
        assert!(!queue.flush(Duration::from_millis(1)));
        let writer = Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            let work = writer.next(LONG, LONG).unwrap();
            writer.finish(work.ticket);
            let work = writer.next(LONG, LONG).unwrap();
            writer.finish(work.ticket);
            work.rows.len()
        });
        // The flush that gave up is served first.
        while queue.lock().done < 1 {
            std::thread::yield_now();
        }
        assert!(queue.flush(LONG));
        assert_eq!(thread.join().unwrap(), 0);
    }
}
