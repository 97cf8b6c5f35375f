//! How the upstreams stand: what the admin endpoint and `llmproxy status` tell.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::breaker::Standing;
use super::counters::Counts;
use super::state;

/// One upstream. The first three fields are Caddy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// As configured.
    pub address: String,
    /// Requests under way, streams included.
    pub num_requests: usize,
    /// Failures that `fail_duration` still counts.
    pub fails: usize,
    /// `http`, `https` or `h2c`.
    pub scheme: String,
    /// What the active checks say; true where there are none.
    pub healthy: bool,
    /// `closed`, `open` or `half_open`, where there is a circuit breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Standing>,
    /// Milliseconds for which it asked to be left alone (`Retry-After`), while that lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_ms: Option<u64>,
    /// Milliseconds to the head of its answers, a moving average, where a policy looks at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    #[serde(flatten)]
    pub counts: Counts,
}

impl UpstreamStatus {
    /// One line for a person.
    #[must_use]
    pub fn in_words(&self) -> String {
        use std::fmt::Write as _;
        let state = match (self.healthy, self.circuit) {
            (false, _) => "is down",
            (true, Some(Standing::Open)) => "is spared: its circuit is open",
            (true, Some(Standing::HalfOpen)) => "is being tried again: its circuit is half open",
            (true, _) => "is up",
        };
        let state = match self.cooldown_ms {
            Some(left) if self.healthy => format!("{state}, asks to be left alone for {} s", left.div_ceil(1000)),
            _ => state.to_owned(),
        };
        let Counts { requests, retries, failures } = self.counts;
        let mut out =
            format!("{} ({}) {state}: {requests} requests, {} under way", self.address, self.scheme, self.num_requests);
        for (count, what) in [
            (retries, "retries"),
            (failures.connect, "not connected"),
            (failures.tls, "without TLS"),
            (failures.timeout, "timed out"),
            (failures.broken, "broken off"),
            (failures.rate_limited, "answered 429"),
            (failures.server_error, "answered 5xx"),
        ] {
            if count > 0 {
                let _ = write!(out, ", {count} {what}");
            }
        }
        out
    }
}

/// Every upstream that a configuration in use knows, by address.
#[must_use]
pub fn all() -> Vec<UpstreamStatus> {
    let now = Instant::now();
    let mut all: Vec<UpstreamStatus> = state::hosts()
        .into_iter()
        .map(|(identity, host)| {
            let (scheme, rest) = identity.split_once("://").unwrap_or(("", &identity));
            // Behind it stands which account is used there.
            let address = rest.split_once('#').map_or(rest, |(address, _)| address);
            UpstreamStatus {
                address: address.to_owned(),
                num_requests: host.requests(),
                fails: host.fails(now),
                scheme: scheme.to_owned(),
                healthy: host.passes_checks(),
                circuit: host.circuit(now),
                cooldown_ms: host.cooling.left(now).and_then(|left| left.as_millis().try_into().ok()),
                latency_ms: host.ewma.average(now).map(rounded),
                counts: host.counters.read(),
            }
        })
        .collect();
    all.sort_unstable_by(|a, b| (&a.address, &a.scheme).cmp(&(&b.address, &b.scheme)));
    all
}

fn rounded(milliseconds: f32) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an average of durations")]
    let whole = milliseconds.round() as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::breaker::{Breaker, Settings};
    use crate::proxy::health::{ActiveHealth, Rules};
    use std::sync::Arc;
    use std::time::Duration;

    fn of(address: &str) -> UpstreamStatus {
        all().into_iter().find(|one| one.address == address).unwrap()
    }

    #[test]
    fn an_upstream_is_told_with_all_that_is_known() {
        let host = state::HostState::adopt("https://status.test:443#account");
        let _open = host.begin();
        host.counters.sent(true);
        host.counters.answered(429);
        let plain = of("status.test:443");
        assert_eq!((plain.scheme.as_str(), plain.num_requests, plain.healthy), ("https", 1, true));
        assert_eq!((plain.circuit, plain.cooldown_ms, plain.latency_ms), (None, None, None));
        assert_eq!(
            plain.in_words(),
            "status.test:443 (https) is up: 1 requests, 1 under way, 1 retries, 1 answered 429"
        );
        let check = ActiveHealth::adopt("status.test");
        host.tell_of_check(&check);
        let settings = Settings {
            failures: 1,
            ratio: 0.0,
            min_requests: 1,
            window: Duration::from_secs(1),
            open: Duration::from_secs(9),
            probes: 1,
            statuses: [].into(),
        };
        let breaker = Breaker::adopt("status.test", &Arc::new(settings));
        host.tell_of_circuit(breaker.circuit());
        let now = Instant::now();
        let _ = breaker.begin(now).ended(false, now);
        host.cooling.start(now, Duration::from_mins(1));
        host.ewma.observe(now, Duration::from_millis(80));
        let told = of("status.test:443");
        assert_eq!(told.circuit, Some(Standing::Open));
        assert!(told.cooldown_ms.is_some_and(|left| left > 50_000) && told.latency_ms.is_some_and(|ms| ms > 60));
        assert!(told.in_words().contains("is spared: its circuit is open, asks to be left alone for 60 s"));
        check.note(false, Rules { passes: 1, fails: 1 });
        assert!(of("status.test:443").in_words().starts_with("status.test:443 (https) is down:"));
        // A handler that is gone has no say any more.
        drop((check, breaker));
        let after = of("status.test:443");
        assert_eq!((after.healthy, after.circuit), (true, None));
    }

    #[test]
    fn the_first_fields_are_caddys() {
        let host = state::HostState::adopt("http://shape.test:80");
        let json = serde_json::to_string(&of("shape.test:80")).unwrap();
        assert!(json.starts_with(r#"{"address":"shape.test:80","num_requests":0,"fails":0,"#), "{json}");
        assert_eq!(serde_json::from_str::<UpstreamStatus>(&json).unwrap(), of("shape.test:80"));
        drop(host);
        assert!(!all().iter().any(|one| one.address == "shape.test:80"));
    }
}
