//! Requests to the CA on their way in and out: bounded, then worked on beside the requests of this worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use time::OffsetDateTime;

use super::ca::Ca;
use super::problem::Problem;
use super::request::{Asked, Reply};
use super::validate::Validator;
use crate::base::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::hold::hold_body;

/// A signing request with a hundred names has less than 10 KiB.
const MAX_BODY: usize = 64 << 10;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Gate {
    pub ca: Arc<Ca>,
    pub validator: Arc<Validator>,
    /// `/acme/local/`.
    pub prefix: String,
}

impl AsyncHandler for Gate {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            let Some(path) = ex.uri.path().strip_prefix(&self.prefix).map(str::to_owned) else { return Flow::Next };
            let reply = match self.asked(ex, path).await {
                Ok(asked) => self.answer(asked).await,
                Err(problem) => problem.into(),
            };
            Flow::Respond(reply.into_response(&self.ca.state.nonces.issue()))
        })
    }
}

impl Gate {
    async fn asked(&self, ex: &mut Exchange, path: String) -> Result<Asked, Problem> {
        let body = match ex.method {
            Method::GET | Method::HEAD => Bytes::new(),
            Method::POST => body(ex).await?,
            _ => return Err(Problem::malformed("the method is not allowed here").status(405)),
        };
        // As the client wrote it, whatever a handler before this one took off the path.
        let original = ex.original.uri.path();
        let mount = original.strip_suffix(&path).unwrap_or(self.prefix.as_str()).trim_end_matches('/');
        let base = format!("{}://{}{mount}", scheme(ex), ex.host_port());
        let query = ex.original.uri.query();
        let url = match query {
            Some(query) => format!("{base}/{path}?{query}"),
            None => format!("{base}/{path}"),
        };
        Ok(Asked {
            method: ex.method.clone(),
            query: query.map(str::to_owned),
            base,
            url,
            path,
            is_jose: ex.headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/jose+json"),
            body,
            now: OffsetDateTime::now_utc(),
        })
    }

    async fn answer(&self, asked: Asked) -> Reply {
        let Ok(permit) = Arc::clone(&self.ca.state.requests).try_acquire_owned() else {
            return Problem::limited("the CA has too many requests at a time", 1).status(503).into();
        };
        let ca = Arc::clone(&self.ca);
        let answered = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            ca.answer(&asked)
        });
        let mut reply = match answered.await {
            Ok(reply) => reply,
            Err(error) => return Problem::internal(error).into(),
        };
        for job in reply.jobs.drain(..) {
            tokio::task::spawn_local(Arc::clone(&self.validator).run(Arc::clone(&self.ca), job));
        }
        reply
    }
}

async fn body(ex: &mut Exchange) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, hold_body(ex, MAX_BODY)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.status == 413 => return Err(Problem::malformed("the body is too large").status(413)),
        Ok(Err(_)) => return Err(Problem::malformed("the body broke off")),
        Err(_) => return Err(Problem::malformed("the body did not come in time").status(408)),
    }
    match ex.body.take() {
        Body::Full(bytes) => Ok(bytes),
        Body::Empty | Body::Stream(_) => Ok(Bytes::new()),
    }
}

/// What the client speaks, as far as a proxy in front that is trusted says so.
fn scheme(ex: &Exchange) -> &'static str {
    let told = ex.headers.get("x-forwarded-proto").filter(|_| ex.peer_is_trusted());
    if told.is_some_and(|value| value == "https") { "https" } else { ex.scheme() }
}
