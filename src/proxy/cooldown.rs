//! Cooldown: an upstream that says when it wants to be asked again is left alone until then.
//!
//! Providers limit an account or a key, and say so: `429` (or `503`, `529`) with `Retry-After` or `retry-after-ms`. Until
//! that time others are asked. Where all are in cooldown the one that is free soonest is asked, so that the caller gets
//! the provider's own answer: a limit often holds for one model only, and a request for another one passes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::uptime::millis;

/// How long an upstream is believed at most, unless something else is said.
pub const DEFAULT_LONGEST: Duration = Duration::from_mins(10);

/// How long a key is left alone whose account has no money left: nobody says when it has some again.
const NO_QUOTA: Duration = Duration::from_mins(1);

/// The rule of one handler.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cooldown {
    /// No upstream is left alone for longer, whatever it says.
    pub longest: Duration,
}

impl Cooldown {
    /// For how long this answer wants its upstream left alone.
    pub(super) fn asked_by(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        no_quota: bool,
        now: SystemTime,
    ) -> Option<Duration> {
        if !matches!(status.as_u16(), 429 | 503 | 529) {
            return None;
        }
        let asked = wait(headers, now);
        let asked = if no_quota { Some(asked.unwrap_or_default().max(NO_QUOTA)) } else { asked };
        asked.filter(|wait| !wait.is_zero()).map(|wait| wait.min(self.longest))
    }
}

/// `retry-after-ms` (OpenAI, Azure), else `Retry-After` as seconds, perhaps with a fraction, or as a date (RFC 9110
/// section 10.2.3).
fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    if let Some(ms) = text("retry-after-ms").and_then(number) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let after = text(header::RETRY_AFTER.as_str())?;
    match number(after) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => httpdate::parse_http_date(after).ok()?.duration_since(now).ok(),
    }
}

/// Until when an upstream is left alone: milliseconds of `millis`, 0 = it is not. Asked on every request.
#[derive(Debug, Default)]
pub struct Cooling(AtomicU64);

impl Cooling {
    /// The later end of two cooldowns counts.
    pub fn start(&self, now: Instant, wait: Duration) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_max(millis(now).saturating_add(wait), Ordering::Relaxed);
    }

    /// How long it lasts from `now`; `None` when the upstream may be asked.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.0.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        until.checked_sub(millis(now)).filter(|left| *left > 0).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked(status: u16, lines: &[(&'static str, &str)]) -> Option<Duration> {
        let headers = lines.iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_str(v).unwrap())).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let rule = Cooldown { longest: Duration::from_mins(10) };
        rule.asked_by(StatusCode::from_u16(status).unwrap(), &headers, false, now)
    }

    #[test]
    fn an_upstream_says_how_long() {
        let seconds = |n: u64| Some(Duration::from_secs(n));
        assert_eq!(asked(429, &[("retry-after", "20")]), seconds(20));
        assert_eq!(asked(503, &[("retry-after", " 1.5 ")]), Some(Duration::from_millis(1500)));
        assert_eq!(asked(529, &[("retry-after", "9"), ("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        // Sun, 06 Nov 1994 08:49:37 GMT is the moment that is now.
        assert_eq!(asked(429, &[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]), seconds(60));
        assert_eq!(asked(429, &[("retry-after", "86400")]), seconds(600));
        assert_eq!(asked(429, &[("retry-after-ms", "x"), ("retry-after", "3")]), seconds(3));
    }

    #[test]
    fn what_says_nothing_is_not_believed() {
        for value in ["", "0", "-5", "nan", "inf", "1e400", "soon", "Sun, 06 Nov 1994 08:40:00 GMT"] {
            assert_eq!(asked(429, &[("retry-after", value)]), None, "{value}");
        }
        assert_eq!(asked(429, &[]), None);
        for status in [200, 500, 502, 504] {
            assert_eq!(asked(status, &[("retry-after", "20")]), None, "{status}");
        }
        let rule = Cooldown { longest: Duration::from_secs(30) };
        let none = HeaderMap::new();
        let asked = rule.asked_by(StatusCode::TOO_MANY_REQUESTS, &none, true, SystemTime::UNIX_EPOCH);
        assert_eq!(asked, Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_cooldown_ends_and_the_longer_one_counts() {
        let cooling = Cooling::default();
        let now = Instant::now() + Duration::from_secs(1);
        assert_eq!(cooling.left(now), None);
        cooling.start(now, Duration::from_secs(5));
        cooling.start(now, Duration::from_secs(2));
        assert_eq!(cooling.left(now + Duration::from_secs(3)), Some(Duration::from_secs(2)));
        assert_eq!(cooling.left(now + Duration::from_secs(5)), None);
        cooling.start(now + Duration::from_secs(6), Duration::from_secs(1));
        assert!(cooling.left(now + Duration::from_millis(6500)).is_some());
    }
}
