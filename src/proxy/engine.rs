//! The proxy itself: attempts until an upstream answers, then the answer on its way to the client.

use std::time::{Duration, Instant};

use http::Method;
use ipnet::IpNet;

use super::attempt::Plan;
use super::body::read_ahead;
use super::by_model;
use super::event_stream::StreamRules;
use super::passive::Passive;
use super::policy::Policy;
use super::retry::{Again, RetryRules};
use super::upstream::Upstream;
use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::headers::CompiledHeaderOps;
use crate::http::matcher::Verdict;
use crate::http::response_handler::ResponseHandler;
use crate::http::response_matcher::CompiledResponseMatcher;
use crate::http::rewrite::Rewrite;

pub(super) const ORIGIN: &str = "reverse_proxy";

/// One `reverse_proxy`, compiled. Immutable; what changes lives in the upstreams' states.
pub struct Engine {
    pub upstreams: Box<[Upstream]>,
    pub policy: Policy,
    pub retry: RetryRules,
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
        plan.model = by_model::settle(&self.upstreams, ex).await?;
        let mut body = if plan.keeps_body { Body::Empty } else { ex.body.take() };
        if let Some(buffer) = self.request_buffer {
            body = read_ahead(body, buffer.limit()).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        let mut retried = 0;
        loop {
            let failed = match self.attempt(&self.upstreams, ex, &plan, body).await {
                Ok(answered) => {
                    if let Some(facts) = &mut ex.upstream {
                        facts.retries = retried;
                        facts.duration = Some(started.elapsed());
                    }
                    return self.answer(ex, &plan, answered).await;
                }
                Err(failed) => failed,
            };
            let again = match self.retry.decide(&failed.error, retried, started.elapsed()) {
                Again::No => false,
                Again::Yes => true,
                Again::IfAllowed => self.may_repeat(ex, &plan)?,
            };
            let (Some(again_body), true) = (failed.body, again) else {
                if let Some(facts) = &mut ex.upstream {
                    facts.retries = retried;
                    facts.transport_error = true;
                    facts.duration = Some(started.elapsed());
                }
                return Err(HandlerError::from_proxy(ORIGIN, failed.error));
            };
            body = again_body;
            retried += 1;
            if !self.retry.try_interval.is_zero() {
                tokio::time::sleep(self.retry.try_interval).await;
            }
        }
    }

    /// Whether a request that an upstream may have seen is sent again.
    fn may_repeat(&self, ex: &mut Exchange, plan: &Plan) -> Result<bool, HandlerError> {
        match &self.retry.matchers {
            None => Ok(plan.method == Method::GET),
            Some(matchers) => match matchers.matches(ex) {
                Verdict::Yes => Ok(true),
                // A body that was not held for a matcher is on its way already.
                Verdict::No | Verdict::NeedBody(_) => Ok(false),
                Verdict::Error(error) => Err(error),
            },
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
