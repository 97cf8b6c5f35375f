//! Header fields as they may be written down: credentials taken out.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::query::{self, REDACTED};

/// The value as it may be logged.
#[must_use]
pub fn without_credentials<'v>(name: &HeaderName, value: &'v HeaderValue) -> Cow<'v, [u8]> {
    let redacted = Cow::Borrowed(REDACTED.as_bytes());
    match name.as_str() {
        credentials!() => redacted,
        "referer" | "location" => match value.to_str().map(query::redact) {
            Ok(Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
            _ => Cow::Borrowed(value.as_bytes()),
        },
        // Browsers cannot set headers on a WebSocket, so the OpenAI realtime API takes its key as a protocol's name.
        "sec-websocket-protocol" if value.to_str().is_ok_and(|v| v.contains("api-key")) => redacted,
        _ => Cow::Borrowed(value.as_bytes()),
    }
}

/// Headers whose values are never logged unless `log_credentials` asks for it.
#[must_use]
pub fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), credentials!())
}

/// The names, in lower case: one list for matches, which are quicker than comparing one by one.
macro_rules! credentials {
    () => {
        "authorization"
            | "cookie"
            | "set-cookie"
            | "proxy-authorization"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "x-auth-token"
            | "x-amz-security-token"
            | "ocp-apim-subscription-key"
    };
}
use credentials;
