//! Errors: whatever an upstream says, as `{"error":"text"}`.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::text::cut;

/// Longest text that is passed on, in bytes.
const LONGEST: usize = 2_000;

/// The error object of Ollama's own routes.
pub fn body(text: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
    }
    // A text cannot fail to be written.
    serde_json::to_vec(&Body { error: text }).unwrap_or_default()
}

/// What Ollama says of a model that it does not have; the status is 404.
pub fn model_not_found(model: &str) -> String {
    format!("model '{}' not found", cut(model, 200))
}

/// An upstream's answer that is not a success, as the body for the client. The status stays.
///
/// OpenAI's shape, Anthropic's, Gemini's, that of many a Python server, plain text: the message is passed on. A page of HTML
/// is not, and neither is what is said of a credential (401). That a model is unknown is said in Ollama's words when `model` is the one that was asked for.
pub fn translate(status: u16, upstream: &[u8], model: Option<&str>) -> Vec<u8> {
    let value: Option<Value> = serde_json::from_slice(upstream).ok();
    if let (404, Some(model), Some(value)) = (status, model, &value)
        && unknown_model(value)
    {
        return body(&model_not_found(model));
    }
    // What a provider says of a key may repeat a piece of it, and the key is the proxy's.
    let text = match &value {
        _ if status == 401 => Cow::Borrowed(by_status(status)),
        Some(value) => of(value).unwrap_or_else(|| Cow::Borrowed(by_status(status))),
        None => plain(upstream).unwrap_or_else(|| Cow::Borrowed(by_status(status))),
    };
    body(&tidy(&text))
}

/// The text of an `error` that came inside an answer: an object or a string, as JSON.
pub(super) fn of_value(json: &str) -> String {
    let text = serde_json::from_str::<Value>(json).ok().and_then(|value| match &value {
        Value::String(text) => Some(text.clone()),
        value => of(value).map(Cow::into_owned),
    });
    text.filter(|text| !text.trim().is_empty())
        .map_or_else(|| "the upstream reported an error".to_owned(), |text| tidy(&text))
}

/// Where the message stands: `error.message`, `error`, `message`, `detail` (of FastAPI; also a list of faults), the first of
/// a list (Gemini).
fn of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(Cow::Borrowed(text)),
        Value::Array(list) => list.first().and_then(of),
        Value::Object(fields) => {
            ["error", "message", "detail", "msg"].iter().find_map(|name| fields.get(*name).and_then(of))
        }
        _ => None,
    }
}

/// OpenAI's code, or Anthropic's kind.
fn unknown_model(value: &Value) -> bool {
    let error = value.get("error").unwrap_or(value);
    let is = |name: &str, word: &str| error.get(name).and_then(Value::as_str) == Some(word);
    let says = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains("model") && ["not found", "not exist"].iter().any(|words| text.contains(words))
    };
    is("code", "model_not_found")
        || of(value).is_some_and(|text| says(&text) || is("type", "not_found_error") && text.starts_with("model"))
}

/// Text that is meant to be read; `None` for nothing, for HTML and for bytes.
fn plain(upstream: &[u8]) -> Option<Cow<'_, str>> {
    let head = upstream.get(..2 * LONGEST).unwrap_or(upstream);
    let text = String::from_utf8_lossy(head);
    let text = text.trim();
    let unreadable = text.is_empty() || text.starts_with('<') || text.contains('\0');
    // Broken JSON tells a person nothing either.
    (!unreadable && !text.starts_with(['{', '['])).then(|| Cow::Owned(text.to_owned()))
}

/// Cut to a bound; control characters would break a terminal that shows it.
fn tidy(text: &str) -> String {
    cut(text.trim(), LONGEST).chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

fn by_status(status: u16) -> &'static str {
    match status {
        400 | 422 => "the upstream refused the request",
        401 | 403 => "the upstream refused the proxy's credentials",
        404 => "not found",
        408 | 504 => "the upstream took too long",
        413 => "request body too large",
        429 => "too many requests, try again later",
        502 | 503 | 529 => "the upstream is not available",
        _ => "the upstream reported an error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, upstream: &str) -> String {
        let body: Value = serde_json::from_slice(&translate(status, upstream.as_bytes(), Some("m"))).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_message_is_found_wherever_it_stands() {
        for (upstream, message) in [
            (r#"{"error":{"message":"a","type":"t"}}"#, "a"),
            (r#"{"type":"error","error":{"type":"x","message":"a"}}"#, "a"),
            (r#"{"error":"a"}"#, "a"),
            (r#"{"message":"a"}"#, "a"),
            (r#"{"detail":"a"}"#, "a"),
            (r#"[{"error":{"message":"a"}}]"#, "a"),
            ("a\u{7}b", "a b"),
            (r#"{"error":{"message":""}}"#, "the upstream refused the request"),
            (r#"{"error":null}"#, "the upstream refused the request"),
            ("{\"error\":", "the upstream refused the request"),
            ("", "the upstream refused the request"),
            ("<!doctype html><p>no</p>", "the upstream refused the request"),
            ("\0\0", "the upstream refused the request"),
        ] {
            assert_eq!(text(400, upstream), message, "{upstream}");
        }
    }

    #[test]
    fn an_unknown_model_is_told_apart_from_an_unknown_path() {
        for (upstream, message) in [
            (r#"{"error":{"message":"x","code":"model_not_found"}}"#, "model 'm' not found"),
            (r#"{"type":"error","error":{"type":"not_found_error","message":"model: m"}}"#, "model 'm' not found"),
            (r#"{"message":"The model `m` does not exist."}"#, "model 'm' not found"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            ("404 page not found", "404 page not found"),
        ] {
            assert_eq!(text(404, upstream), message, "{upstream}");
        }
        assert_eq!(text(400, r#"{"error":{"message":"x","code":"model_not_found"}}"#), "x");
    }

    #[test]
    fn nothing_of_a_key_is_passed_on() {
        let upstream = r#"{"error":{"message":"Incorrect API key provided: sk-abc***xyz."}}"#;
        assert_eq!(text(401, upstream), "the upstream refused the proxy's credentials");
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = format!(r#"{{"error":"{}"}}"#, "ä".repeat(100_000));
        assert!(text(500, &long).len() <= LONGEST + '…'.len_utf8());
        assert!(text(500, &"ä".repeat(100_000)).len() <= LONGEST + '…'.len_utf8());
        assert!(model_not_found(&"m".repeat(100_000)).len() < 300);
    }
}
