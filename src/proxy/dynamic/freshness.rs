//! How long an answer is used, and when it is asked for anew: a pure decision. `now` comes from the caller.

use std::time::{Duration, Instant};

/// No question is asked twice within this time, whatever the answer and however short it holds.
const PAUSE: Duration = Duration::from_secs(1);

/// One answer over time.
#[derive(Debug)]
pub struct Freshness<T> {
    answer: Option<Held<T>>,
    failed_at: Option<Instant>,
    /// A lookup is under way.
    asking: bool,
}

#[derive(Debug)]
struct Held<T> {
    value: T,
    learnt: Instant,
    /// From here on the next one is asked for while this one is used on.
    ask_from: Instant,
    good_until: Instant,
}

/// What somebody who needs the answer does.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    Use(T),
    /// Use it, and ask for the next one: nobody else does.
    UseAndAsk(T),
    /// Ask: nobody else does. Then come again.
    Ask,
    /// Somebody asks already. Come again when told.
    Wait,
    /// It was asked for a moment ago, and there is none.
    Nothing,
}

impl<T> Default for Freshness<T> {
    fn default() -> Self {
        Self { answer: None, failed_at: None, asking: false }
    }
}

impl<T: Clone> Freshness<T> {
    /// `anew`: an answer that is not brand-new is not good enough, if another is to be had.
    pub fn step(&mut self, now: Instant, anew: bool) -> Step<T> {
        let just_failed = self.failed_at.is_some_and(|at| now < at + PAUSE);
        let good = self.answer.as_ref().filter(|held| now < held.good_until);
        if let Some(held) = good {
            let wanted = anew && now >= held.learnt + PAUSE;
            if just_failed || !(wanted || (now >= held.ask_from && !self.asking)) {
                return Step::Use(held.value.clone());
            }
            if !wanted {
                self.asking = true;
                return Step::UseAndAsk(held.value.clone());
            }
        } else if just_failed {
            return Step::Nothing;
        }
        if self.asking {
            return Step::Wait;
        }
        self.asking = true;
        Step::Ask
    }

    /// A lookup brought an answer: good for `refresh`, or for `ttl` where that is shorter.
    pub fn learn(&mut self, now: Instant, value: T, refresh: Duration, ttl: Duration) {
        let good_for = refresh.min(ttl).max(PAUSE);
        let held = Held { value, learnt: now, ask_from: now + good_for / 5 * 4, good_until: now + good_for };
        *self = Self { answer: Some(held), failed_at: None, asking: false };
    }

    /// A lookup brought none: the last answer is used on for `grace`, then it is asked for again.
    pub fn fail(&mut self, now: Instant, grace: Duration) {
        self.asking = false;
        self.failed_at = Some(now);
        if let Some(held) = &mut self.answer
            && !grace.is_zero()
        {
            held.good_until = held.good_until.max(now + grace);
            // Asked for again a little earlier than it ends, as always.
            held.ask_from = now + grace / 5 * 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_mins(1);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn learnt(now: Instant, ttl: u64) -> Freshness<u8> {
        let mut known = Freshness::default();
        assert_eq!(known.step(now, false), Step::Ask);
        known.learn(now, 1, REFRESH, seconds(ttl));
        known
    }

    #[test]
    fn one_asks_and_the_others_wait() {
        let now = Instant::now();
        let mut known = Freshness::<u8>::default();
        assert_eq!(known.step(now, false), Step::Ask);
        assert_eq!(known.step(now, false), Step::Wait);
        assert_eq!(known.step(now, true), Step::Wait);
        known.learn(now, 1, REFRESH, REFRESH);
        assert_eq!(known.step(now, false), Step::Use(1));
    }

    #[test]
    fn an_answer_holds_for_the_shorter_of_refresh_and_ttl_but_a_second() {
        let now = Instant::now();
        for (ttl, good_for) in [(600, 60), (10, 10), (0, 1)] {
            let mut known = learnt(now, ttl);
            let end = now + seconds(good_for);
            let shortly = now + seconds(good_for).saturating_sub(Duration::from_millis(1));
            assert!(matches!(known.step(shortly, false), Step::UseAndAsk(1)), "{ttl}");
            assert_eq!(known.step(shortly, false), Step::Use(1));
            assert_eq!(known.step(end, false), Step::Wait, "{ttl}");
        }
        assert_eq!(learnt(now, 10).step(now + seconds(10), false), Step::Ask);
    }

    #[test]
    fn a_failed_upstream_has_its_name_looked_up_again_once_a_second_at_most() {
        let now = Instant::now();
        let mut known = learnt(now, 600);
        assert_eq!(known.step(now + Duration::from_millis(999), true), Step::Use(1));
        assert_eq!(known.step(now + seconds(1), true), Step::Ask);
        known.fail(now + seconds(1), Duration::ZERO);
        // Better the old answer than none.
        assert_eq!(known.step(now + seconds(1), true), Step::Use(1));
        assert_eq!(known.step(now + seconds(2), true), Step::Ask);
    }

    #[test]
    fn without_grace_an_old_answer_ends_with_a_failure_and_with_it_goes_on() {
        let now = Instant::now();
        let end = now + seconds(10);
        let mut known = learnt(now, 10);
        assert_eq!(known.step(end, false), Step::Ask);
        known.fail(end, Duration::ZERO);
        assert_eq!(known.step(end, false), Step::Nothing);
        assert_eq!(known.step(end + seconds(1), false), Step::Ask);
        known.fail(end + seconds(1), seconds(30));
        assert_eq!(known.step(end + seconds(2), false), Step::Use(1));
        assert_eq!(known.step(end + seconds(31), false), Step::Ask);
        known.learn(end + seconds(31), 2, REFRESH, REFRESH);
        assert_eq!(known.step(end + seconds(31), false), Step::Use(2));
    }

    /// Whatever comes: no second lookup beside one under way, none within a second of the last one's end, and no answer
    /// used longer than it holds.
    #[test]
    fn the_laws_hold_for_any_course() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let start = Instant::now();
            let mut known = Freshness::<Instant>::default();
            let (mut now, mut asking, mut last_end) = (start, false, None::<Instant>);
            let mut good_until = start;
            let grace = seconds(rng.u64(0..2) * 20);
            for _ in 0..300 {
                now += Duration::from_millis(rng.u64(0..3000));
                if asking && rng.bool() {
                    asking = false;
                    last_end = Some(now);
                    if rng.u8(0..3) == 0 {
                        known.fail(now, grace);
                        if known.answer.is_some() && !grace.is_zero() {
                            good_until = good_until.max(now + grace);
                        }
                    } else {
                        let ttl = seconds(rng.u64(0..100));
                        known.learn(now, now, REFRESH, ttl);
                        good_until = now + ttl.min(REFRESH).max(PAUSE);
                    }
                }
                let step = known.step(now, rng.u8(0..5) == 0);
                if matches!(step, Step::Use(_) | Step::UseAndAsk(_)) {
                    assert!(now < good_until, "{seed}");
                }
                if matches!(step, Step::Ask | Step::UseAndAsk(_)) {
                    assert!(!asking, "{seed}");
                    assert!(last_end.is_none_or(|end| now >= end + PAUSE * 4 / 5), "{seed}");
                    asking = true;
                }
                assert!(!matches!(step, Step::Wait) || asking, "{seed}");
            }
        }
    }
}
