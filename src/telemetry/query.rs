//! Query strings as the log sees them: credentials taken out, parameters filtered. Escapes as in Go's `net/url`.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Parameters that carry credentials, compared without case after decoding. `key` is how Google's API takes its keys.
const CREDENTIALS: [&str; 12] = [
    "key",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "access-token",
    "auth_token",
    "token",
    "client_secret",
    "password",
    "sig",
    "subscription-key",
];

/// What stands where a credential was.
pub const REDACTED: &str = "REDACTED";

/// What Go's `QueryEscape` leaves as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// The target with the values of credential parameters replaced; borrowed when there are none.
#[must_use]
pub fn redact(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
    let is_credential = |pair: &str| {
        let Some((name, value)) = pair.split_once('=') else { return false };
        if value.is_empty() {
            return false;
        }
        // A name too long for any of them, even with every byte escaped, need not be decoded.
        name.len() <= 48 && {
            let name = decode(name);
            CREDENTIALS.iter().any(|c| name.eq_ignore_ascii_case(c))
        }
    };
    let pairs = || query.split_inclusive(['&', ';']);
    let bare = |pair: &str| pair.strip_suffix(['&', ';']).unwrap_or(pair).len();
    if !pairs().any(|pair| is_credential(&pair[..bare(pair)])) {
        return Cow::Borrowed(target);
    }
    let mut out = String::with_capacity(target.len());
    out.push_str(path);
    out.push('?');
    for pair in pairs() {
        let (text, separator) = pair.split_at(bare(pair));
        match text.split_once('=') {
            Some((name, _)) if is_credential(text) => {
                out.push_str(name);
                out.push('=');
                out.push_str(REDACTED);
            }
            _ => out.push_str(text),
        }
        out.push_str(separator);
    }
    Cow::Owned(out)
}

/// Names and values, decoded. Pairs with a semicolon are left out, as in Go.
pub(super) fn parse(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name).into_owned(), decode(value).into_owned())
        })
        .collect()
}

pub(super) fn write(pairs: &[(String, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, ESCAPED).to_string().replace(' ', "+");
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_the_query_are_redacted() {
        for (target, expected) in [
            ("/p", "/p"),
            ("/p?a=1&keyed=2&key=", "/p?a=1&keyed=2&key="),
            ("/p?key=abc", "/p?key=REDACTED"),
            ("/p?a=1&API_KEY=abc&b=2", "/p?a=1&API_KEY=REDACTED&b=2"),
            ("/p?%6bey=abc", "/p?%6bey=REDACTED"),
            ("/p?a=1;access_token=x=y;b", "/p?a=1;access_token=REDACTED;b"),
            ("/p?key=a&key=b", "/p?key=REDACTED&key=REDACTED"),
            ("/p?x=?key=1", "/p?x=?key=1"),
        ] {
            assert_eq!(redact(target), expected, "{target}");
        }
        assert!(matches!(redact("/p?a=b"), Cow::Borrowed(_)));
    }
}
