//! Error bodies in the shapes that official clients read.

use bytes::Bytes;
use serde::Serialize;

use super::dialect::Dialect;

/// `content-type` of these bodies.
pub const JSON: &str = "application/json";

/// What an error body tells. Types and codes left out are those that the provider uses for the status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault<'a> {
    pub status: u16,
    /// For a person; never holds a credential.
    pub message: &'a str,
    /// OpenAI's or Anthropic's `type`.
    pub kind: Option<&'a str>,
    /// The request field at fault (OpenAI's `param`).
    pub param: Option<&'a str>,
    /// OpenAI's `code`, such as `model_not_found`.
    pub code: Option<&'a str>,
    /// Anthropic's `request_id`; left out when empty.
    pub request_id: &'a str,
}

/// The body of an error in a dialect.
#[must_use]
pub fn render(dialect: Dialect, fault: &Fault<'_>) -> Bytes {
    match dialect {
        Dialect::OpenAi => {
            openai(fault.message, fault.kind.unwrap_or_else(|| openai_kind(fault.status)), fault.param, fault.code)
        }
        Dialect::Anthropic => anthropic(fault),
        Dialect::Ollama => ollama(fault.message),
    }
}

/// OpenAI's error object, also that of the many compatible servers:
/// `{"error":{"message","type","param","code"}}`.
#[must_use]
pub fn openai(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        message: &'a str,
        r#type: &'a str,
        // Clients expect the fields to be there even when they are null.
        param: Option<&'a str>,
        code: Option<&'a str>,
    }
    json(&Body { error: Error { message, r#type: kind, param, code } })
}

/// OpenAI's `type` for a status.
#[must_use]
pub fn openai_kind(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// `{"type":"error","error":{"type","message"},"request_id"}`. The type follows the status alone: those of OpenAI mean
/// nothing to Anthropic's clients.
fn anthropic(fault: &Fault<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        r#type: &'a str,
        error: Error<'a>,
        #[serde(skip_serializing_if = "str::is_empty")]
        request_id: &'a str,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'a str,
        message: &'a str,
    }
    let kind = anthropic_kind(fault.status);
    json(&Body { r#type: "error", error: Error { r#type: kind, message: fault.message }, request_id: fault.request_id })
}

/// Anthropic's `type` for a status.
#[must_use]
pub fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// `{"error":"text"}`.
#[must_use]
pub fn ollama(message: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
    }
    json(&Body { error: message })
}

/// Texts cannot fail to serialise.
fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(dialect: Dialect, fault: Fault<'_>) -> Value {
        serde_json::from_slice(&render(dialect, &fault)).unwrap()
    }

    #[test]
    fn openai_shape_has_all_four_fields() {
        let fault = Fault { status: 401, message: "no \"key\"", code: Some("invalid_api_key"), ..Fault::default() };
        let expected = json!({"error": {"message": "no \"key\"", "type": "invalid_request_error", "param": null,
            "code": "invalid_api_key"}});
        assert_eq!(read(Dialect::OpenAi, fault), expected);
        let fault = Fault { status: 429, message: "m", kind: Some("insufficient_quota"), ..Fault::default() };
        assert_eq!(read(Dialect::OpenAi, fault)["error"]["type"], "insufficient_quota");
    }

    #[test]
    fn anthropic_and_ollama_shapes() {
        let fault = Fault { status: 403, message: "m", kind: Some("openai's"), request_id: "r1", ..Fault::default() };
        let expected =
            json!({"type": "error", "error": {"type": "permission_error", "message": "m"}, "request_id": "r1"});
        assert_eq!(read(Dialect::Anthropic, fault), expected);
        assert_eq!(read(Dialect::Ollama, fault), json!({"error": "m"}));
    }

    #[test]
    fn types_follow_the_status() {
        for (status, openai, anthropic) in [
            (400, "invalid_request_error", "invalid_request_error"),
            (401, "invalid_request_error", "authentication_error"),
            (404, "invalid_request_error", "not_found_error"),
            (413, "invalid_request_error", "request_too_large"),
            (429, "rate_limit_error", "rate_limit_error"),
            (502, "server_error", "api_error"),
            (504, "server_error", "timeout_error"),
            (529, "server_error", "overloaded_error"),
        ] {
            assert_eq!((openai_kind(status), anthropic_kind(status)), (openai, anthropic), "{status}");
        }
    }
}
