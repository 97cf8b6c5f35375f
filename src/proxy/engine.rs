//! The proxy itself: attempts until an upstream answers, then the answer on its way to the client.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::again::Past;
use super::attempt::{Answered, Failed, Plan};
use super::by_model;
use super::cooldown::Cooldown;
use super::dynamic::Dynamic;
use super::event_stream::StreamRules;
use super::passive::Passive;
use super::policy::Policy;
use super::replay::{DEFAULT_KEEP, RequestBody};
use super::retry::RetryRules;
use super::tried::Outlook;
use super::upstream::Upstream;
use crate::base::body::Body;
use crate::base::error::Kind;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::headers::CompiledHeaderOps;
use crate::http::metering;
use crate::http::read_ahead::read_ahead;
use crate::http::response_handler::ResponseHandler;
use crate::http::response_matcher::CompiledResponseMatcher;
use crate::http::rewrite::Rewrite;

pub(super) const ORIGIN: &str = "reverse_proxy";

/// One `reverse_proxy`, compiled. Immutable; what changes lives in the upstreams' states.
pub struct Engine {
    pub upstreams: Box<[Upstream]>,
    /// Upstreams that are looked up; the others then serve while there is no answer.
    pub dynamic: Option<Dynamic>,
    pub policy: Policy,
    pub retry: RetryRules,
    /// `None` = what upstreams say of waiting is for the client alone.
    pub cooldown: Option<Cooldown>,
    pub passive: Option<Passive>,
    /// Method and URI for the upstream alone.
    pub rewrite: Option<Rewrite>,
    /// Operations on a copy of the request's headers, anew for every attempt.
    pub header_up: Option<CompiledHeaderOps>,
    /// Operations on the response, for all or for those that match.
    pub header_down: Option<(CompiledHeaderOps, Option<CompiledResponseMatcher>)>,
    /// Peers whose forwarding headers are believed, beside the server's own list.
    pub trusted_proxies: Box<[IpNet]>,
    /// Ask for gzip where the client says nothing, and undo it.
    pub compression: bool,
    pub request_buffer: Option<Buffer>,
    pub response_buffer: Option<Buffer>,
    pub handle_response: Box<[ResponseHandler]>,
    /// What is said within streams of LLM APIs.
    pub stream_rules: StreamRules,
    /// Longest life of an upgraded connection.
    pub stream_timeout: Option<Duration>,
}

/// How much of a body is read before it is passed on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Buffer {
    All,
    Bytes(u64),
}

impl Buffer {
    pub(super) fn limit(self) -> Option<u64> {
        match self {
            Self::All => None,
            Self::Bytes(n) => Some(n),
        }
    }
}

impl AsyncHandler for Engine {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            match self.proxy(ex).await {
                Ok(flow) => flow,
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

impl Engine {
    async fn proxy(&self, ex: &mut Exchange) -> Result<Flow, HandlerError> {
        let started = Instant::now();
        let mut plan = self.plan(ex)?;
        let mut upstreams = self.listed(ex, false).await;
        plan.model = by_model::settle(&upstreams, ex).await?;
        if ex.meter.is_some() {
            metering::prepare(ex, &plan.method, &plan.uri).await?;
        }
        let mut body = if plan.keeps_body { Body::Empty } else { take_body(ex)? };
        if let Some(buffer) = self.request_buffer {
            body = read_ahead(body, buffer.limit()).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        let mut body = RequestBody::new(body, self.keeps(&plan));
        let mut past = Past::begin(started);
        if let Some(sticky) = self.policy.sticky() {
            past.prompt = sticky.key(ex, &mut body).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        // For what `handle_response` routes may send the request to.
        if !self.handle_response.is_empty()
            && !plan.keeps_body
            && let Some(spare) = body.spare()
        {
            give_body_back(ex, spare);
        }
        loop {
            let Some(sending) = body.next() else {
                return Err(HandlerError::internal(ORIGIN, "the request body is gone"));
            };
            match self.attempt(&upstreams, ex, &plan, &past, sending).await {
                Ok(answered) => {
                    self.heard(ex, &answered);
                    let status = answered.sent.response.status();
                    if let Some(final_answer) = self.consider(ex, &upstreams, &plan, answered, &body, &mut past).await?
                    {
                        body.settle();
                        return self.deliver(ex, &plan, final_answer, &past).await;
                    }
                    if let Some(meter) = &mut ex.meter {
                        meter.answered(status.as_u16());
                    }
                }
                Err(Failed { error, unsent, upstream }) => {
                    if let Some(unsent) = unsent {
                        body.give_back(unsent);
                    }
                    if let Some(upstream) = upstream {
                        past.tried.add(&upstream, Outlook::MayRecover);
                    }
                    // Where no upstream is left, what one has answered stands.
                    let over = error.kind == Kind::NoUpstream && past.has_answer();
                    if over || !body.can_repeat() || !self.goes_on(ex, &plan, &past, &error)? {
                        // Error routes may send it elsewhere.
                        if !plan.keeps_body
                            && let Some(whole) = body.next()
                        {
                            give_body_back(ex, whole);
                        }
                        body.settle();
                        if let Some(answered) = past.take_answer(ex) {
                            return self.deliver(ex, &plan, answered, &past).await;
                        }
                        if let Some(facts) = &mut ex.upstream {
                            facts.retries = past.retried;
                            facts.transport_error = true;
                            facts.duration = Some(started.elapsed());
                        }
                        return Err(HandlerError::from_proxy(ORIGIN, error));
                    }
                }
            }
            past.retried += 1;
            if !self.retry.try_interval.is_zero() {
                tokio::time::sleep(self.retry.try_interval).await;
            }
            if self.dynamic.is_some() {
                // Who answers to the name may have changed since.
                upstreams = self.listed(ex, true).await;
            }
        }
    }

    async fn deliver(
        &self,
        ex: &mut Exchange,
        plan: &Plan,
        answered: Answered,
        past: &Past,
    ) -> Result<Flow, HandlerError> {
        if let Some(facts) = &mut ex.upstream {
            facts.retries = past.retried;
            facts.duration = Some(past.started.elapsed());
        }
        self.answer(ex, plan, answered).await
    }

    /// Bytes of a streaming body that are kept for other attempts.
    fn keeps(&self, plan: &Plan) -> usize {
        if !self.retry.may_repeat(&plan.method) {
            return 0;
        }
        match self.request_buffer {
            Some(Buffer::Bytes(n)) => usize::try_from(n).unwrap_or(usize::MAX).max(DEFAULT_KEEP),
            _ => DEFAULT_KEEP,
        }
    }
}

/// The request's body, or the one that was put in its place. Without the one that an earlier proxy has sent it would be
/// another request.
fn take_body(ex: &mut Exchange) -> Result<Body, HandlerError> {
    if ex.body_spent && ex.body.is_empty() {
        return Err(HandlerError::new(502, ORIGIN, "the body of the request went to an earlier upstream"));
    }
    ex.body_spent = !ex.body.is_empty();
    Ok(ex.body.take())
}

fn give_body_back(ex: &mut Exchange, body: Body) {
    ex.body = body;
    ex.body_spent = false;
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
