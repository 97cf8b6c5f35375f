//! Passive health: what answers, and failures to answer, say about an upstream.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::breaker::{Pass, Standing};
use super::state::HostState;
use super::upstream::Upstream;
use crate::base::error::{Kind, ProxyError};
use crate::http::response_matcher::status_matches;

/// When an upstream that answers, or fails to, is left alone for a while.
pub struct Passive {
    /// How long a failure counts; zero = failures are not counted.
    pub fail_duration: Duration,
    /// This many failures that count make it unavailable.
    pub max_fails: usize,
    /// Statuses that count as failures; a single digit stands for its class.
    pub statuses: Box<[u16]>,
    /// Answers that take this long count as failures.
    pub latency: Option<Duration>,
}

impl Upstream {
    /// Counts an attempt that gave no answer, whatever this handler makes of it.
    pub(super) fn failed(&self, error: &ProxyError, pass: Option<Pass>) {
        self.state.counters.failed(error.kind);
        // What the client broke says nothing of the upstream: the pass is dropped.
        if let Some(pass) = pass.filter(|_| is_upstreams(error)) {
            self.tell(pass.ended(false, Instant::now()));
        }
    }

    /// Counts an answer, and tells the circuit breaker of it.
    pub(super) fn answered(&self, status: StatusCode, pass: Option<Pass>) {
        self.state.counters.answered(status.as_u16());
        let (Some(pass), Some(breaker)) = (pass, &self.breaker) else { return };
        self.tell(pass.ended(!breaker.is_failure(status.as_u16()), Instant::now()));
    }

    fn tell(&self, changed: Option<Standing>) {
        match changed {
            Some(Standing::Open) => tracing::warn!(upstream = &*self.name, "circuit opened"),
            Some(Standing::Closed) => tracing::info!(upstream = &*self.name, "circuit closed"),
            Some(Standing::HalfOpen) | None => {}
        }
    }
}

/// Whether the upstream is to blame, not the client.
fn is_upstreams(error: &ProxyError) -> bool {
    !matches!(error.kind, Kind::ClientGone | Kind::ClientBody | Kind::BodyTooLarge)
}

impl Passive {
    /// Counts an attempt that gave no answer.
    pub(super) fn failed(&self, upstream: &HostState, error: &ProxyError) {
        if is_upstreams(error) {
            self.fail(upstream);
        }
    }

    fn fail(&self, upstream: &HostState) {
        if !self.fail_duration.is_zero() {
            upstream.fail(Instant::now(), self.fail_duration);
        }
    }

    /// Counts an answer that is a sign of illness.
    pub(super) fn judge(&self, upstream: &HostState, status: StatusCode, latency: Duration) {
        for _ in self.statuses.iter().filter(|s| status_matches(status.as_u16(), **s)) {
            self.fail(upstream);
        }
        if self.latency.is_some_and(|limit| latency >= limit) {
            self.fail(upstream);
        }
    }
}
