//! A moment on the clock that never goes back, as a number: what is kept for each of a million keys is eight bytes.

use std::ops::{Add, Sub};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Nanoseconds of the monotonic clock since a moment of this process; enough for 584 years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    #[must_use]
    pub fn of(now: Instant) -> Self {
        static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self(nanos(now.saturating_duration_since(*FIRST)))
    }
}

impl Add<u64> for Moment {
    type Output = Self;

    fn add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// Nanoseconds from the other until this one; nothing when it is not later.
impl Sub for Moment {
    type Output = u64;

    fn sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Nanoseconds of a duration; the longest are cut at 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_follow_the_clock() {
        let first = Moment::of(Instant::now());
        let now = Instant::now();
        assert_eq!(Moment::of(now + Duration::from_millis(3)) - Moment::of(now), 3_000_000);
        assert!(Moment::of(now) >= first);
        assert_eq!(first - (first + 5), 0);
    }
}
