//! The answer to an error that no error route answered.
//!
//! LLM traffic is told in the caller's dialect, with the request's id; for everything else it is the status and the
//! error's own headers with an empty body, as in Caddy.

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::error::HandlerError;
use super::exchange::{Exchange, Response};
use crate::base::body::Body;
use crate::llm::dialect::Dialect;
use crate::llm::error_body::{self, Fault};

/// Where OpenAI's clients look for the id of a request (Anthropic's: `request-id`).
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

#[must_use]
pub fn error_response(ex: &Exchange, error: &HandlerError) -> Response {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &error.headers {
        response.headers_mut().append(name.clone(), value.clone());
    }
    // A handler that says what the client is to be told means an LLM client, on any path.
    let dialect = ex.error_dialect().or_else(|| {
        error.refusal.as_ref().map(|_| Dialect::of_path(ex.original.uri.path()).unwrap_or(Dialect::OpenAi))
    });
    if let Some(dialect) = dialect {
        tell(ex, error, dialect, &mut response);
    }
    response
}

fn tell(ex: &Exchange, error: &HandlerError, dialect: Dialect, response: &mut Response) {
    let request_id = ex.request_id();
    let mut fault = Fault { status: error.status, request_id, ..Fault::default() };
    match &error.refusal {
        Some(refusal) => {
            fault.message = &refusal.message;
            (fault.kind, fault.param, fault.code) = (refusal.kind, refusal.param, refusal.code);
        }
        None => {
            fault.message = public_text(error);
            fault.code = error.cause.as_ref().map(|cause| cause.kind.facts().code);
        }
    }
    let body = error_body::render(dialect, &fault);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(error_body::JSON));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(if dialect == Dialect::Anthropic { REQUEST_ID } else { X_REQUEST_ID }, id);
    }
    *response.body_mut() = Body::Full(body);
}

/// What may be said of an error that says nothing for the public itself: the log has the rest under the same id.
fn public_text(error: &HandlerError) -> &'static str {
    match error.status {
        400 => "The request could not be understood.",
        413 => "The request body is too large.",
        502 => "The upstream could not be reached or did not answer properly.",
        503 => "No upstream is available at this moment.",
        504 => "The upstream took too long to answer.",
        _ => match error.status_text() {
            "" => "The request failed.",
            text => text,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Refusal;
    use super::super::exchange::testing::exchange;
    use super::*;
    use crate::base::error::{Kind, ProxyError, Retry};
    use serde_json::{Value, json};

    fn read(response: Response) -> Value {
        match response.into_body() {
            Body::Full(body) => serde_json::from_slice(&body).unwrap(),
            Body::Empty => Value::Null,
            Body::Stream(_) => panic!("a stream"),
        }
    }

    fn refused() -> HandlerError {
        let proxy = ProxyError::new(Kind::ConnectFailed, Retry::Safe, "10.0.0.7:443 refused");
        HandlerError::from_proxy("reverse_proxy", proxy)
    }

    #[test]
    fn traffic_that_is_not_llm_gets_an_empty_body() {
        let ex = exchange("GET", "/index.html", &[]);
        assert_eq!(read(error_response(&ex, &refused())), Value::Null);
        let ex = exchange("POST", "/api/chat", &[]);
        assert_eq!(read(error_response(&ex, &refused())), Value::Null);
    }

    #[test]
    fn llm_traffic_is_told_in_its_dialect_with_the_id_and_nothing_of_the_inside() {
        let ex = exchange("POST", "/v1/chat/completions", &[]);
        let response = error_response(&ex, &refused());
        assert_eq!(response.headers()["x-request-id"], ex.request_id());
        let body = read(response);
        assert_eq!(body["error"]["code"], "upstream_connect_failed");
        assert_eq!(body["error"]["type"], "server_error");
        assert!(!body.to_string().contains("10.0.0.7"));

        let ex = exchange("GET", "/v1/models", &[("anthropic-version", "2023-06-01")]);
        let response = error_response(&ex, &refused());
        assert_eq!(response.headers()["request-id"], ex.request_id());
        assert_eq!(read(response)["request_id"], ex.request_id());

        let mut ex = exchange("POST", "/api/chat", &[]);
        ex.llm = true;
        let expected = json!({"error": "The upstream could not be reached or did not answer properly."});
        assert_eq!(read(error_response(&ex, &refused())), expected);
    }

    #[test]
    fn a_refusal_is_told_on_any_path() {
        let refusal = Refusal { message: "no".into(), code: Some("c"), param: Some("p"), kind: None };
        let error = HandlerError::refusal(403, "x", refusal);
        let ex = exchange("GET", "/", &[]);
        let expected = json!({"error":{"message":"no","type":"invalid_request_error","param":"p","code":"c"}});
        assert_eq!(read(error_response(&ex, &error)), expected);
        let ex = exchange("GET", "/api/tags", &[]);
        assert_eq!(read(error_response(&ex, &error)), json!({"error": "no"}));
    }
}
