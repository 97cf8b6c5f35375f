//! What an upstream answered, on its way to the client.

use http::{HeaderValue, StatusCode, header};

use super::attempt::{Answered, Plan};
use super::body::{Counted, read_ahead};
use super::engine::{Engine, ORIGIN};
use super::{outgoing, upgrade};
use crate::base::body::Body;
use crate::client::Sent;
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, Response};
use crate::http::gunzip;
use crate::http::handler::Flow;
use crate::http::response_handler::{self, Reaction};

impl Engine {
    pub(super) async fn answer(
        &self,
        ex: &mut Exchange,
        plan: &Plan,
        answered: Answered<'_>,
    ) -> Result<Flow, HandlerError> {
        let Answered { sent, upstream, in_flight, gunzip, set_cookie } = answered;
        let Sent { mut response, upgraded, timings, .. } = sent;
        let status = response.status();
        if let Some(passive) = &self.passive {
            passive.judge(upstream, status, timings.first_byte);
        }
        if let Some(facts) = &mut ex.upstream {
            facts.latency = Some(timings.first_byte);
            facts.status = Some(status.as_u16());
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(transcript) = &ex.transcript {
                transcript.came_down(&mut response, false);
            }
            upgrade::join(ex, response.headers(), upgraded, self.stream_timeout)
                .map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
            return Ok(Flow::Respond(response));
        }
        if gunzip {
            gunzip::apply(&mut response);
        }
        if let Some(transcript) = &ex.transcript {
            transcript.came_down(&mut response, gunzip);
        }
        if self.counts_bodies() {
            let inner = response.body_mut().take();
            *response.body_mut() = Body::stream(Counted::new(inner, in_flight));
        }
        if let Some(buffer) = self.response_buffer {
            let body = response.body_mut().take();
            *response.body_mut() =
                read_ahead(body, buffer.limit()).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        self.stream_rules.follow(&mut response, plan.uri.path());
        match response_handler::react(&self.handle_response, ex, &mut response)? {
            Reaction::None => {}
            Reaction::Routes(routes) => {
                if let Some(facts) = &mut ex.upstream {
                    facts.headers = Some(response.headers().clone());
                }
                self.finish(ex, &mut response, set_cookie);
                return Ok(response_handler::run(routes, ex, response).await);
            }
        }
        self.finish(ex, &mut response, set_cookie);
        ex.server_header = false;
        Ok(Flow::Respond(response))
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

    /// Whether a response that is still being sent counts: only where somebody looks at the count.
    fn counts_bodies(&self) -> bool {
        self.policy.counts_requests() || self.upstreams.iter().any(|u| u.own.max_requests.is_some())
    }
}
