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
    /// What the client is told, in its own dialect, when no error route answers.
    pub refusal: Option<Refusal>,
    pub cause: Option<ProxyError>,
}

/// What a client of an LLM API is told about an error.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// For a person. Public: holds no credential and nothing about the inside.
    pub message: Cow<'static, str>,
    /// OpenAI's `code`, such as `model_not_found`.
    pub code: Option<&'static str>,
    /// OpenAI's `type`; that of the status when absent.
    pub kind: Option<&'static str>,
    /// The request field at fault.
    pub param: Option<&'static str>,
}

impl HandlerError {
    #[must_use]
    pub fn new(status: u16, origin: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), origin, headers: Vec::new(), refusal: None, cause: None }
    }

    #[must_use]
    pub fn internal(origin: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(500, origin, message)
    }

    /// An error that the client is told about in its own dialect, whatever the path.
    #[must_use]
    pub fn refusal(status: u16, origin: &'static str, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal.clone()), ..Self::new(status, origin, refusal.message) }
    }

    #[must_use]
    pub fn header(mut self, name: http::HeaderName, value: http::HeaderValue) -> Self {
        self.headers.push((name, value));
        self
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
