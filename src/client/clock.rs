//! The timeouts of an exchange: until the response head is there, and between two pieces of its body.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::fault;
use super::target::{Target, Timeouts};
use super::ticker::Deadline;
use crate::base::error::ProxyError;

/// Runs until the response head is there.
pub(super) struct HeadClock {
    limits: Option<Limits>,
    deadline: Deadline,
    sent_at: Option<Instant>,
    blocked_at: Option<(Instant, u64)>,
}

#[derive(Copy, Clone)]
struct Limits {
    answer: Option<Duration>,
    write: Option<Duration>,
}

impl HeadClock {
    pub fn new(timeouts: &Timeouts) -> Self {
        let answer = match (timeouts.response_header, timeouts.read) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let limits = Limits { answer, write: timeouts.write };
        Self {
            limits: (answer.is_some() || limits.write.is_some()).then_some(limits),
            deadline: Deadline::default(),
            sent_at: None,
            blocked_at: None,
        }
    }

    /// Ready with what took too long. `sent`: the whole request is written; `stalled`: how much was written when the
    /// socket was found full.
    pub fn poll(&mut self, cx: &mut Context<'_>, sent: bool, stalled: Option<u64>) -> Poll<&'static str> {
        let Some(limits) = self.limits else { return Poll::Pending };
        let (limit, since, what) = if let Some(written) = stalled {
            let since = match self.blocked_at {
                Some((since, then)) if then == written => since,
                _ => Instant::now(),
            };
            self.blocked_at = Some((since, written));
            (limits.write, since, "writing the request stalled")
        } else if sent {
            (limits.answer, *self.sent_at.get_or_insert_with(Instant::now), "no response in time")
        } else {
            (None, Instant::now(), "")
        };
        match limit {
            Some(limit) => self.deadline.set_after(since, limit),
            None => self.deadline.clear(),
        }
        self.deadline.poll(cx).map(|()| what)
    }
}

/// Runs while a response body is silent.
pub(super) struct BodyClock {
    limit: Option<Duration>,
    deadline: Deadline,
    label: Arc<str>,
}

impl BodyClock {
    pub fn new(target: &Target) -> Self {
        Self { limit: target.options.timeouts.read, deadline: Deadline::default(), label: Arc::clone(&target.label) }
    }

    /// The target's name, for errors.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A piece came.
    pub fn heard(&mut self) {
        self.deadline.clear();
    }

    /// To be polled while there is none; ready with the error after too long.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if !self.deadline.is_set() {
            self.deadline.set_after(Instant::now(), limit);
        }
        ready!(self.deadline.poll(cx));
        self.deadline.clear();
        Poll::Ready(fault::read_timeout(&self.label))
    }
}
