//! What an upstream answered, on its way to the client.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, StatusCode, header};

use super::attempt::{Answered, Plan};
use super::body::Counted;
use super::engine::{Engine, ORIGIN};
use super::event_stream::StreamRules;
use super::{outgoing, upgrade};
use crate::base::body::Body;
use crate::client::Sent;
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, Response};
use crate::http::gunzip;
use crate::http::handler::Flow;
use crate::http::metering::{self, Meter};
use crate::http::read_ahead::read_ahead;
use crate::http::response_handler::{self, Reaction};

impl Engine {
    /// What an answer says about its upstream, whether or not the client gets it.
    pub(super) fn heard(&self, ex: &mut Exchange, answered: &Answered) {
        let (status, latency) = (answered.sent.response.status(), answered.sent.timings.first_byte);
        if let Some(passive) = &self.passive {
            passive.judge(answered.in_flight.host(), status, latency);
        }
        if self.policy.watches_latency() {
            let ewma = &answered.in_flight.host().ewma;
            match status.as_u16() {
                429 | 500.. => ewma.failed(Instant::now(), latency),
                _ => ewma.observe(Instant::now(), latency),
            }
        }
        if let Some(facts) = &mut ex.upstream {
            facts.latency = Some(latency);
            facts.status = Some(status.as_u16());
        }
    }

    /// Undoes gzip that was asked for on the client's behalf.
    pub(super) fn unpack(ex: &Exchange, answered: &mut Answered) {
        if std::mem::replace(&mut answered.unpacked, true) {
            return;
        }
        if answered.gunzip {
            gunzip::apply(&mut answered.sent.response);
        }
        if let Some(transcript) = &ex.transcript {
            transcript.came_down(&mut answered.sent.response, answered.gunzip);
        }
    }

    pub(super) async fn answer(
        &self,
        ex: &mut Exchange,
        plan: &Plan,
        mut answered: Answered,
    ) -> Result<Flow, HandlerError> {
        if answered.sent.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            answered.gunzip = false;
        }
        Self::unpack(ex, &mut answered);
        let Answered { sent, in_flight, set_cookie, .. } = answered;
        let Sent { mut response, upgraded, .. } = sent;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            upgrade::join(ex, response.headers(), upgraded, self.stream_timeout, in_flight)
                .map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
            return Ok(Flow::Respond(response));
        }
        // A whole body is as good as sent.
        if matches!(response.body(), Body::Stream(_)) {
            let inner = response.body_mut().take();
            *response.body_mut() = Body::stream(Counted::new(inner, in_flight));
        }
        if let Some(meter) = ex.meter.take() {
            self.count(meter, ex, plan, &mut response);
        }
        if let Some(buffer) = self.response_buffer {
            let body = response.body_mut().take();
            *response.body_mut() =
                read_ahead(body, buffer.limit()).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        let errors = self.stream_rules.errors && !ex.tells_broken_streams;
        StreamRules { errors, ..self.stream_rules }.follow(&mut response, plan.uri.path());
        match response_handler::react(&self.handle_response, ex, &mut response)? {
            Reaction::None => {}
            Reaction::Routes(routes) => {
                outgoing::strip_response(response.headers_mut());
                let received = Arc::new(response.headers().clone());
                if let Some(facts) = &mut ex.upstream {
                    facts.headers = Some(Arc::clone(&received));
                }
                self.finish(ex, &mut response, set_cookie);
                return Ok(response_handler::run(routes, ex, response, received).await);
            }
        }
        self.finish(ex, &mut response, set_cookie);
        ex.server_header = false;
        Ok(Flow::Respond(response))
    }

    /// Has the call counted, whatever becomes of its answer from here on.
    fn count(&self, mut meter: Box<Meter>, ex: &mut Exchange, plan: &Plan, response: &mut Response) {
        if !self.handle_response.is_empty() {
            // Routes for the answer may make further calls.
            ex.meter = Some(Box::new(meter.sibling()));
        }
        if let Some(facts) = &ex.upstream {
            meter.answers(&facts.hostport, facts.retries);
        }
        metering::follow(meter, response, plan.uri.path());
    }

    /// The head for the client.
    fn finish(&self, ex: &Exchange, response: &mut Response, set_cookie: Option<HeaderValue>) {
        let version = response.version();
        outgoing::strip_response(response.headers_mut());
        if let Some((ops, require)) = &self.header_down {
            let applies = require.as_ref().is_none_or(|r| r.matches(response.status().as_u16(), response.headers()));
            if applies {
                ops.apply_response(response.headers_mut(), ex);
            }
        }
        // After the operations: they edit what the upstream said, not what we add (as in Caddy).
        response.headers_mut().append(header::VIA, outgoing::via(version));
        if let Some(cookie) = set_cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        // The client speaks its own version.
        *response.version_mut() = http::Version::default();
    }
}
