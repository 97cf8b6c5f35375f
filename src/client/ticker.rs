//! Coarse deadlines: one timer per worker, ticking every 100 ms while any deadline is set. Moving a deadline is a store
//! into a cell, so a timeout between chunks costs next to nothing. A deadline fires up to one tick late, never early.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(100);

/// A point in time a task waits for. Nothing is allocated before the first [`Deadline::set`].
#[derive(Default)]
pub struct Deadline {
    entry: Option<Rc<Entry>>,
}

struct Entry {
    at: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    /// The bucket this entry waits in; moved lazily when that bucket comes up.
    bucket: Cell<Option<u64>>,
}

impl Deadline {
    pub fn is_set(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.at.get().is_some())
    }

    /// Sets it to `limit` after `since`; a limit beyond what a clock can tell is none.
    pub fn set_after(&mut self, since: Instant, limit: Duration) {
        match since.checked_add(limit) {
            Some(at) => self.set(at),
            None => self.clear(),
        }
    }

    pub fn set(&mut self, at: Instant) {
        let entry = self.entry.get_or_insert_with(|| {
            Rc::new(Entry { at: Cell::new(None), waker: RefCell::new(None), bucket: Cell::new(None) })
        });
        entry.at.set(Some(at));
        WHEEL.with(|wheel| wheel.place(entry, at));
    }

    pub fn clear(&mut self) {
        if let Some(entry) = &self.entry {
            entry.at.set(None);
        }
    }

    /// Ready once the time set has come; pending, and never woken, while none is set.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(entry) = &self.entry else { return Poll::Pending };
        let Some(at) = entry.at.get() else { return Poll::Pending };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let mut waker = entry.waker.borrow_mut();
        match &mut *waker {
            Some(old) => old.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

thread_local! {
    static WHEEL: Wheel = Wheel { start: Instant::now(), buckets: RefCell::default(), ticking: Cell::new(false) };
}

struct Wheel {
    start: Instant,
    buckets: RefCell<BTreeMap<u64, Vec<Weak<Entry>>>>,
    ticking: Cell<bool>,
}

impl Wheel {
    fn place(&self, entry: &Rc<Entry>, at: Instant) {
        let bucket = self.bucket_of(at);
        if entry.bucket.get().is_some_and(|waiting| waiting <= bucket) {
            return;
        }
        entry.bucket.set(Some(bucket));
        self.buckets.borrow_mut().entry(bucket).or_default().push(Rc::downgrade(entry));
        if !self.ticking.replace(true) {
            tokio::task::spawn_local(tick(Ticking));
        }
    }

    /// The first tick at which `at` has passed.
    #[allow(clippy::cast_possible_truncation)] // ticks since the worker's start
    fn bucket_of(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.start).as_nanos() / TICK.as_nanos()) as u64 + 1
    }

    fn run(&self, now: Instant) {
        let reached = self.bucket_of(now);
        loop {
            let Some((bucket, entries)) = self.pop_before(reached) else { return };
            for entry in entries.iter().filter_map(Weak::upgrade) {
                if entry.bucket.get() != Some(bucket) {
                    continue; // it was set to an earlier time and waits in that bucket too
                }
                entry.bucket.set(None);
                match entry.at.get() {
                    Some(at) if at > now => self.place(&entry, at),
                    Some(_) => {
                        if let Some(waker) = entry.waker.borrow_mut().take() {
                            waker.wake();
                        }
                    }
                    None => {}
                }
            }
        }
    }

    fn pop_before(&self, bucket: u64) -> Option<(u64, Vec<Weak<Entry>>)> {
        let mut buckets = self.buckets.borrow_mut();
        let first = *buckets.first_key_value()?.0;
        (first < bucket).then(|| buckets.pop_first())?
    }
}

/// Says that the timer stopped, also when its runtime is dropped.
struct Ticking;

impl Drop for Ticking {
    fn drop(&mut self) {
        let _ = WHEEL.try_with(|wheel| wheel.ticking.set(false));
    }
}

async fn tick(running: Ticking) {
    loop {
        tokio::time::sleep(TICK).await;
        let idle = WHEEL.with(|wheel| {
            wheel.run(Instant::now());
            wheel.buckets.borrow().is_empty()
        });
        if idle {
            drop(running);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn local(test: impl Future<Output = ()>) {
        tokio::runtime::LocalRuntime::new().unwrap().block_on(test);
    }

    #[test]
    fn fires_after_its_time_and_within_two_ticks() {
        local(async {
            let start = Instant::now();
            let mut deadline = Deadline::default();
            deadline.set(start + Duration::from_millis(50));
            poll_fn(|cx| deadline.poll(cx)).await;
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(50) && took < Duration::from_millis(400), "{took:?}");
        });
    }

    #[test]
    fn a_limit_beyond_all_time_is_none() {
        local(async {
            let mut deadline = Deadline::default();
            deadline.set_after(Instant::now(), Duration::MAX);
            assert!(!deadline.is_set());
        });
    }

    #[test]
    fn may_be_moved_both_ways_and_cleared() {
        local(async {
            let start = Instant::now();
            let mut deadline = Deadline::default();
            deadline.set(start + Duration::from_mins(1));
            deadline.set(start + Duration::from_millis(20));
            deadline.set(start + Duration::from_millis(250));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert!(start.elapsed() >= Duration::from_millis(250));
            deadline.clear();
            assert!(!deadline.is_set());
            let waited = tokio::time::timeout(Duration::from_millis(150), poll_fn(|cx| deadline.poll(cx))).await;
            assert!(waited.is_err());
        });
    }
}
