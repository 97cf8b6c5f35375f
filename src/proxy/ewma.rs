//! How long an upstream takes to begin its answer, as a moving average that jumps up at once and sinks slowly, and the
//! choice by it: of two drawn at random the one where a request waits less (`peak_ewma`).
//!
//! What counts is the time to the head of the answer times the requests under way, so that a slow upstream gets
//! little, and one that was slow is tried again once its past fades. After Twitter's Finagle (`PeakEwma`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::policy::Candidates;
use super::uptime::millis;

/// After this time a sample counts for a third.
const DECAY: f32 = 10_000.0;

/// What a failure counts for, in milliseconds: quick refusals must not look like speed.
const FAILURE: Duration = Duration::from_secs(5);

/// The cost of one that has requests under way and has never answered: a second one waits for the first.
const UNKNOWN: f32 = 1e9;

/// The average in milliseconds (its bits as `f32`) and, in the low half, when it was true (milliseconds, wrapping).
/// Zero = never measured.
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Notes how long an answer took to begin.
    pub fn observe(&self, now: Instant, took: Duration) {
        let now = stamp(now);
        let took = (took.as_secs_f32() * 1000.0).max(0.001);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            let (average, since) = unpack(old);
            let weight = (-age(now, since) / DECAY).exp();
            let next = if took > average { took } else { average * weight + took * (1.0 - weight) };
            Some(pack(next, now))
        });
    }

    /// Notes that no good answer came.
    pub fn failed(&self, now: Instant, took: Duration) {
        self.observe(now, took.max(FAILURE));
    }

    /// Milliseconds; sinks towards zero while nothing is observed. `None` = never measured.
    #[must_use]
    pub fn average(&self, now: Instant) -> Option<f32> {
        let packed = self.0.load(Ordering::Relaxed);
        let (average, since) = unpack(packed);
        (packed != 0).then(|| average * (-age(stamp(now), since) / DECAY).exp())
    }
}

/// What one more request costs there.
pub(super) fn cost(average: Option<f32>, requests: usize, weight: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    let (requests, weight) = (requests as f32, weight.max(1) as f32);
    match average {
        Some(average) => average * (requests + 1.0) / weight,
        None if requests > 0.0 => UNKNOWN + requests / weight,
        None => 0.0,
    }
}

/// Power of two choices: the cheaper of two, so that many who choose at once do not all choose the same.
pub(super) fn cheaper_of_two(of: &impl Candidates, rng: &mut Rng) -> Option<usize> {
    let available = || (0..of.count()).filter(|i| of.available(*i));
    let count = available().count();
    if count < 2 {
        return available().next();
    }
    let first = rng.usize(..count);
    let second = (first + rng.usize(1..count)) % count;
    let (first, second) = (available().nth(first)?, available().nth(second)?);
    Some(if of.cost(second) < of.cost(first) { second } else { first })
}

#[expect(clippy::cast_possible_truncation, reason = "wraps after 49 days, and so do differences")]
fn stamp(now: Instant) -> u32 {
    millis(now) as u32
}

#[expect(clippy::cast_precision_loss, reason = "seconds matter, not milliseconds of days")]
fn age(now: u32, since: u32) -> f32 {
    now.wrapping_sub(since) as f32
}

fn pack(average: f32, since: u32) -> u64 {
    u64::from(average.to_bits()) << 32 | u64::from(since)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves")]
fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn it_jumps_up_and_sinks_slowly() {
        let ewma = PeakEwma::default();
        let now = Instant::now();
        assert_eq!(ewma.average(now), None);
        ewma.observe(now, ms(20));
        ewma.observe(now + ms(10), ms(500));
        assert!(ewma.average(now + ms(10)).unwrap() > 499.0);
        ewma.observe(now + ms(1010), ms(20));
        let after = ewma.average(now + ms(1010)).unwrap();
        assert!((400.0..480.0).contains(&after), "{after}");
        let idle = ewma.average(now + ms(31_010)).unwrap();
        assert!(idle < after / 15.0, "{idle}");
        ewma.failed(now + ms(40_000), ms(1));
        assert!(ewma.average(now + ms(40_000)).unwrap() > 4999.0);
    }

    /// Upstreams with a latency each, over a simulated clock.
    struct Sim {
        latency: Vec<u64>,
        ewma: Vec<PeakEwma>,
        /// When each request under way gets its answer: upstream, end, how long it took.
        under_way: Vec<(usize, u64, u64)>,
        down: Option<usize>,
        start: Instant,
        now: u64,
    }

    impl Candidates for Sim {
        fn count(&self) -> usize {
            self.latency.len()
        }
        fn available(&self, index: usize) -> bool {
            self.down != Some(index)
        }
        fn requests(&self, index: usize) -> usize {
            self.under_way.iter().filter(|(i, ..)| *i == index).count()
        }
        fn name(&self, _: usize) -> &'static str {
            ""
        }
        fn cost(&self, index: usize) -> f32 {
            cost(self.ewma[index].average(self.start + ms(self.now)), self.requests(index), 1)
        }
    }

    impl Sim {
        fn new(latency: &[u64]) -> Self {
            let ewma = latency.iter().map(|_| PeakEwma::default()).collect();
            Self { latency: latency.to_vec(), ewma, under_way: Vec::new(), down: None, start: Instant::now(), now: 0 }
        }

        /// One request every `gap` milliseconds; how many each upstream got.
        fn run(&mut self, requests: usize, gap: u64, rng: &mut Rng) -> Vec<usize> {
            let mut got = vec![0; self.latency.len()];
            for _ in 0..requests {
                self.now += gap;
                let now = self.now;
                for (index, end, took) in self.under_way.extract_if(.., |(_, end, _)| *end <= now) {
                    self.ewma[index].observe(self.start + ms(end), ms(took));
                }
                let chosen = cheaper_of_two(self, rng).unwrap();
                got[chosen] += 1;
                let took = self.latency[chosen] + rng.u64(0..self.latency[chosen] / 4);
                self.under_way.push((chosen, now + took, took));
            }
            got
        }
    }

    #[test]
    fn a_slow_upstream_gets_little_and_recovers() {
        for seed in 0..5 {
            let mut rng = Rng::with_seed(seed);
            let mut sim = Sim::new(&[100, 100, 2000]);
            let got = sim.run(3000, 10, &mut rng);
            assert!(got[2] * 10 < got[0] && got[2] * 10 < got[1], "{got:?}");
            assert!(got[0].abs_diff(got[1]) < 600, "{got:?}");
            sim.latency[2] = 100;
            sim.run(6000, 10, &mut rng);
            let got = sim.run(3000, 10, &mut rng);
            assert!(got.iter().all(|n| (700..1300).contains(n)), "{got:?}");
        }
    }

    #[test]
    fn one_that_is_down_is_not_chosen() {
        let mut sim = Sim::new(&[50, 50, 50]);
        sim.down = Some(1);
        let got = sim.run(300, 5, &mut Rng::with_seed(1));
        assert_eq!(got[1], 0);
        assert!(got[0] > 100 && got[2] > 100, "{got:?}");
    }
}
