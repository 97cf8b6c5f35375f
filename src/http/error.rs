//! An error raised by a handler: becomes a response, or goes to `handle_errors` routes.

use std::borrow::Cow;

use crate::base::error::ProxyError;

/// What `{http.error.*}` shows and what the error routes run for.
#[derive(Debug)]
pub struct HandlerError {
    /// HTTP status to answer with; 499 when the client is gone (then nothing is sent).
    pub status: u16,
    /// `{http.error.message}`: text for the log and for error pages. Never holds a credential.
    pub message: Cow<'static, str>,
    /// The handler that raised it, for the log and `{http.error.trace}`.
    pub origin: &'static str,
    /// Headers that the default answer carries, such as `retry-after` or `www-authenticate`.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// A ready answer in the dialect of the route, used when no error route writes one.
    pub answer: Option<ErrorAnswer>,
    pub cause: Option<ProxyError>,
}

/// Body of a default error answer.
#[derive(Debug, Clone)]
pub struct ErrorAnswer {
    pub content_type: &'static str,
    pub body: bytes::Bytes,
}

impl HandlerError {
    #[must_use]
    pub fn new(status: u16, origin: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), origin, headers: Vec::new(), answer: None, cause: None }
    }

    #[must_use]
    pub fn internal(origin: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(500, origin, message)
    }

    /// `{http.error.status_text}`: the standard reason of the status, empty when it has none.
    #[must_use]
    pub fn status_text(&self) -> &'static str {
        super::status::status_text(self.status)
    }
}

impl HandlerError {
    #[must_use]
    pub fn from_proxy(origin: &'static str, cause: ProxyError) -> Self {
        Self { cause: Some(cause), ..Self::new(0, origin, "") }.finish()
    }

    fn finish(mut self) -> Self {
        if let Some(cause) = &self.cause {
            self.status = cause.status();
            self.message = Cow::Owned(cause.to_string());
        }
        self
    }
}
