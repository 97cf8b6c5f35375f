//! Counting the calls that are made to LLM APIs: what they took, of whom, and what they cost.
//!
//! A handler in front of a proxy asks for it by [`Exchange::meter`]: it adds a [`Sink`] that is told of every call, or a
//! [`Reservation`] of what the call may take. The proxy then reads the answer on its way, before anything translates it, and
//! tells each once when it has ended: reservations first, which may note a [`Charge`], then the sinks. A request
//! without a meter is not looked at.
//!
//! ```text
//! usage, budget, rate_limit ─▶ ex.meter() ─▶ proxy: the answer is read as it passes ─▶ Reservation::settle ─▶ Sink::record
//!            └── forecast(ex): what the call may take             │ refused, never made ─▶ Reservation::release
//! ```

mod follow;
mod forecast;
mod labels;
mod underway;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

#[cfg(doc)]
use super::exchange::Exchange;
use crate::llm::price::{Nano, Prices};
use crate::llm::usage::{Certainty, Endpoint, Tokens};

pub use follow::follow;
pub use forecast::{Forecast, forecast};
pub use labels::{Labels, labels};
pub use underway::prepare;

/// One call to an upstream that has ended, told once to everybody who counts.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the request came.
    pub unix_ms: i64,
    pub request_id: String,
    pub user: Option<String>,
    /// Team, app, tag and the like.
    pub labels: Vec<(String, String)>,
    /// The model that the upstream was asked for.
    pub model: Option<Rc<str>>,
    /// The model that the answer names.
    pub served: Option<String>,
    pub endpoint: Endpoint,
    pub route: String,
    /// `host:port`.
    pub upstream: Arc<str>,
    /// Of the upstream's answer; 499 when the client left before there was one, 502 to 504 when the upstream failed.
    pub status: u16,
    pub stream: bool,
    pub tokens: Tokens,
    pub certainty: Certainty,
    /// The class of service that the answer names (`flex`, `priority`, `batch`, …), where prices differ by it.
    pub service_tier: Option<String>,
    /// `None` when no price is known.
    pub cost: Option<Nano>,
    /// From sending the request to the first byte of the answer's body.
    pub first_byte: Option<Duration>,
    /// From sending the request to the end of the answer.
    pub duration: Duration,
    /// Attempts before this one.
    pub retries: u32,
    /// What each budget was charged; written together with the call.
    pub charges: Vec<Charge>,
}

/// What a budget was charged for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub budget: Arc<str>,
    pub key: String,
    /// How long the period is: `day`, `week`, `month` or `total`. A budget may have limits for several.
    pub per: &'static str,
    /// When the period began, unix seconds; 0 for `total`.
    pub period: i64,
    pub cost: Nano,
    pub tokens: u64,
    /// Per mille of the period's limit that were used before this call, and are now; of the limit that is nearest to
    /// its end.
    pub share: [u32; 2],
}

/// What was set aside for a call before it was made: by a limit on tokens, a budget.
pub trait Reservation {
    /// The call has ended and is paid for.
    fn settle(self: Box<Self>, call: &mut Call);

    /// The call was never made, or the upstream refused it and bills nothing.
    fn release(self: Box<Self>);

    /// A call was made under it and may be billed although it gave no answer, and another is tried: this one is to be charged
    /// beside the one that will settle.
    fn spent(&mut self, call: &mut Call) {
        let _ = call;
    }

    /// Asked while a stream runs, with the output tokens counted so far.
    fn running(&mut self, output_so_far: u64) -> Running {
        let _ = output_so_far;
        Running::GoOn
    }
}

/// Whether a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    GoOn,
    /// The stream is ended in its own words, as if the longest answer allowed were reached, and the upstream stopped.
    Cut,
}

/// Who is told of every call: the ledger, alerts, metrics. Must not wait.
pub trait Sink: Send + Sync {
    fn record(&self, call: &Call);
}

/// Who counts the calls of one request, and how. Dropped before a call was made, it releases what was reserved.
pub struct Meter {
    sinks: SmallVec<[Arc<dyn Sink>; 2]>,
    reservations: Vec<Box<dyn Reservation>>,
    /// Where calls are kept: told of them as a sink is. The latest handler that names one counts.
    pub ledger: Option<Arc<dyn Sink>>,
    /// Labels that are worked out when a call is made.
    pub late_labels: SmallVec<[Arc<Labels>; 1]>,
    /// Labels of the calls, beside what is known of the user; [`labels`] puts all together.
    pub labels: Vec<(String, String)>,
    /// Name of the route in records; the host when empty.
    pub route: String,
    /// Ask upstreams for counts where clients do not.
    pub include_usage: bool,
    /// What calls cost.
    pub prices: Arc<Prices>,
    forecast: Option<forecast::Kept>,
    /// Set once calls of this request are counted.
    facts: Option<Box<underway::Facts>>,
    /// The call under way.
    attempt: Option<underway::Attempt>,
    /// The stream's counts were asked for where the client did not: they are not for it.
    asked_for_usage: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            sinks: SmallVec::new(),
            reservations: Vec::new(),
            ledger: None,
            late_labels: SmallVec::new(),
            labels: Vec::new(),
            route: String::new(),
            include_usage: true,
            prices: Prices::embedded(),
            forecast: None,
            facts: None,
            attempt: None,
            asked_for_usage: false,
        }
    }
}

impl Meter {
    /// Tells `sink` of every call; once, however often it is added.
    pub fn tell(&mut self, sink: &Arc<dyn Sink>) {
        if !self.sinks.iter().any(|known| Arc::ptr_eq(known, sink)) {
            self.sinks.push(Arc::clone(sink));
        }
    }

    /// Tells everybody of a call that has ended and is settled, each once.
    pub fn record(&self, call: &Call) {
        for sink in &self.sinks {
            sink.record(call);
        }
        if let Some(ledger) = &self.ledger
            && !self.sinks.iter().any(|sink| Arc::ptr_eq(sink, ledger))
        {
            ledger.record(call);
        }
    }

    /// Whether nobody asks for the calls of this request.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sinks.is_empty() && self.reservations.is_empty() && self.ledger.is_none()
    }

    pub fn reserve(&mut self, reservation: Box<dyn Reservation>) {
        self.reservations.push(reservation);
    }

    /// What was set aside, for whoever makes the call: from here on it is theirs to settle or release.
    pub fn take_reservations(&mut self) -> Vec<Box<dyn Reservation>> {
        std::mem::take(&mut self.reservations)
    }

    /// Sets a label, the latest of a name wins.
    pub fn label(&mut self, name: &str, value: String) {
        match self.labels.iter_mut().find(|(known, _)| known == name) {
            Some(slot) => slot.1 = value,
            None => self.labels.push((name.to_owned(), value)),
        }
    }
}

#[cfg(test)]
mod tests;
