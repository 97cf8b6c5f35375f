//! What has happened with an upstream since the program started: for people and metrics, never for decisions.
//! Relaxed atomics in the upstream's state, so that counting costs a few nanoseconds a request.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::base::error::Kind;

/// One counter of failures for each way to fail that a person would tell apart.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    connect: AtomicU64,
    tls: AtomicU64,
    timeout: AtomicU64,
    broken: AtomicU64,
    rate_limited: AtomicU64,
    server_error: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Attempts to send a request there.
    pub requests: u64,
    /// Those that followed a failed attempt for the same request, there or elsewhere.
    pub retries: u64,
    pub failures: Failures,
}

/// Attempts without an answer, or with one that says no, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Not resolved, refused, not connected in time.
    pub connect: u64,
    pub tls: u64,
    /// Connected, but no answer in time.
    pub timeout: u64,
    /// Closed, reset, or not HTTP.
    pub broken: u64,
    /// Answered 429.
    pub rate_limited: u64,
    /// Answered with a status of 500 or above.
    pub server_error: u64,
}

impl Counters {
    /// Counts an attempt.
    pub fn sent(&self, again: bool) {
        add(&self.requests);
        if again {
            add(&self.retries);
        }
    }

    /// Counts an attempt without an answer; what the client broke is not the upstream's failure.
    pub fn failed(&self, kind: Kind) {
        match kind {
            Kind::ConnectFailed | Kind::ConnectTimeout => add(&self.connect),
            Kind::TlsFailed => add(&self.tls),
            Kind::ResponseTimeout | Kind::ReadTimeout => add(&self.timeout),
            Kind::UpstreamClosed | Kind::UpstreamProtocol | Kind::UpstreamBody => add(&self.broken),
            Kind::NoUpstream | Kind::ClientGone | Kind::ClientBody | Kind::BodyTooLarge | Kind::Internal => {}
        }
    }

    /// Counts an answer, where it is one that says no.
    pub fn answered(&self, status: u16) {
        match status {
            429 => add(&self.rate_limited),
            500.. => add(&self.server_error),
            _ => {}
        }
    }

    #[must_use]
    pub fn read(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: get(&self.requests),
            retries: get(&self.retries),
            failures: Failures {
                connect: get(&self.connect),
                tls: get(&self.tls),
                timeout: get(&self.timeout),
                broken: get(&self.broken),
                rate_limited: get(&self.rate_limited),
                server_error: get(&self.server_error),
            },
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_broke_is_no_failure_of_the_upstream() {
        let counters = Counters::default();
        counters.sent(false);
        counters.sent(true);
        for kind in [Kind::ClientGone, Kind::ClientBody, Kind::NoUpstream, Kind::Internal] {
            counters.failed(kind);
        }
        assert_eq!(counters.read(), Counts { requests: 2, retries: 1, failures: Failures::default() });
        counters.failed(Kind::ConnectTimeout);
        counters.failed(Kind::UpstreamClosed);
        for status in [200, 101, 404, 429, 500, 529] {
            counters.answered(status);
        }
        let failures = Failures { connect: 1, broken: 1, rate_limited: 1, server_error: 2, ..Failures::default() };
        assert_eq!(counters.read().failures, failures);
    }
}
