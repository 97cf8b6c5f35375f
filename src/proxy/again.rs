//! Whether a request goes on to another attempt: after a failure, and after an answer that says no.

use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode};

use super::attempt::{Answered, Plan};
use super::engine::Engine;
use super::quota;
use super::replay::RequestBody;
use super::retry::Again;
use super::tried::{Outlook, Tried};
use super::upstream::Upstream;
use crate::base::error::ProxyError;
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, UpstreamFacts};
use crate::http::matcher::{MatcherSets, Verdict};

/// What has happened to a request so far.
pub(super) struct Past {
    pub started: Instant,
    /// Attempts after the first.
    pub retried: u32,
    pub tried: Tried,
    /// The key of its prompt, where upstreams are chosen by it.
    pub prompt: Option<u64>,
    /// The latest answer, for the case that nothing better comes.
    aside: Option<(Answered, Option<Box<UpstreamFacts>>)>,
}

impl Past {
    pub fn begin(started: Instant) -> Self {
        Self { started, retried: 0, tried: Tried::default(), prompt: None, aside: None }
    }

    pub fn has_answer(&self) -> bool {
        self.aside.is_some()
    }

    /// The answer that was put aside, with what is known of its upstream.
    pub fn take_answer(&mut self, ex: &mut Exchange) -> Option<Answered> {
        let (answered, facts) = self.aside.take()?;
        ex.upstream = facts;
        Some(answered)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Engine {
    /// Whether another attempt follows one that gave no answer.
    pub(super) fn goes_on(
        &self,
        ex: &mut Exchange,
        plan: &Plan,
        past: &Past,
        error: &ProxyError,
    ) -> Result<bool, HandlerError> {
        match self.retry.decide(error, past.retried, past.elapsed()) {
            Again::No => Ok(false),
            Again::Yes => Ok(true),
            Again::IfAllowed => {
                if let Some(facts) = &mut ex.upstream {
                    facts.transport_error = true;
                }
                match (&self.retry.matchers, &self.retry.answer_matchers) {
                    (None, None) => Ok(plan.method == Method::GET),
                    (some, others) => Ok(allows(some.as_ref(), ex)? || allows(others.as_ref(), ex)?),
                }
            }
        }
    }

    /// The answer, when it is the one for the client; `None` when another attempt follows.
    pub(super) async fn consider(
        &self,
        ex: &mut Exchange,
        upstreams: &[Upstream],
        plan: &Plan,
        mut answered: Answered,
        body: &RequestBody,
        past: &mut Past,
    ) -> Result<Option<Answered>, HandlerError> {
        let status = answered.sent.response.status();
        if self.cooldown.is_none() && !self.retry.looks_at_answers() {
            return Ok(Some(answered));
        }
        let again = self.retry.tries_after(status) || self.matches_answer(ex, &answered)?;
        let no_quota = status == StatusCode::TOO_MANY_REQUESTS && {
            Self::unpack(ex, &mut answered);
            quota::is_spent(&mut answered.sent.response).await
        };
        if let Some(cooldown) = &self.cooldown {
            let headers = answered.sent.response.headers();
            if let Some(wait) = cooldown.asked_by(status, headers, no_quota, SystemTime::now()) {
                answered.in_flight.host().cooling.start(Instant::now(), wait);
            }
        }
        if !again || !body.can_repeat() || !self.retry.has_more(past.retried, past.elapsed()) {
            return Ok(Some(answered));
        }
        let for_good = no_quota || matches!(status.as_u16(), 401..=403);
        past.tried.add(answered.in_flight.host(), if for_good { Outlook::Hopeless } else { Outlook::MayRecover });
        if !self.has_another(upstreams, plan, past, Instant::now()) {
            return Ok(Some(answered));
        }
        // An answer that came before the request was read to its end dies with its request.
        if body.is_read() {
            Self::unpack(ex, &mut answered);
            past.aside = Some((answered, ex.upstream.take()));
        }
        Ok(None)
    }

    fn matches_answer(&self, ex: &mut Exchange, answered: &Answered) -> Result<bool, HandlerError> {
        let Some(matchers) = &self.retry.answer_matchers else { return Ok(false) };
        if let Some(facts) = &mut ex.upstream {
            facts.headers = Some(std::sync::Arc::new(answered.sent.response.headers().clone()));
        }
        let matched = allows(Some(matchers), ex);
        if let Some(facts) = &mut ex.upstream {
            facts.headers = None;
        }
        matched
    }
}

fn allows(matchers: Option<&MatcherSets>, ex: &mut Exchange) -> Result<bool, HandlerError> {
    match matchers.map(|m| m.matches(ex)) {
        Some(Verdict::Yes) => Ok(true),
        // A body that was not held for a matcher is on its way already.
        None | Some(Verdict::No | Verdict::NeedBody(_)) => Ok(false),
        Some(Verdict::Error(error)) => Err(error),
    }
}
