//! Whether an attempt is followed by another (Caddy's rules, and statuses of ours): a pure decision.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::base::error::{Kind, ProxyError, Retry};
use crate::http::matcher::MatcherSets;

#[derive(Default)]
pub struct RetryRules {
    /// Attempts after the first; 0 = no limit when there is a duration, else none.
    pub retries: u32,
    /// How long to go on trying; zero = not by time.
    pub try_duration: Duration,
    /// Pause between attempts.
    pub try_interval: Duration,
    /// Which requests may be sent again although an upstream may have seen them; `None` here and in
    /// `answer_matchers` = GET only.
    pub matchers: Option<MatcherSets>,
    /// The same, for answers too: what they match is tried again.
    pub answer_matchers: Option<MatcherSets>,
    /// Statuses after which a request of any method is tried again: the answer says that it was refused.
    pub statuses: Box<[u16]>,
    /// An upstream that failed a request is not chosen for it again while another is free.
    pub exclude_failed: bool,
}

/// What a failure means for another attempt.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Again {
    No,
    Yes,
    /// If the request is one that may be sent twice.
    IfAllowed,
}

impl RetryRules {
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.retries > 0 || !self.try_duration.is_zero()
    }

    /// Whether one more attempt is within the limits: `retried` counts the attempts after the first, `elapsed` the time
    /// since the first began.
    #[must_use]
    pub fn has_more(&self, retried: u32, elapsed: Duration) -> bool {
        self.enabled()
            && (self.try_duration.is_zero() || elapsed < self.try_duration)
            && (self.retries == 0 || retried < self.retries)
    }

    /// Whether a request that an upstream may have seen is ever sent again.
    #[must_use]
    pub fn may_repeat(&self, method: &Method) -> bool {
        self.enabled()
            && (*method == Method::GET
                || self.matchers.is_some()
                || self.answer_matchers.is_some()
                || !self.statuses.is_empty())
    }

    #[must_use]
    pub fn looks_at_answers(&self) -> bool {
        !self.statuses.is_empty() || self.answer_matchers.is_some()
    }

    #[must_use]
    pub fn tries_after(&self, status: StatusCode) -> bool {
        self.statuses.contains(&status.as_u16())
    }

    /// What an attempt without an answer means; see [`Self::has_more`] for the other arguments.
    #[must_use]
    pub fn decide(&self, error: &ProxyError, retried: u32, elapsed: Duration) -> Again {
        if !self.has_more(retried, elapsed) {
            return Again::No;
        }
        match (error.kind, error.retry) {
            // What the client did wrong stays wrong with another upstream.
            (Kind::ClientGone | Kind::ClientBody | Kind::BodyTooLarge | Kind::Internal, _) => Again::No,
            (Kind::NoUpstream, _) | (_, Retry::Safe) => Again::Yes,
            _ => Again::IfAllowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(retries: u32, seconds: u64) -> RetryRules {
        RetryRules { retries, try_duration: Duration::from_secs(seconds), ..RetryRules::default() }
    }

    fn error(kind: Kind, retry: Retry) -> ProxyError {
        ProxyError::new(kind, retry, "")
    }

    #[test]
    fn without_rules_nothing_is_tried_again() {
        let e = error(Kind::ConnectFailed, Retry::Safe);
        assert_eq!(rules(0, 0).decide(&e, 0, Duration::ZERO), Again::No);
    }

    #[test]
    fn the_limits_of_count_and_time_both_hold() {
        let e = error(Kind::ConnectFailed, Retry::Safe);
        assert_eq!(rules(2, 0).decide(&e, 1, Duration::from_secs(99)), Again::Yes);
        assert_eq!(rules(2, 0).decide(&e, 2, Duration::ZERO), Again::No);
        assert_eq!(rules(0, 1).decide(&e, 99, Duration::from_millis(999)), Again::Yes);
        assert_eq!(rules(0, 1).decide(&e, 0, Duration::from_secs(1)), Again::No);
        assert_eq!(rules(1, 1).decide(&e, 1, Duration::ZERO), Again::No);
    }

    #[test]
    fn what_an_upstream_may_have_seen_needs_permission() {
        let r = rules(9, 0);
        assert_eq!(r.decide(&error(Kind::UpstreamClosed, Retry::IfIdempotent), 0, Duration::ZERO), Again::IfAllowed);
        assert_eq!(r.decide(&error(Kind::NoUpstream, Retry::No), 0, Duration::ZERO), Again::Yes);
        assert_eq!(r.decide(&error(Kind::ClientGone, Retry::Safe), 0, Duration::ZERO), Again::No);
    }
}
