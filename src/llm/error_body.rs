//! Error bodies in the shapes that official clients read.

use bytes::Bytes;
use serde::Serialize;

/// `content-type` of these bodies.
pub const JSON: &str = "application/json";

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
    let body = Body { error: Error { message, r#type: kind, param, code } };
    // Text fields cannot fail to serialise.
    serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn openai_shape_has_all_four_fields() {
        let body = openai("no \"key\"", "invalid_request_error", None, Some("invalid_api_key"));
        let read: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({"error": {"message": "no \"key\"", "type": "invalid_request_error", "param": null,
            "code": "invalid_api_key"}});
        assert_eq!(read, expected);
    }
}
