//! A request as the CA sees it, and its answer.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use time::OffsetDateTime;

use super::problem::Problem;
use super::validate::Job;
use crate::base::body::Body;
use crate::http::exchange::Response;

/// What is asked.
pub struct Asked {
    pub method: Method,
    /// Within the CA: `new-order`, `order/ID`.
    pub path: String,
    pub query: Option<String>,
    /// URL of the CA, without a slash at its end.
    pub base: String,
    /// URL of this request.
    pub url: String,
    pub is_jose: bool,
    pub body: Bytes,
    pub now: OffsetDateTime,
}

impl Asked {
    #[must_use]
    pub fn seconds(&self) -> i64 {
        self.now.unix_timestamp()
    }
}

/// An answer, and what is to be done beside it.
#[derive(Default)]
pub struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
    headers: Vec<(HeaderName, String)>,
    /// Challenges to validate from now on.
    pub jobs: Vec<Job>,
}

impl Reply {
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    #[must_use]
    pub fn json(status: u16, value: Value) -> Self {
        Self { status, content_type: "application/json", body: value.to_string(), ..Self::default() }
    }

    #[must_use]
    pub fn pem(chain: String) -> Self {
        Self { status: 200, content_type: "application/pem-certificate-chain", body: chain, ..Self::default() }
    }

    #[must_use]
    pub fn location(self, url: String) -> Self {
        self.with(header::LOCATION, url)
    }

    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(header::RETRY_AFTER, seconds.to_string())
    }

    #[must_use]
    pub fn allow(self, methods: &str) -> Self {
        self.with(header::ALLOW, methods.to_owned())
    }

    pub fn link(&mut self, url: String, relation: &str) {
        self.headers.push((header::LINK, format!("<{url}>;rel=\"{relation}\"")));
    }

    fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer with a nonce for the next request.
    #[must_use]
    pub fn into_response(self, nonce: &str) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !self.content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        let nonce = (HeaderName::from_static("replay-nonce"), nonce.to_owned());
        for (name, value) in self.headers.into_iter().chain([nonce]) {
            // URLs hold the host as the client wrote it, which is text of a header already.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(name, value);
            }
        }
        response
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let body = problem.to_json().to_string();
        let mut reply =
            Self { status: problem.status, content_type: "application/problem+json", body, ..Self::default() };
        if let Some(url) = problem.location {
            reply = reply.location(url);
        }
        if let Some(seconds) = problem.retry_after {
            reply = reply.retry_after(seconds);
        }
        reply
    }
}
