//! A call on its way: what is known before the answer, what becomes of attempts that fail, and how each is told once.
//!
//! The proxy says what happens by [`prepare`], [`Meter::sends`], [`Meter::failed`] and [`follow`](super::follow::follow). A meter that
//! is dropped in between tells it all the same: the client has left while the model was thinking, which is paid for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Uri};

use super::{Call, Meter, forecast, labels};
use crate::base::body::Body;
use crate::base::error::{ProxyError, Retry};
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::llm::dialect::Dialect;
use crate::llm::price::{Nano, Service, Terms};
use crate::llm::usage::{Answer, Certainty, Endpoint, Prompt, Tokens, request, tokenizer};
use crate::telemetry::encoder::now;

/// Bodies up to this size are kept whole until the call has ended, and looked at only when they must be.
const KEPT_WHOLE: usize = 16 << 10;

/// What is known of a request's calls before they are made.
pub(super) struct Facts {
    pub endpoint: Endpoint,
    /// Only a call if the answer tells counts: the path is of no API that is known.
    only_if_told: bool,
    /// When the request came.
    unix_ms: i64,
    request_id: String,
    user: Option<String>,
    labels: Vec<(String, String)>,
    model: Option<Rc<str>>,
    route: String,
    asked: Asked,
}

/// What the model was given to read.
enum Asked {
    Body(Bytes),
    Read(Prompt),
    /// Bytes of a body that is not read.
    Unread(u64),
}

/// One attempt of a call.
pub(super) struct Attempt {
    upstream: Arc<str>,
    began: Instant,
    retries: u32,
    /// The status it ended with, where it did without an answer that is paid for.
    ended: Option<u16>,
}

/// How a call ended.
pub(super) struct Ended<'a> {
    pub status: u16,
    /// `None` = there was none, or none that is read.
    pub answer: Option<&'a Answer>,
    pub stream: bool,
    /// The answer came to its end.
    pub complete: bool,
    pub first_byte: Option<Duration>,
}

/// Gets ready to count the calls of this request: holds and looks at its body where that is needed. `method` and `uri` are
/// what upstreams will be asked for.
///
/// # Errors
/// As [`hold_body`](crate::http::hold::hold_body).
pub async fn prepare(ex: &mut Exchange, method: &Method, uri: &Uri) -> Result<(), HandlerError> {
    let Some(meter) = &ex.meter else { return Ok(()) };
    let endpoint = Endpoint::of_path(uri.path());
    let unknown = endpoint == Endpoint::Other && Dialect::of_path(uri.path()).is_none();
    if meter.is_idle() || *method != Method::POST || !endpoint.is_metered() && !unknown {
        if let Some(meter) = &mut ex.meter {
            meter.facts = None;
        }
        return Ok(());
    }
    // A body that is known to be too large to be looked at passes as it would without.
    if http_body::Body::size_hint(&ex.body).lower() <= DEFAULT_LIMIT as u64 {
        forecast::hold(ex, endpoint).await?;
    }
    // What is wrong with a model's name is for others to refuse.
    let model = match ex.requested_model(DEFAULT_LIMIT) {
        ModelOf::Named(model) => Some(model),
        _ => None,
    };
    let asked = asked(ex, endpoint);
    let user = ex.user.as_ref().map(|user| user.id.clone());
    let labels = labels::labels(ex);
    let route = match &ex.meter {
        Some(meter) if !meter.route.is_empty() => meter.route.clone(),
        _ => ex.host().to_owned(),
    };
    let request_id = ex.request_id().to_owned();
    let elapsed = i64::try_from(ex.started.elapsed().as_millis()).unwrap_or(0);
    let unix_ms = now() / 1_000_000 - elapsed;
    let facts = Facts { endpoint, only_if_told: unknown, unix_ms, request_id, user, labels, model, route, asked };
    if let Some(meter) = &mut ex.meter {
        meter.facts = Some(Box::new(facts));
    }
    Ok(())
}

fn asked(ex: &mut Exchange, endpoint: Endpoint) -> Asked {
    if !ex.may_tell_in_json() {
        return Asked::Unread(http_body::Body::size_hint(&ex.body).lower());
    }
    match &ex.body {
        Body::Full(body) => {
            if let Some(kept) = ex.meter.as_mut().and_then(|meter| meter.forecast.take_if(|kept| kept.is_of(body))) {
                return Asked::Read(kept.prompt);
            }
            if body.len() <= KEPT_WHOLE { Asked::Body(body.clone()) } else { Asked::Read(Prompt::read(body, endpoint)) }
        }
        body => Asked::Unread(http_body::Body::size_hint(body).lower()),
    }
}

impl Facts {
    /// Tokens of the prompt, as near as can be told.
    fn input(&self) -> u64 {
        match &self.asked {
            Asked::Body(body) => Prompt::read(body, self.endpoint).tokens(),
            Asked::Read(prompt) => prompt.tokens(),
            // Files and forms: nobody knows without reading them.
            Asked::Unread(_) if !matches!(self.endpoint, Endpoint::Chat | Endpoint::Messages) => 0,
            Asked::Unread(bytes) => bytes / 4,
        }
    }
}

impl Meter {
    /// Whether the calls of this request are counted: their answers must be readable.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.facts.is_some()
    }

    /// The body for an upstream that can be asked for the counts of its stream, where the client does not ask.
    pub fn ask_for_usage(&mut self, body: &Body) -> Option<Body> {
        let facts = self.facts.as_ref()?;
        let known = matches!(facts.endpoint, Endpoint::Chat | Endpoint::Completions);
        let Body::Full(bytes) = body else { return None };
        if !self.include_usage || !known {
            return None;
        }
        let edited = request::with_usage(bytes)?;
        self.asked_for_usage = true;
        Some(Body::Full(edited.into()))
    }

    /// The request goes to an upstream now; `retries` have gone before.
    pub fn sends(&mut self, upstream: Arc<str>, retries: u32) {
        self.retire();
        if self.facts.is_some() {
            self.attempt = Some(Attempt { upstream, began: Instant::now(), retries, ended: None });
        }
    }

    /// This upstream's answer is the one: of the latest attempt, or one that was put aside while others were tried.
    pub fn answers(&mut self, upstream: &Arc<str>, retries: u32) {
        if self.attempt.as_ref().is_none_or(|attempt| attempt.ended.is_some()) {
            self.sends(Arc::clone(upstream), retries);
        }
    }

    /// It gave no answer.
    pub fn failed(&mut self, error: &ProxyError) {
        if error.retry == Retry::Safe {
            self.attempt = None;
        } else if let Some(attempt) = &mut self.attempt {
            attempt.ended = Some(error.status());
        }
    }

    /// It answered in a way that is followed by another attempt.
    pub fn answered(&mut self, status: u16) {
        match &mut self.attempt {
            Some(attempt) if status < 400 => attempt.ended = Some(status),
            attempt => *attempt = None,
        }
    }

    /// Tells of an attempt that gave nothing and may be paid for all the same, before another takes its place.
    pub(super) fn retire(&mut self) {
        let Some(attempt) = self.attempt.take_if(|attempt| attempt.ended.is_some()) else { return };
        let status = attempt.ended.unwrap_or(499);
        self.attempt = Some(attempt);
        let ended = Ended { status, answer: None, stream: false, complete: false, first_byte: None };
        let Some(mut call) = self.call(&ended) else { return };
        for reservation in &mut self.reservations {
            reservation.spent(&mut call);
        }
        self.record(&call);
    }

    /// The one call that all is settled by.
    pub(super) fn settle(&mut self, ended: &Ended<'_>) {
        let Some(mut call) = self.call(ended) else { return self.release() };
        for reservation in std::mem::take(&mut self.reservations) {
            reservation.settle(&mut call);
        }
        self.record(&call);
    }

    /// The upstream refused the call, or it was another answer that nobody pays for.
    pub(super) fn refused(&mut self, status: u16) {
        self.release();
        let Some((attempt, facts)) = self.attempt.take().zip(self.facts.as_deref()) else { return };
        if facts.only_if_told {
            return;
        }
        let call = Call { status, cost: Some(Nano(0)), ..blank(facts, &attempt) };
        self.record(&call);
    }

    fn release(&mut self) {
        for reservation in self.reservations.drain(..) {
            reservation.release();
        }
    }

    /// The call that has ended; `None` when there was none.
    fn call(&mut self, ended: &Ended<'_>) -> Option<Call> {
        let attempt = self.attempt.take()?;
        let facts = self.facts.as_deref()?;
        let told = ended.answer.map(Answer::told).unwrap_or_default();
        let is_told = told.output.is_some() || !facts.endpoint.generates() && told.input.is_some();
        if facts.only_if_told && !is_told {
            return None;
        }
        let over = ended.complete || ended.answer.is_some_and(Answer::is_finished);
        let mut tokens = told.tokens;
        let mut certainty = if over { Certainty::Exact } else { Certainty::Aborted };
        let mut estimate = |place: &mut u64, count: &dyn Fn() -> u64| {
            count_exactly_from_now_on();
            *place = (*place).max(count());
            if over {
                certainty = Certainty::Estimated;
            }
        };
        if told.input.is_none() && !facts.only_if_told {
            estimate(&mut tokens.input, &|| facts.input());
        }
        if facts.endpoint.generates() && (told.output.is_none() || !over) {
            tokens.output = tokens.output.max(told.output_so_far);
            if let Some(answer) = ended.answer {
                estimate(&mut tokens.output, &|| answer.text().tokens());
            }
        }
        let mut call = Call {
            status: ended.status,
            stream: ended.stream,
            tokens,
            certainty,
            served: ended.answer.and_then(Answer::model).map(str::to_owned),
            service_tier: ended.answer.and_then(Answer::service_tier).map(str::to_owned),
            first_byte: ended.first_byte,
            ..blank(facts, &attempt)
        };
        call.cost = self.cost(&call);
        Some(call)
    }

    /// By the name that was asked for, for which a file may set prices; else by the one that the answer tells.
    fn cost(&self, call: &Call) -> Option<Nano> {
        let terms = Terms { service: Service::named(call.service_tier.as_deref().unwrap_or_default()) };
        let cost = |model: &str| self.prices.cost(model, &call.tokens, terms);
        call.model.as_deref().and_then(cost).or_else(|| call.served.as_deref().and_then(cost))
    }

    /// A meter of the same people for further calls of the request, with nothing reserved.
    #[must_use]
    pub fn sibling(&self) -> Self {
        let mut other = Self::default();
        other.sinks.clone_from(&self.sinks);
        other.ledger.clone_from(&self.ledger);
        other.labels.clone_from(&self.labels);
        other.late_labels.clone_from(&self.late_labels);
        other.route.clone_from(&self.route);
        other.prices = Arc::clone(&self.prices);
        other.include_usage = self.include_usage;
        other
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let Some(attempt) = &self.attempt else { return self.release() };
        let status = attempt.ended.unwrap_or(499);
        self.settle(&Ended { status, answer: None, stream: false, complete: false, first_byte: None });
    }
}

/// A call of nothing.
fn blank(facts: &Facts, attempt: &Attempt) -> Call {
    Call {
        unix_ms: facts.unix_ms,
        request_id: facts.request_id.clone(),
        user: facts.user.clone(),
        labels: facts.labels.clone(),
        model: facts.model.clone(),
        served: None,
        endpoint: facts.endpoint,
        route: facts.route.clone(),
        upstream: Arc::clone(&attempt.upstream),
        status: 0,
        stream: false,
        tokens: Tokens::default(),
        certainty: Certainty::Exact,
        service_tier: None,
        cost: None,
        first_byte: None,
        duration: attempt.began.elapsed(),
        retries: attempt.retries,
        charges: Vec::new(),
    }
}

impl Attempt {
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Has the vocabulary loaded beside the requests; until it is there, counts are the quick ones. Most proxies never need it:
/// their upstreams tell.
fn count_exactly_from_now_on() {
    static ASKED: std::sync::Once = std::sync::Once::new();
    ASKED.call_once(|| {
        // Without a thread all counts stay quick ones.
        let _ = std::thread::Builder::new().name("vocabulary".into()).spawn(tokenizer::load);
    });
}
