//! An even rate with a burst, as nginx's `limit_req` counts it. One number is kept: the moment until which the rate is
//! used up. Equal to nginx's count of excess requests, with nanoseconds in place of its milliseconds.

use super::limit::Rate;
use super::moment::Moment;

/// What a rate says of a request that comes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// It may go on after so many nanoseconds; `used_until` is to be kept then.
    After { delay: u64, used_until: Moment },
    /// It may come again in so many nanoseconds.
    Refused { wait: u64 },
}

/// Asks without counting.
#[must_use]
pub fn ask(rate: &Rate, used_until: Moment, now: Moment) -> Spread {
    let ahead = used_until - now;
    let of = |requests: u32| rate.interval.saturating_mul(u64::from(requests));
    let burst = of(rate.burst);
    if ahead > burst {
        return Spread::Refused { wait: ahead - burst };
    }
    let delay = ahead.saturating_sub(of(rate.at_once));
    Spread::After { delay, used_until: used_until.max(now) + rate.interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 100_000_000;

    /// nginx 1.22 `ngx_http_limit_req_lookup` and `_account`, in thousandths of requests and milliseconds.
    struct Nginx {
        excess: i64,
        last: i64,
        seen: bool,
    }

    impl Nginx {
        /// `None` when refused, else milliseconds of delay.
        fn ask(&mut self, rate: &Rate, ms: i64) -> Option<i64> {
            let per_second = 1_000_000_000_000 / i64::try_from(rate.interval).unwrap();
            let (burst, at_once) = (i64::from(rate.burst) * 1000, i64::from(rate.at_once) * 1000);
            let excess = if self.seen { (self.excess - per_second * (ms - self.last) / 1000 + 1000).max(0) } else { 0 };
            if excess > burst {
                return None;
            }
            (self.excess, self.last, self.seen) = (excess, ms, true);
            Some(if excess <= at_once { 0 } else { (excess - at_once) * 1000 / per_second })
        }
    }

    #[test]
    fn it_counts_as_nginx_does() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let burst = random.u32(0..6);
            // Intervals of whole milliseconds, so that nginx's integers lose nothing.
            let interval = [1, 10, 100, 1000][random.usize(0..4)] * 1_000_000;
            let rate = Rate { interval, burst, at_once: random.u32(0..=burst) };
            let mut nginx = Nginx { excess: 0, last: 0, seen: false };
            let (mut ours, mut ms) = (Moment(0), 1_000_i64);
            for _ in 0..200 {
                ms += random.i64(0..=i64::try_from(interval / 500_000).unwrap());
                let now = Moment(u64::try_from(ms).unwrap() * 1_000_000);
                let told = match ask(&rate, ours, now) {
                    Spread::After { delay, used_until } => {
                        ours = used_until;
                        Some(i64::try_from(delay / 1_000_000).unwrap())
                    }
                    Spread::Refused { .. } => None,
                };
                assert_eq!(told, nginx.ask(&rate, ms), "{rate:?} at {ms}");
            }
        }
    }

    /// In any stretch of time no more go on than the rate, the burst and one allow.
    #[test]
    fn never_above_the_rate() {
        let mut random = fastrand::Rng::with_seed(8);
        for _ in 0..200 {
            let rate = Rate { interval: T, burst: random.u32(0..5), at_once: random.u32(0..5) };
            let (mut used, mut now, mut gone) = (Moment(0), Moment(T), Vec::new());
            for _ in 0..200 {
                now = now + random.u64(0..2 * T);
                match ask(&rate, used, now) {
                    Spread::After { delay, used_until } => {
                        used = used_until;
                        gone.push(now + delay);
                    }
                    Spread::Refused { wait } => {
                        let again = ask(&rate, used, now + wait);
                        assert!(matches!(again, Spread::After { .. }), "{again:?}");
                        assert!(matches!(ask(&rate, used, now + (wait - 1)), Spread::Refused { .. }));
                    }
                }
            }
            for (i, from) in gone.iter().enumerate() {
                for (n, to) in gone.iter().skip(i).enumerate() {
                    assert!(n as u64 <= (*to - *from) / T + u64::from(rate.burst.max(rate.at_once)) + 1);
                }
            }
        }
    }
}
