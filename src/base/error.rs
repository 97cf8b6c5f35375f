//! An error about a request: what kind, who caused it, and whether another upstream may be tried.
//!
//! One table ([`Kind::facts`]) maps a kind to status, code word and log level. The text never holds a credential.

use std::borrow::Cow;
use std::fmt;

/// Who caused the failure.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Client,
    Upstream,
    Proxy,
}

/// May the request be sent again? Fixed when the error is made, from what had been written by then.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No byte of the request reached an upstream (dial failure, refused stream): always safe.
    Safe,
    /// The upstream may have seen the request: only for idempotent methods or by explicit option.
    IfIdempotent,
    /// Never.
    No,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The upstream's name did not resolve, or nothing accepted the connection.
    ConnectFailed,
    /// Connecting took longer than the dial timeout.
    ConnectTimeout,
    /// The TLS handshake with the upstream failed (certificate, protocol).
    TlsFailed,
    /// The upstream closed or reset the connection before a response head.
    UpstreamClosed,
    /// The upstream sent something that is not HTTP, or a head beyond the limit.
    UpstreamProtocol,
    /// No response head within the time allowed.
    ResponseTimeout,
    /// No byte of the body within the time allowed between chunks.
    ReadTimeout,
    /// The response body broke off.
    UpstreamBody,
    /// No upstream is available (all unhealthy, at their limits, or none resolved).
    NoUpstream,
    /// The client went away.
    ClientGone,
    /// The client's request body broke off or was malformed.
    ClientBody,
    /// The request body is larger than allowed.
    BodyTooLarge,
    /// A fault of this program or its configuration at run time.
    Internal,
}

#[derive(Copy, Clone, Debug)]
pub struct Facts {
    pub status: u16,
    pub code: &'static str,
    pub source: Source,
}

impl Kind {
    /// Status, code word and cause, in one place.
    #[must_use]
    pub const fn facts(self) -> Facts {
        use Source::{Client, Proxy, Upstream};
        let (status, code, source) = match self {
            Self::ConnectFailed => (502, "upstream_connect_failed", Upstream),
            // 502 and not 504, as Caddy.
            Self::ConnectTimeout => (502, "upstream_connect_timeout", Upstream),
            Self::TlsFailed => (502, "upstream_tls_failed", Upstream),
            Self::UpstreamClosed => (502, "upstream_closed", Upstream),
            Self::UpstreamProtocol => (502, "upstream_protocol_error", Upstream),
            Self::ResponseTimeout => (504, "upstream_response_timeout", Upstream),
            Self::ReadTimeout => (504, "upstream_read_timeout", Upstream),
            Self::UpstreamBody => (502, "upstream_body_error", Upstream),
            Self::NoUpstream => (503, "no_upstream_available", Proxy),
            Self::ClientGone => (499, "client_closed_request", Client),
            Self::ClientBody => (400, "client_body_error", Client),
            Self::BodyTooLarge => (413, "request_too_large", Client),
            Self::Internal => (500, "internal_error", Proxy),
        };
        Facts { status, code, source }
    }
}

#[derive(Debug)]
pub struct ProxyError {
    pub kind: Kind,
    pub retry: Retry,
    /// For the log: may name hosts and system errors, never a header value or a body.
    pub detail: Cow<'static, str>,
}

impl ProxyError {
    #[must_use]
    pub fn new(kind: Kind, retry: Retry, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, retry, detail: detail.into() }
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        self.kind.facts().status
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.facts().code, self.detail)
    }
}

impl std::error::Error for ProxyError {}
