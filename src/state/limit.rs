//! What a zone may allow, what a request asks of it, and what it says.

use std::time::Duration;

use super::Answer;
use super::key::Key;
use super::moment::Moment;

/// What one key of a zone may do. Nothing is limited where a field is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nanoseconds that `events` and `tokens` count back.
    pub window: u64,
    /// Requests within the window.
    pub events: Option<u64>,
    /// Tokens within the window.
    pub tokens: Option<u64>,
    /// Requests that are open at a time.
    pub concurrent: Option<u32>,
    pub rate: Option<Rate>,
    /// Keys that are counted one by one; more share a count. See [`super::memory`].
    pub keys: u32,
}

/// So many requests, evenly spread (a leaky bucket, as nginx's `limit_req`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one request to the next.
    pub interval: u64,
    /// Requests that may come before their time.
    pub burst: u32,
    /// Of those, how many go on at once; the others wait for their time.
    pub at_once: u32,
}

/// What one request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// Tokens that it will take, as far as can be told. Counted before the call, [adjusted](Zone::adjust) after it.
    pub tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Admitted(Admission),
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// To be waited before the request goes on.
    pub delay: Duration,
    pub standing: Standing,
    pub ticket: Ticket,
}

/// Nothing has been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub limit: Limit,
    /// When the same request may be admitted if nothing else comes; `None` when that depends on others (open requests),
    /// or when it asks for more than is ever allowed.
    pub wait: Option<Duration>,
    /// It asks for more than the limit: waiting does not help.
    pub never: bool,
    pub standing: Standing,
}

/// The limit that refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Events,
    Tokens,
    Concurrent,
    Rate,
}

/// How much of each window is left, for the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    pub requests: Option<Left>,
    pub tokens: Option<Left>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub limit: u64,
    pub remaining: u64,
    /// Until the window is as if nothing had come.
    pub reset: Duration,
}

/// What an admitted request was counted as; given back with [`Zone::adjust`] and [`Zone::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub(super) key: Key,
    /// Under which moment its tokens stand.
    pub(super) at: Moment,
    pub(super) tokens: u64,
    /// Counted with those that found no place of their own.
    pub(super) shared: bool,
}

/// The counts of one zone. All operations are atomic for their key.
pub trait Zone: Send + Sync {
    /// Counts a request if every limit allows it, else counts nothing.
    fn admit(&self, key: Key, limits: &Limits, ask: Ask, now: Moment) -> Answer<Verdict>;

    /// Says how many tokens the call took in place of those that were asked for. Zero gives all of them back.
    fn adjust(&self, ticket: &Ticket, limits: &Limits, tokens: u64, now: Moment) -> Answer<()>;

    /// The request is no longer open. To be called once for each admission with `concurrent` set.
    fn release(&self, ticket: &Ticket, limits: &Limits, now: Moment) -> Answer<()>;
}
