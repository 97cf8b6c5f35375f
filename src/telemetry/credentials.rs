//! Header fields as they may be written down: credentials taken out.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, header};

use super::query::{self, REDACTED};

/// The value as it may be logged.
#[must_use]
pub fn without_credentials<'v>(name: &HeaderName, value: &'v HeaderValue) -> Cow<'v, [u8]> {
    if is_credential(name) {
        return Cow::Borrowed(REDACTED.as_bytes());
    }
    if (*name == header::REFERER || *name == header::LOCATION)
        && let Ok(target) = value.to_str()
    {
        return match query::redact(target) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
    }
    // Browsers cannot set headers on a WebSocket, so the OpenAI realtime API takes its key as a protocol's name.
    if *name == header::SEC_WEBSOCKET_PROTOCOL && value.to_str().is_ok_and(|v| v.contains("api-key")) {
        return Cow::Borrowed(REDACTED.as_bytes());
    }
    Cow::Borrowed(value.as_bytes())
}

/// Headers whose values are never logged unless `log_credentials` asks for it.
#[must_use]
pub fn is_credential(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION
        || *name == header::COOKIE
        || *name == header::SET_COOKIE
        || *name == header::PROXY_AUTHORIZATION
        || matches!(
            name.as_str(),
            "x-api-key"
                | "api-key"
                | "x-goog-api-key"
                | "x-auth-token"
                | "x-amz-security-token"
                | "ocp-apim-subscription-key"
        )
}
