//! Circuit breaker: an upstream that fails too often gets no requests for a while, then a few to see whether it is well
//! again. A pure core: the caller says what time it is.
//!
//! ```text
//! closed ── too many failures ─▶ open ── time is up ─▶ half open ── enough good answers ─▶ closed
//!                                 ▲───────── a failure ───────┘
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::state::Table;
use serde::{Deserialize, Serialize};

use crate::http::response_matcher::status_matches;

/// Parts that the window is counted in.
const SLOTS: u8 = 10;

/// When a breaker opens, and how it closes again.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Failures in a row, within the window, that open it; 0 = these do not.
    pub failures: u32,
    /// Part of the requests of the window that, when they fail, opens it; 0 = this does not.
    pub ratio: f64,
    /// Requests within the window below which the ratio says nothing.
    pub min_requests: u32,
    pub window: Duration,
    /// How long it stays open.
    pub open: Duration,
    /// Requests let through at once when that time is over, and good answers that close it.
    pub probes: u32,
    /// Statuses that count as failures; a single digit stands for its class.
    pub statuses: Box<[u16]>,
}

/// The breaker of one upstream.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Arc<Settings>,
    circuit: Arc<Circuit>,
}

/// What a breaker remembers, over all workers and reloads.
#[derive(Debug, Default)]
pub struct Circuit {
    /// Not closed: asked on every request, without the lock.
    tripped: AtomicBool,
    /// How often it was half open: the outcome of a probe counts in its own time alone.
    rounds: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { under_way: u32, passed: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(Window::default())
    }
}

/// What happened lately, counted in slots of a tenth of the window.
#[derive(Debug, Default)]
struct Window {
    slots: [Slot; SLOTS as usize],
    /// The slot of now, and when it began; `None` before the first request.
    current: Option<(usize, Instant)>,
    in_a_row: u32,
    /// The first of the failures in a row that still count.
    first_of_row: Option<Instant>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Slot {
    good: u32,
    bad: u32,
}

/// How a breaker stands; the later the worse.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Closed,
    HalfOpen,
    Open,
}

impl Breaker {
    /// The breaker of the upstream with this identity; one with other settings has a memory of its own.
    #[must_use]
    pub fn adopt(identity: &str, settings: &Arc<Settings>) -> Self {
        let circuit = CIRCUITS.adopt(&format!("{identity} {settings:?}"));
        Self { settings: Arc::clone(settings), circuit }
    }

    /// Whether a request may go to the upstream.
    #[must_use]
    pub fn admits(&self, now: Instant) -> bool {
        if !self.circuit.tripped.load(Ordering::Relaxed) {
            return true;
        }
        match &*self.circuit.lock() {
            State::Closed(_) => true,
            State::Open { until } => now >= *until,
            State::HalfOpen { under_way, passed } => under_way + passed < self.settings.probes,
        }
    }

    /// A request goes to the upstream; the pass takes its outcome. Workers that ask at the same instant may let a few
    /// more through than there are probes.
    #[must_use]
    pub fn begin(&self, now: Instant) -> Pass {
        let mut probe = None;
        if self.circuit.tripped.load(Ordering::Relaxed) {
            let mut state = self.circuit.lock();
            match &mut *state {
                State::Open { until } if now >= *until => {
                    *state = State::HalfOpen { under_way: 1, passed: 0 };
                    probe = Some(self.circuit.rounds.fetch_add(1, Ordering::Relaxed) + 1);
                }
                State::HalfOpen { under_way, .. } => {
                    *under_way += 1;
                    probe = Some(self.circuit.rounds.load(Ordering::Relaxed));
                }
                State::Open { .. } | State::Closed(_) => {}
            }
        }
        Pass { breaker: self.clone(), probe, told: false }
    }

    #[must_use]
    pub fn circuit(&self) -> &Arc<Circuit> {
        &self.circuit
    }

    /// Whether this status is one of a failing upstream.
    #[must_use]
    pub fn is_failure(&self, status: u16) -> bool {
        self.settings.statuses.iter().any(|wanted| status_matches(status, *wanted))
    }
}

/// A request that the breaker let through. Dropped without a word (the client left), it counts for nothing.
#[derive(Debug)]
pub struct Pass {
    breaker: Breaker,
    /// The round in which it was let through to see whether the upstream is well again.
    probe: Option<u64>,
    told: bool,
}

impl Pass {
    /// Tells how the request ended; the breaker's new standing, if that changed it.
    pub fn ended(mut self, good: bool, now: Instant) -> Option<Standing> {
        self.told = true;
        let Breaker { settings, circuit } = &self.breaker;
        let mut state = circuit.lock();
        let (next, standing) = match &mut *state {
            // A request from before it opened: its outcome is late news.
            State::HalfOpen { .. } if self.probe != Some(circuit.rounds.load(Ordering::Relaxed)) => return None,
            State::Open { .. } => return None,
            State::Closed(window) => {
                window.note(good, now, settings);
                if !window.is_too_much(settings) {
                    return None;
                }
                (State::Open { until: now + settings.open }, Standing::Open)
            }
            State::HalfOpen { .. } if !good => (State::Open { until: now + settings.open }, Standing::Open),
            State::HalfOpen { under_way, passed } => {
                *under_way = under_way.saturating_sub(1);
                *passed += 1;
                if *passed < settings.probes {
                    return None;
                }
                (State::default(), Standing::Closed)
            }
        };
        *state = next;
        circuit.tripped.store(standing != Standing::Closed, Ordering::Relaxed);
        Some(standing)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let (false, Some(round)) = (self.told, self.probe) else { return };
        let circuit = &self.breaker.circuit;
        if let State::HalfOpen { under_way, .. } = &mut *circuit.lock()
            && round == circuit.rounds.load(Ordering::Relaxed)
        {
            *under_way = under_way.saturating_sub(1);
        }
    }
}

impl Circuit {
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        match &*self.lock() {
            State::Closed(_) => Standing::Closed,
            State::Open { until } if now < *until => Standing::Open,
            State::Open { .. } | State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn note(&mut self, good: bool, now: Instant, settings: &Settings) {
        let slot = self.advance(now, settings.window);
        if good {
            slot.good = slot.good.saturating_add(1);
            self.in_a_row = 0;
            self.first_of_row = None;
            return;
        }
        slot.bad = slot.bad.saturating_add(1);
        let first = *self.first_of_row.get_or_insert(now);
        if now.saturating_duration_since(first) > settings.window {
            // Failures so far apart are no row.
            self.first_of_row = Some(now);
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// Forgets what is out of the window and gives the slot of now.
    fn advance(&mut self, now: Instant, window: Duration) -> &mut Slot {
        let width = (window / u32::from(SLOTS)).max(Duration::from_millis(1));
        let (mut index, mut began) = self.current.unwrap_or((0, now));
        let mut steps = 0;
        while now.saturating_duration_since(began) >= width {
            if steps == SLOTS {
                // Nothing of before is left.
                began = now;
                break;
            }
            began += width;
            index = (index + 1) % usize::from(SLOTS);
            self.slots[index] = Slot::default();
            steps += 1;
        }
        self.current = Some((index, began));
        &mut self.slots[index]
    }

    fn is_too_much(&self, settings: &Settings) -> bool {
        if settings.failures > 0 && self.in_a_row >= settings.failures {
            return true;
        }
        let (good, bad) = self
            .slots
            .iter()
            .fold((0_u64, 0_u64), |(good, bad), slot| (good + u64::from(slot.good), bad + u64::from(slot.bad)));
        #[expect(clippy::cast_precision_loss, reason = "counts of a window are far below 2^52")]
        let too_many = bad as f64 >= settings.ratio * (good + bad) as f64;
        settings.ratio > 0.0 && good + bad >= u64::from(settings.min_requests) && bad > 0 && too_many
    }
}

static CIRCUITS: Table<Circuit> = Table::new();

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        Settings {
            failures: 3,
            ratio: 0.0,
            min_requests: 10,
            window: 10 * SECOND,
            open: 30 * SECOND,
            probes: 1,
            statuses: [5].into(),
        }
    }

    fn breaker(settings: Settings) -> Breaker {
        Breaker { settings: Arc::new(settings), circuit: Arc::default() }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_good_probe_closes_it() {
        let (b, now) = (breaker(settings()), Instant::now());
        for (good, standing) in [(false, None), (false, None), (true, None), (false, None), (false, None)] {
            assert_eq!(b.begin(now).ended(good, now), standing);
        }
        assert_eq!(b.begin(now).ended(false, now), Some(Standing::Open));
        assert!(!b.admits(now + 29 * SECOND));
        let later = now + 30 * SECOND;
        assert!(b.admits(later));
        let probe = b.begin(later);
        assert!(!b.admits(later), "one probe at a time");
        drop(probe);
        assert!(b.admits(later), "a probe whose client left gives its place back");
        assert_eq!(b.begin(later).ended(false, later), Some(Standing::Open));
        assert!(!b.admits(later + 29 * SECOND));
        let later = later + 30 * SECOND;
        assert_eq!(b.begin(later).ended(true, later), Some(Standing::Closed));
        assert!(b.admits(later));
    }

    #[test]
    fn failures_far_apart_are_no_row() {
        let (b, mut now) = (breaker(settings()), Instant::now());
        for _ in 0..20 {
            assert_eq!(b.begin(now).ended(false, now), None);
            now += 6 * SECOND;
        }
    }

    #[test]
    fn what_began_before_it_opened_changes_nothing_afterwards() {
        let (b, now) = (breaker(settings()), Instant::now());
        let slow: Vec<_> = (0..4).map(|_| b.begin(now)).collect();
        for _ in 0..3 {
            let _ = b.begin(now).ended(false, now);
        }
        let later = now + 30 * SECOND;
        let probe = b.begin(later);
        for pass in slow {
            assert_eq!(pass.ended(true, later), None, "late news closes nothing");
        }
        assert_eq!(b.circuit.standing(later), Standing::HalfOpen);
        assert_eq!(probe.ended(true, later), Some(Standing::Closed));
    }

    #[test]
    fn the_ratio_needs_enough_requests() {
        let b = breaker(Settings { failures: 0, ratio: 0.5, ..settings() });
        let now = Instant::now();
        for n in 1..10 {
            assert_eq!(b.begin(now).ended(false, now), None, "{n}");
        }
        assert_eq!(b.begin(now).ended(true, now), Some(Standing::Open), "9 of 10");
    }

    /// A plain list of outcomes, the definition of the window: those of the last ten slots.
    #[test]
    fn any_history_opens_it_exactly_when_the_definition_says() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let settings = Settings { failures: 0, ratio: 0.1 + 0.8 * rng.f64(), ..settings() };
            let b = breaker(settings.clone());
            let start = Instant::now();
            let (mut now, mut history): (Instant, Vec<(Instant, bool)>) = (start, Vec::new());
            let sick = rng.f64();
            for step in 0..200 {
                now += Duration::from_millis(rng.u64(0..400));
                let good = rng.f64() > sick;
                history.push((now, good));
                // Slots begin at the first request and are a second wide.
                let slot = |at: Instant| at.duration_since(start + first_offset(&history, start)).as_secs();
                let (mut all, mut bad) = (0_u32, 0_u32);
                for (_, good) in history.iter().filter(|(at, _)| slot(now) - slot(*at) < u64::from(SLOTS)) {
                    all += 1;
                    bad += u32::from(!good);
                }
                let too_much =
                    all >= settings.min_requests && bad > 0 && f64::from(bad) >= settings.ratio * f64::from(all);
                let standing = b.begin(now).ended(good, now);
                assert_eq!(standing.is_some(), too_much, "seed {seed}, step {step}: {bad} of {all}");
                if too_much {
                    break;
                }
            }
        }
    }

    fn first_offset(history: &[(Instant, bool)], start: Instant) -> Duration {
        history[0].0.duration_since(start)
    }

    /// Workers that ask, send and finish in any order: never more probes than allowed, and it always comes back.
    #[test]
    fn in_any_order_probes_are_bounded_and_it_recovers() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let probes = rng.u32(1..4);
            let b = breaker(Settings { probes, ..settings() });
            let mut now = Instant::now();
            let mut open: Vec<Pass> = Vec::new();
            let mut probing = 0;
            for _ in 0..500 {
                now += Duration::from_millis(rng.u64(0..3000));
                if rng.bool() && b.admits(now) {
                    let pass = b.begin(now);
                    open.push(pass);
                } else if !open.is_empty() {
                    let pass = open.swap_remove(rng.usize(..open.len()));
                    if rng.u8(..5) == 0 {
                        drop(pass);
                    } else {
                        let _ = pass.ended(rng.bool(), now);
                    }
                }
                if let State::HalfOpen { under_way, passed } = &*b.circuit.lock() {
                    probing += 1;
                    assert!(under_way + passed <= probes, "seed {seed}: {under_way} + {passed} of {probes}");
                }
            }
            open.clear();
            let mut later = now + 31 * SECOND;
            for _ in 0..probes {
                if b.circuit.standing(later) != Standing::Closed {
                    assert!(b.admits(later), "seed {seed}: it never comes back");
                    let _ = b.begin(later).ended(true, later);
                }
                later += SECOND;
            }
            assert_eq!(b.circuit.standing(later), Standing::Closed, "seed {seed}");
            assert!(probing > 0 || seed > 0, "the simulation reaches the half-open state");
        }
    }
}
