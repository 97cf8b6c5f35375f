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
        let Counts { requests, retries, failures } = self.counts;
        let mut out =
            format!("{} ({}) {state}: {requests} requests, {} under way", self.address, self.scheme, self.num_requests);
        for (count, what) in [
            (retries, "retries"),
            (failures.connect, "not connected"),
            (failures.tls, "without TLS"),
            (failures.timeout, "timed out"),
            (failures.broken, "broken off"),
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
                counts: host.counters.read(),
            }
        })
        .collect();
    all.sort_unstable_by(|a, b| (&a.address, &a.scheme).cmp(&(&b.address, &b.scheme)));
    all
}
