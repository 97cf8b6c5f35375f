//! Whether what has happened lately is more than it may be, or more than is usual: sums over a trailing window, beside the
//! average of the same length over a longer time before.
//!
//! Moments are seconds of a clock that only goes forward. Sums are kept in slots, so that what a key takes does not grow
//! with how much happens: a window is sixty slots and forgets a slot at a time.

use std::collections::HashMap;

/// Slots of a window.
const SLOTS: u64 = 60;

/// Most windows that a baseline is made of.
pub const MOST_WINDOWS: u64 = 1024;

/// Part of a baseline that must have been seen before anything is told from it.
const LEARNT: u64 = 7;

/// Keys that are watched one by one; more are watched together.
const MOST_KEYS: usize = 10_000;

/// Under this name.
pub const OTHERS: &str = "(others)";

/// When something is too much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// More than this in the window.
    Sum(f64),
    /// More than so many times the average window of the time before it, which is so many seconds long.
    Usual { times: f64, baseline: u64 },
    /// More than this share of all (0 to 1), once so many have been seen in the window.
    Share { share: f64, of_at_least: u64 },
}

/// A sum, share or multiple that was above its bar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Above {
    pub value: f64,
    /// What it was measured against: the bar, or for [`Bar::Usual`] the average window.
    pub against: f64,
}

/// Watches one thing for many keys.
#[derive(Debug)]
pub struct Watch {
    /// Seconds.
    window: u64,
    bar: Bar,
    keys: HashMap<Box<str>, Seen>,
}

#[derive(Debug)]
struct Seen {
    lately: Series,
    /// For a share: of how many.
    all: Option<Series>,
    /// For a baseline: whole windows.
    before: Option<Series>,
    since: u64,
    last: u64,
}

impl Watch {
    #[must_use]
    pub fn new(window: u64, bar: Bar) -> Self {
        Self { window: window.max(1), bar, keys: HashMap::new() }
    }

    /// Counts `amount` at `now` (for a share: 1 or 0, of one). Says when there is too much by it.
    pub fn note(&mut self, key: &str, amount: f64, now: u64) -> Option<Above> {
        let (window, bar) = (self.window, self.bar);
        let seen = self.seen(key, now);
        seen.last = now;
        seen.lately.add(now, amount);
        let lately = seen.lately.sum(now);
        if let Some(before) = &mut seen.before {
            before.add(now, amount);
        }
        match bar {
            Bar::Sum(most) => (lately > most).then_some(Above { value: lately, against: most }),
            Bar::Share { share, of_at_least } => {
                let all = seen.all.as_mut()?;
                all.add(now, 1.0);
                let count = all.sum(now);
                #[allow(clippy::cast_precision_loss)] // of a count of calls
                let enough = count >= of_at_least as f64;
                let value = lately / count.max(1.0);
                (enough && value > share).then_some(Above { value, against: share })
            }
            Bar::Usual { times, baseline } => {
                let known = now.saturating_sub(seen.since).min(baseline);
                // What is too much now must not be what makes it usual.
                let earlier = (seen.before.as_mut()?.sum(now) - lately).max(0.0);
                #[allow(clippy::cast_precision_loss)] // of seconds
                let windows = (known.saturating_sub(window) as f64 / window as f64).max(1.0);
                let usual = earlier / windows;
                let learnt = known >= baseline / LEARNT && known >= window;
                (learnt && usual > 0.0 && lately > usual * times).then_some(Above { value: lately, against: usual })
            }
        }
    }

    fn seen(&mut self, key: &str, now: u64) -> &mut Seen {
        let key = if self.keys.contains_key(key) || self.has_room(now) { key } else { OTHERS };
        let (window, bar) = (self.window, self.bar);
        self.keys.entry(key.into()).or_insert_with(|| Seen::new(window, bar, now))
    }

    /// Makes room, where there is none, by dropping keys of which nothing is left to know.
    fn has_room(&mut self, now: u64) -> bool {
        if self.keys.len() >= MOST_KEYS {
            let memory = match self.bar {
                Bar::Usual { baseline, .. } => baseline,
                Bar::Sum(_) | Bar::Share { .. } => self.window,
            };
            self.keys.retain(|_, seen| now.saturating_sub(seen.last) < memory);
        }
        self.keys.len() < MOST_KEYS
    }
}

impl Seen {
    fn new(window: u64, bar: Bar, now: u64) -> Self {
        let lately = || Series::new((window / SLOTS).max(1), window.min(SLOTS));
        let (all, before) = match bar {
            Bar::Sum(_) => (None, None),
            Bar::Share { .. } => (Some(lately()), None),
            Bar::Usual { baseline, .. } => {
                (None, Some(Series::new(window, (baseline / window).clamp(1, MOST_WINDOWS))))
            }
        };
        Self { lately: lately(), all, before, since: now, last: now }
    }
}

/// Sums of the latest slots. The oldest is forgotten a slot at a time, so a sum covers its length to within one slot.
#[derive(Debug)]
struct Series {
    /// Seconds of a slot.
    width: u64,
    slots: Box<[f64]>,
    /// Number of the latest slot since the clock began.
    latest: u64,
}

impl Series {
    fn new(width: u64, slots: u64) -> Self {
        let slots = usize::try_from(slots.max(1)).unwrap_or(1);
        Self { width: width.max(1), slots: vec![0.0; slots].into(), latest: 0 }
    }

    fn add(&mut self, now: u64, amount: f64) {
        self.advance(now);
        let at = self.place(self.latest);
        self.slots[at] += amount;
    }

    fn sum(&mut self, now: u64) -> f64 {
        self.advance(now);
        self.slots.iter().sum()
    }

    fn advance(&mut self, now: u64) {
        let number = now / self.width;
        let gone = number.saturating_sub(self.latest).min(self.slots.len() as u64);
        for step in 0..gone {
            let at = self.place(number - step);
            self.slots[at] = 0.0;
        }
        self.latest = self.latest.max(number);
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number % self.slots.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn a_sum_is_of_the_window() {
        let mut watch = Watch::new(60, Bar::Sum(10.0));
        assert_eq!(watch.note("a", 6.0, 1000), None);
        assert_eq!(watch.note("b", 6.0, 1001), None, "each key for itself");
        assert_eq!(watch.note("a", 6.0, 1059), Some(Above { value: 12.0, against: 10.0 }));
        assert_eq!(watch.note("a", 1.0, 1061), None, "the first is forgotten");
        assert_eq!(watch.note("a", 1.0, u64::MAX), None);
    }

    #[test]
    fn a_share_needs_enough_to_be_one() {
        let mut watch = Watch::new(300, Bar::Share { share: 0.05, of_at_least: 20 });
        for n in 0..19 {
            assert_eq!(watch.note("", 1.0, n), None, "{n}");
        }
        assert_eq!(watch.note("", 0.0, 19), Some(Above { value: 0.95, against: 0.05 }));
        let mut calm = Watch::new(300, Bar::Share { share: 0.05, of_at_least: 20 });
        for n in 0_u32..1000 {
            let failed = f64::from(u8::from(n % 25 == 24));
            assert_eq!(calm.note("", failed, u64::from(n)), None, "{n}");
        }
    }

    #[test]
    fn more_than_usual_is_told_once_the_usual_is_known() {
        let bar = Bar::Usual { times: 3.0, baseline: 7 * DAY };
        let mut watch = Watch::new(HOUR, bar);
        // Ten dollars an hour; the first day teaches.
        let mut now = 0;
        for n in 0..3 * 24 * 6 {
            now = n * 600;
            assert_eq!(watch.note("k", 10.0 / 6.0, now), None, "{now}");
        }
        let above = watch.note("k", 25.0, now + 1).unwrap();
        assert!((above.against - 10.0).abs() < 0.5, "{above:?}");
        assert!(above.value > 30.0);
        // A key that has just appeared has no usual.
        assert_eq!(watch.note("new", 1000.0, now), None);
    }

    #[test]
    fn a_flood_of_keys_is_watched_together() {
        let mut watch = Watch::new(60, Bar::Sum(5.0));
        for n in 0..MOST_KEYS * 2 {
            watch.note(&n.to_string(), 0.0, 1);
        }
        assert_eq!(watch.keys.len(), MOST_KEYS + 1);
        watch.note("late", 0.0, 1000);
        assert_eq!(watch.keys.len(), 1, "what is idle makes room");
    }

    /// The sum in slots against one over all events: the same to within what happened in one slot.
    #[test]
    fn sums_agree_with_a_list_of_all_events() {
        let mut rng = fastrand::Rng::with_seed(7);
        for window in [1_u64, 10, 60, 3600, 3661] {
            let slot = (window / SLOTS).max(1);
            let mut series = Series::new(slot, window.min(SLOTS));
            let mut events: Vec<(u64, f64)> = Vec::new();
            let mut now = 0;
            for _ in 0..2000 {
                now += rng.u64(0..=slot);
                let amount = f64::from(rng.u8(0..10));
                series.add(now, amount);
                events.push((now, amount));
                let since = |age: u64| events.iter().filter(|(at, _)| at + age > now).map(|(_, a)| a).sum::<f64>();
                let sum = series.sum(now);
                let covered = slot * window.min(SLOTS);
                assert!(sum <= since(covered) + 1e-9 && sum >= since(covered - slot) - 1e-9, "{window} {now}");
            }
        }
    }
}
