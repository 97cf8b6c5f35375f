//! The life of one name's certificate: obtained, renewed in time, and tried again when that fails.

use std::time::Duration;

use time::OffsetDateTime;

use super::source::Source;

/// Longest wait without looking at the clock, which may have been set.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Waits after failures, in minutes, as Caddy's: quick at first, then ever rarer, for ever.
const RETRY_MINUTES: [u64; 20] = [1, 2, 2, 5, 10, 10, 10, 20, 20, 20, 20, 30, 30, 30, 30, 60, 120, 180, 180, 360];

/// Never ends; dropping it stops.
pub async fn of(name: String, source: Source) {
    let mut failures = 0;
    loop {
        let wait = match source.due(&name) {
            Some(due) => until(due),
            None => Duration::ZERO,
        };
        if wait > Duration::ZERO {
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
            continue;
        }
        if source.obtain(&name, failures).await {
            failures = 0;
        } else {
            tokio::time::sleep(retry_after(failures)).await;
            failures += 1;
        }
    }
}

fn until(due: OffsetDateTime) -> Duration {
    Duration::try_from(due - OffsetDateTime::now_utc()).unwrap_or(Duration::ZERO)
}

/// With a tenth of jitter, so that many names do not ask at one moment.
fn retry_after(failures: usize) -> Duration {
    let last = RETRY_MINUTES.len() - 1;
    let minutes = RETRY_MINUTES.get(failures.min(last)).copied().unwrap_or(360);
    Duration::from_mins(minutes).mul_f64(0.95 + fastrand::f64() * 0.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_six_hours() {
        assert!(retry_after(0) <= Duration::from_secs(64));
        assert!(retry_after(1000) >= Duration::from_hours(5));
        assert!(RETRY_MINUTES.is_sorted());
    }
}
