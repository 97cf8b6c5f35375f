//! The timeouts that run until the response head is there.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::target::Timeouts;
use crate::client::ticker::Deadline;

pub struct HeadClock {
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
