//! A sliding window: amounts with the moments at which they came, and how much of it has not left the window yet.
//!
//! Up to 4,096 moments are kept as they are, so up to there the count is exact. A window in which more happens joins what
//! comes within 1/4096 of it, and counts it from the end of that piece: what is remembered is bounded, and the error is
//! small and on the strict side. Nothing is allocated for what might come, nor for a single moment.

use std::collections::VecDeque;

use super::moment::Moment;

/// Moments that are kept one by one.
const EXACT: usize = 4096;

#[derive(Debug, Default)]
pub struct Window(Marks);

#[derive(Debug, Default)]
enum Marks {
    #[default]
    None,
    One(Mark),
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    /// Oldest first; no moment twice.
    marks: VecDeque<Mark>,
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Moment,
    amount: u64,
}

impl Window {
    /// What is in it, as of the latest [`advance`](Self::advance).
    #[must_use]
    pub fn total(&self) -> u64 {
        match &self.0 {
            Marks::None => 0,
            Marks::One(mark) => mark.amount,
            Marks::Many(many) => many.total,
        }
    }

    /// When it is empty if nothing else comes.
    #[must_use]
    pub fn until(&self, window: u64) -> Moment {
        let newest = match &self.0 {
            Marks::None => return Moment(0),
            Marks::One(mark) => Some(mark),
            Marks::Many(many) => many.marks.back(),
        };
        newest.map_or(Moment(0), |mark| mark.at + window)
    }

    /// Forgets what has left.
    pub fn advance(&mut self, window: u64, now: Moment) {
        let left = |mark: &Mark| mark.at + window <= now;
        match &mut self.0 {
            Marks::None => {}
            Marks::One(mark) if left(mark) => self.0 = Marks::None,
            Marks::One(_) => {}
            Marks::Many(many) => {
                while let Some(mark) = many.marks.front().filter(|mark| left(mark)) {
                    many.total = many.total.saturating_sub(mark.amount);
                    many.marks.pop_front();
                }
                match many.marks.len() {
                    0 => self.0 = Marks::None,
                    // A burst that is over gives its memory back, but not one that goes on and off.
                    len if len < many.marks.capacity() / 8 => many.marks.shrink_to(len * 2),
                    _ => {}
                }
            }
        }
    }

    /// The same amount as one that came when the newest did: on the strict side, and small.
    #[must_use]
    pub fn summed(&self) -> Self {
        Self(match &self.0 {
            Marks::None => Marks::None,
            Marks::One(mark) => Marks::One(*mark),
            Marks::Many(many) => {
                many.marks.back().map_or(Marks::None, |last| Marks::One(Mark { at: last.at, amount: many.total }))
            }
        })
    }

    /// Nanoseconds until `amount` more are within `limit`; zero when they are already, `None` when they never are.
    #[must_use]
    pub fn wait(&self, amount: u64, limit: u64, window: u64, now: Moment) -> Option<u64> {
        let room = limit.checked_sub(amount)?;
        let mut total = self.total();
        if total <= room {
            return Some(0);
        }
        let marks: &mut dyn Iterator<Item = &Mark> = match &self.0 {
            Marks::None => return Some(0),
            Marks::One(mark) => &mut std::iter::once(mark),
            Marks::Many(many) => &mut many.marks.iter(),
        };
        for mark in marks {
            total = total.saturating_sub(mark.amount);
            if total <= room {
                return Some((mark.at + window) - now);
            }
        }
        Some(window)
    }

    /// Counts an amount, and tells under which moment it stands.
    pub fn add(&mut self, amount: u64, window: u64, now: Moment) -> Moment {
        match &mut self.0 {
            Marks::None => {
                self.0 = Marks::One(Mark { at: now, amount });
                now
            }
            // Of two callers the later may get here first: both count from the later moment.
            Marks::One(mark) if mark.at >= now => {
                mark.amount = mark.amount.saturating_add(amount);
                mark.at
            }
            Marks::One(mark) => {
                let total = mark.amount.saturating_add(amount);
                let marks = VecDeque::from([*mark, Mark { at: now, amount }]);
                self.0 = Marks::Many(Box::new(Many { marks, total }));
                now
            }
            Marks::Many(many) => {
                many.total = many.total.saturating_add(amount);
                if let Some(mark) = many.marks.back_mut().filter(|mark| mark.at >= now) {
                    mark.amount = mark.amount.saturating_add(amount);
                    return mark.at;
                }
                let piece = if many.marks.len() < EXACT { 0 } else { window / EXACT as u64 };
                let at = now + piece;
                many.marks.push_back(Mark { at, amount });
                at
            }
        }
    }

    /// Takes back part of what stands under a moment. Nothing happens when it has left.
    pub fn take_back(&mut self, at: Moment, amount: u64) {
        match &mut self.0 {
            Marks::One(mark) if mark.at == at => mark.amount = mark.amount.saturating_sub(amount),
            Marks::None | Marks::One(_) => {}
            Marks::Many(many) => {
                if let Ok(place) = many.marks.binary_search_by_key(&at, |mark| mark.at)
                    && let Some(mark) = many.marks.get_mut(place)
                {
                    let taken = amount.min(mark.amount);
                    mark.amount -= taken;
                    many.total = many.total.saturating_sub(taken);
                }
            }
        }
    }

    /// Moments that are kept.
    #[cfg(test)]
    fn marks(&self) -> usize {
        match &self.0 {
            Marks::None => 0,
            Marks::One(_) => 1,
            Marks::Many(many) => many.marks.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: u64 = 1_000_000;

    /// Takes an amount if the limit allows it; else how long to wait.
    fn take(window: &mut Window, amount: u64, limit: u64, now: Moment) -> Result<Moment, Option<u64>> {
        window.advance(W, now);
        match window.wait(amount, limit, W, now) {
            Some(0) => Ok(window.add(amount, W, now)),
            wait => Err(wait),
        }
    }

    #[test]
    fn the_oldest_makes_room_when_it_leaves() {
        let mut window = Window::default();
        assert_eq!(take(&mut window, 1, 2, Moment(10)), Ok(Moment(10)));
        assert_eq!(take(&mut window, 1, 2, Moment(20)), Ok(Moment(20)));
        assert_eq!(take(&mut window, 1, 2, Moment(30)), Err(Some(W - 20)));
        assert_eq!(take(&mut window, 1, 2, Moment(W + 9)), Err(Some(1)));
        assert!(take(&mut window, 1, 2, Moment(W + 10)).is_ok());
        assert_eq!(window.until(W), Moment(2 * W + 10));
        window.advance(W, Moment(3 * W));
        assert_eq!((window.total(), window.marks()), (0, 0));
    }

    #[test]
    fn what_is_asked_at_once_may_be_more_than_is_ever_allowed() {
        let mut window = Window::default();
        assert_eq!(take(&mut window, 3, 2, Moment(1)), Err(None));
        assert_eq!(take(&mut window, 1, 0, Moment(1)), Err(None));
        assert!(take(&mut window, 2, 2, Moment(1)).is_ok());
    }

    #[test]
    fn what_is_given_back_may_be_taken_again() {
        let mut window = Window::default();
        let marks: Vec<_> = (1..=3).map(|n| take(&mut window, 10, 30, Moment(n)).unwrap()).collect();
        assert_eq!(take(&mut window, 5, 30, Moment(4)), Err(Some(W - 3)));
        window.take_back(marks[1], 6);
        assert_eq!(window.total(), 24);
        assert!(take(&mut window, 5, 30, Moment(4)).is_ok());
        window.take_back(Moment(77), 6);
        window.take_back(marks[0], 100);
        assert_eq!(window.total(), 19, "never more than was there");
        window.advance(W, Moment(W + 2));
        assert_eq!(window.total(), 15);
    }

    /// No window of any history holds more than the limit, whatever comes and is given back.
    #[test]
    fn never_above_the_limit() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let (limit, mut window, mut now) = (random.u64(1..40), Window::default(), Moment(W));
            let mut taken: Vec<(Moment, Moment, u64)> = Vec::new();
            for _ in 0..300 {
                now = now + random.u64(0..W / 5);
                let amount = random.u64(1..6);
                match take(&mut window, amount, limit, now) {
                    Ok(at) => taken.push((now, at, amount)),
                    Err(Some(wait)) => {
                        let mut later = Window::default();
                        for (at, _, amount) in &taken {
                            later.advance(W, *at);
                            later.add(*amount, W, *at);
                        }
                        later.advance(W, now + wait);
                        assert_eq!(later.wait(amount, limit, W, now + wait), Some(0), "it may come when it was told");
                    }
                    Err(None) => assert!(amount > limit),
                }
                if random.u8(..) < 20
                    && let Some((came, at, amount)) = taken.pop()
                {
                    let less = random.u64(0..=amount);
                    window.take_back(at, less);
                    taken.push((came, at, amount - less));
                }
            }
            for (i, (from, ..)) in taken.iter().enumerate() {
                let within = taken[i..].iter().take_while(|(at, ..)| *at < *from + W);
                assert!(within.map(|(.., amount)| amount).sum::<u64>() <= limit);
            }
        }
    }

    /// A million in a window take no more memory than some thousand, and are never more than a million.
    #[test]
    fn large_windows_are_bounded_and_strict() {
        let limit = 1_000_000_u64;
        let window_nanos = 4_096_000_000_u64;
        let (mut window, mut times) = (Window::default(), VecDeque::new());
        let mut now = Moment(0);
        let mut refused = 0_u64;
        for _ in 0..3_000_000 {
            now = now + 2_000;
            window.advance(window_nanos, now);
            if window.wait(1, limit, window_nanos, now) == Some(0) {
                window.add(1, window_nanos, now);
                times.push_back(now);
            } else {
                refused += 1;
            }
            while times.front().is_some_and(|at| *at + window_nanos <= now) {
                times.pop_front();
            }
            assert!(times.len() as u64 <= limit);
        }
        assert!(window.marks() <= 2 * EXACT, "{}", window.marks());
        // 2,048,000 would come in each window; three million are 1.46 windows.
        assert!((1_000_000..1_600_000).contains(&refused), "{refused}");
    }

    #[test]
    fn callers_that_overtake_one_another_count_from_the_later_moment() {
        let mut window = Window::default();
        assert_eq!(window.add(1, W, Moment(100)), Moment(100));
        assert_eq!(window.add(1, W, Moment(90)), Moment(100));
        window.add(1, W, Moment(110));
        assert_eq!(window.add(1, W, Moment(105)), Moment(110));
        assert_eq!((window.total(), window.marks()), (4, 2));
    }
}
