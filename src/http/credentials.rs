//! Where a request may carry a token, and taking it off there.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::exchange::Exchange;
use super::path::query_unescape;

/// Headers that are always looked at, in this order: OpenAI's and everybody's, Anthropic's, Azure's, Google's.
pub const HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// How a browser sends a key for a realtime session: as an element of the list of subprotocols.
const SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// Google's clients may send the key as this query parameter.
const PARAMETER: &str = "key";

/// Takes every credential off the request and shows each to `look`, in order, which says whether it is a known one.
///
/// A header is a credential whatever is in it; one that comes twice counts once. A query parameter `key` goes only when
/// it is a known one, as other applications use that name for other things.
pub fn take(ex: &mut Exchange, headers: &[HeaderName], mut look: impl FnMut(&[u8]) -> bool) {
    for name in headers {
        if let Some(value) = ex.headers.remove(name) {
            // The log knows the usual ones by itself.
            if !HEADERS.contains(name) {
                ex.log.secret_headers.push(name.clone());
            }
            let credential = bearer(value.as_bytes());
            if !credential.is_empty() {
                look(credential);
            }
        }
    }
    take_from_subprotocols(&mut ex.headers, &mut look);
    if let Some(uri) = without_parameter(&ex.uri, &mut look) {
        ex.uri = uri;
        // Error routes begin with what the client sent.
        if let Some(uri) = without_parameter(&ex.original.uri, &mut look) {
            ex.original.uri = uri;
        }
    }
}

/// Takes off a `Bearer` in front (any case, RFC 6750 with RFC 9110's case rule) and blanks around.
fn bearer(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value.split_first_chunk::<7>() {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii(),
        _ if value.eq_ignore_ascii_case(b"Bearer") => &[],
        _ => value,
    }
}

/// What is left of the list goes up, so that the upstream still selects one that the client offered.
fn take_from_subprotocols(headers: &mut HeaderMap, look: &mut impl FnMut(&[u8]) -> bool) {
    let Some(first) = headers.get(header::SEC_WEBSOCKET_PROTOCOL) else { return };
    let is_key = |element: &str| element.starts_with(SUBPROTOCOL);
    let lines = || headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    // A line that is not text cannot be told apart from a key: it does not go up.
    let has_key = |value: &HeaderValue| value.to_str().map_or(true, |text| text.split(',').map(str::trim).any(is_key));
    if !has_key(first) && !lines().any(has_key) {
        return;
    }
    let elements = || lines().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    for element in elements() {
        if let Some(key) = element.strip_prefix(SUBPROTOCOL) {
            look(key.as_bytes());
        }
    }
    let rest: Vec<&str> = elements().filter(|e| !e.is_empty() && !is_key(e)).collect();
    let rest = HeaderValue::from_str(&rest.join(", ")).ok().filter(|value| !value.is_empty());
    match rest {
        Some(rest) => drop(headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest)),
        None => drop(headers.remove(header::SEC_WEBSOCKET_PROTOCOL)),
    }
}

/// The target without the parameters that hold a known credential; `None` when there is none.
fn without_parameter(uri: &Uri, look: &mut impl FnMut(&[u8]) -> bool) -> Option<Uri> {
    let query = uri.query()?;
    let mut is_known = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        query_unescape(name).is_some_and(|name| name == PARAMETER)
            && query_unescape(value).is_some_and(|value| !value.is_empty() && look(value.as_bytes()))
    };
    let mut rest = String::new();
    let mut taken = false;
    for pair in query.split('&') {
        if is_known(pair) {
            taken = true;
            continue;
        }
        rest.push(if rest.is_empty() { '?' } else { '&' });
        rest.push_str(pair);
    }
    if !taken {
        return None;
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{}{rest}", uri.path())).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::exchange::testing::exchange;

    /// What was shown, with `known` as the one known credential, and the request after.
    fn taken(target: &str, headers: &[(&'static str, &str)]) -> (Vec<String>, Exchange) {
        let mut ex = exchange("GET", target, headers);
        let mut shown = Vec::new();
        take(&mut ex, &HEADERS, |credential| {
            shown.push(String::from_utf8_lossy(credential).into_owned());
            credential == b"known"
        });
        (shown, ex)
    }

    #[test]
    fn headers_go_whatever_is_in_them() {
        let headers = [
            ("authorization", "bearer  a "),
            ("authorization", "Bearer never looked at"),
            ("x-api-key", "b"),
            ("api-key", "Bearer"),
            ("x-goog-api-key", "c"),
            ("x-other", "kept"),
        ];
        let (shown, ex) = taken("/", &headers);
        assert_eq!(shown, ["a", "b", "c"]);
        assert_eq!(ex.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
    }

    #[test]
    fn a_key_among_subprotocols_goes_and_the_others_stay() {
        let name = "sec-websocket-protocol";
        let (shown, ex) = taken("/", &[(name, "realtime, openai-insecure-api-key.abc,openai-beta.realtime-v1")]);
        assert_eq!(shown, ["abc"]);
        assert_eq!(ex.headers[name], "realtime, openai-beta.realtime-v1");
        let (shown, ex) = taken("/", &[(name, "realtime"), (name, "openai-insecure-api-key.x"), (name, "b")]);
        assert_eq!((shown, &ex.headers[name]), (vec!["x".to_owned()], &HeaderValue::from_static("realtime, b")));
        assert_eq!(ex.headers.get_all(name).iter().count(), 1);
        let (_, ex) = taken("/", &[(name, "openai-insecure-api-key.abc")]);
        assert!(!ex.headers.contains_key(name));
        let (shown, ex) = taken("/", &[(name, "a ,b"), (name, "c")]);
        assert!(shown.is_empty() && ex.headers.get_all(name).iter().eq(["a ,b", "c"]), "untouched");
    }

    #[test]
    fn a_known_key_in_the_query_goes_from_both_targets() {
        let (shown, ex) = taken("/v1beta/models?a=1&key=known&b=%20&key=other&%6bey=%6bnown", &[]);
        assert_eq!(shown[..3], ["known", "other", "known"]);
        assert_eq!(ex.uri, "/v1beta/models?a=1&b=%20&key=other");
        assert_eq!(ex.original.uri, ex.uri);
        assert_eq!(taken("/x?key=known", &[]).1.uri, "/x");
        for kept in ["/x", "/x?", "/x?key=other", "/x?key", "/x?monkey=known", "/x?&&a"] {
            assert_eq!(taken(kept, &[]).1.uri, kept);
        }
    }
}
