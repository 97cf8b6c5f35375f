//! What went wrong with an exchange, as a [`ProxyError`]: kind, and whether the request may be sent again.

use std::error::Error as StdError;
use std::fmt::Write as _;

use crate::base::error::{Kind, ProxyError, Retry};

use super::target::Target;

/// An exchange over HTTP/2 that failed before a response head. `unsent`: nothing of it was written.
pub(super) fn before_head(target: &Target, error: &hyper::Error, unsent: bool) -> ProxyError {
    if let Some(own) = from_request_body(error) {
        return own;
    }
    let kind = if is_protocol(error) {
        Kind::UpstreamProtocol
    } else if error.is_user() {
        Kind::Internal
    } else {
        Kind::UpstreamClosed
    };
    let retry = if unsent || is_unprocessed(error) { Retry::Safe } else { Retry::IfIdempotent };
    ProxyError::new(kind, retry, describe(target.label(), error))
}

/// A response body that broke off.
pub(super) fn in_body(label: &str, error: &hyper::Error) -> ProxyError {
    from_request_body(error).unwrap_or_else(|| broke_off(label, &describe("", error)))
}

pub(super) fn broke_off(label: &str, why: &str) -> ProxyError {
    told(ProxyError::new(Kind::UpstreamBody, Retry::No, format!("{label}: {}", why.trim_start_matches(": "))))
}

pub(super) fn read_timeout(label: &str) -> ProxyError {
    told(ProxyError::new(Kind::ReadTimeout, Retry::No, format!("{label}: the response body stalled")))
}

/// The response's head is with the client by now, so no status and no entry of the access log shows what happened.
fn told(error: ProxyError) -> ProxyError {
    tracing::warn!("a response is cut: {error}");
    error
}

/// The upstream refused the HTTP/2 stream, or closed the connection before it: RFC 9113 section 8.7 says that such a
/// request was not processed.
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    find::<h2::Error>(error).is_some_and(|e| {
        e.is_remote()
            && (e.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR)))
    })
}

/// The request body's own error (the client went away, was too slow, sent too much) comes back as itself.
fn from_request_body(error: &hyper::Error) -> Option<ProxyError> {
    find::<ProxyError>(error).map(|own| ProxyError::new(own.kind, Retry::No, own.detail.clone()))
}

fn is_protocol(error: &hyper::Error) -> bool {
    error.is_parse()
        || find::<h2::Error>(error)
            .is_some_and(|e| e.is_library() || (e.reason() == Some(h2::Reason::PROTOCOL_ERROR) && !e.is_go_away()))
}

fn find<E: StdError + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        source = inner.source();
    }
    None
}

fn describe(label: &str, error: &hyper::Error) -> String {
    let mut text = format!("{label}: {error}");
    let mut source = error.source();
    while let Some(inner) = source {
        let _ = write!(text, ": {inner}");
        source = inner.source();
    }
    text
}
