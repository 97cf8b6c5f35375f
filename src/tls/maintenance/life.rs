//! The life of one name's certificate: obtained, renewed in time, and tried again when that fails.

use std::time::Duration;

use time::OffsetDateTime;

use super::source::Source;

/// Waits after failures, in minutes, as Caddy's: quick at first, then ever rarer, for ever.
const RETRY_MINUTES: [u64; 12] = [1, 2, 2, 5, 10, 20, 20, 30, 30, 60, 180, 360];
/// A CA that wants to be left alone for longer than this is asked all the same.
const LONGEST_REST: Duration = Duration::from_hours(24);

/// Never ends; dropping it stops.
pub async fn of(name: &str, source: &Source) {
    let (mut failures, mut hasty) = (0, 0);
    // The clock may be set, and another process may renew: waits are short.
    let longest = source.plan.renew_interval;
    loop {
        source.ask_for_window(name).await;
        let wait = source.due(name).map_or(Duration::ZERO, until);
        if wait > Duration::ZERO {
            tokio::select! {
                () = tokio::time::sleep(wait.min(longest)) => {}
                () = source.revocation.notified() => {}
            }
            continue;
        }
        match source.obtain(name, failures).await {
            Ok(()) if source.due(name).is_some_and(|due| until(due) > Duration::ZERO) => (failures, hasty) = (0, 0),
            // What is due as soon as it is there must not be ordered over and over.
            Ok(()) => {
                tokio::time::sleep(retry_after(hasty, None)).await;
                hasty += 1;
            }
            Err(failure) => {
                tokio::time::sleep(retry_after(failures, failure.retry_after)).await;
                failures += 1;
            }
        }
    }
}

fn until(due: OffsetDateTime) -> Duration {
    Duration::try_from(due - OffsetDateTime::now_utc()).unwrap_or(Duration::ZERO)
}

/// With a tenth of jitter, so that many names do not ask at one moment; not before the CA wants to be asked.
fn retry_after(failures: usize, told: Option<Duration>) -> Duration {
    let last = RETRY_MINUTES.len() - 1;
    let minutes = RETRY_MINUTES.get(failures.min(last)).copied().unwrap_or(360);
    let own = Duration::from_mins(minutes).mul_f64(0.95 + fastrand::f64() * 0.1);
    own.max(told.unwrap_or_default().min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_six_hours() {
        assert!(retry_after(0, None) <= Duration::from_secs(64));
        assert!(retry_after(1000, None) >= Duration::from_hours(5));
        assert!(RETRY_MINUTES.is_sorted());
    }

    #[test]
    fn a_ca_that_names_a_time_is_left_alone_until_then_but_not_for_ever() {
        assert_eq!(retry_after(0, Some(Duration::from_hours(2))), Duration::from_hours(2));
        assert_eq!(retry_after(0, Some(Duration::MAX)), LONGEST_REST);
        assert!(retry_after(11, Some(Duration::from_secs(1))) >= Duration::from_hours(5));
    }
}
