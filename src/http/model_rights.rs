//! Holds a caller to the models it may use: whoever sets [`super::exchange::User::models`] asks here before it lets go on.

use http::{HeaderName, Method, header};

use super::error::{HandlerError, Refusal};
use super::exchange::Exchange;
use super::hold::hold_body;
use super::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::llm::model_glob::ModelGlobs;

/// Lets pass what asks for a model that is allowed, and a `GET` or `HEAD` that asks for none. Everything else is refused
/// with 403: a request whose model cannot be told is not let through to find out.
///
/// Reads the body where it must, at most [`DEFAULT_LIMIT`] bytes. `origin` is the handler that asks.
pub async fn allow(ex: &mut Exchange, models: &ModelGlobs, origin: &'static str) -> Result<(), HandlerError> {
    loop {
        return match ex.requested_model(DEFAULT_LIMIT) {
            ModelOf::Named(model) if models.allows(&model) => {
                match ex.fallback_models()?.into_iter().find(|model| !models.allows(model)) {
                    Some(model) => Err(not_allowed(&model, origin)),
                    None => Ok(()),
                }
            }
            ModelOf::Named(model) => Err(not_allowed(&model, origin)),
            ModelOf::NotTold if only_reads(ex) => Ok(()),
            ModelOf::NotTold => {
                let message = "This key may use certain models only, and this request does not tell its model.";
                Err(refuse(message.to_owned(), origin))
            }
            ModelOf::NeedBody(limit) => {
                hold_body(ex, limit).await?;
                continue;
            }
            ModelOf::Bad(error) => Err(error),
        };
    }
}

/// Fields by which a `GET` may be something else to an upstream. A realtime session begins as a `GET` too, and then uses a
/// model.
const MORE_THAN_READS: [HeaderName; 4] = [
    header::UPGRADE,
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

fn only_reads(ex: &Exchange) -> bool {
    matches!(ex.method, Method::GET | Method::HEAD) && !MORE_THAN_READS.iter().any(|name| ex.headers.contains_key(name))
}

fn not_allowed(model: &str, origin: &'static str) -> HandlerError {
    refuse(format!("This key may not use the model `{model}`."), origin)
}

fn refuse(message: String, origin: &'static str) -> HandlerError {
    let refusal = Refusal {
        message: message.into(),
        kind: Some("permission_error"),
        code: Some("model_not_allowed"),
        param: Some("model"),
    };
    HandlerError { message: "the caller may not use this model".into(), ..HandlerError::refusal(403, origin, refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::body::Body;
    use crate::http::exchange::testing::exchange;

    /// The status and code of the refusal, if any.
    fn ask(method: &str, target: &str, headers: &[(&str, &str)], body: Body) -> Option<(u16, &'static str)> {
        let mut ex = exchange(method, target, headers);
        ex.body = body;
        let models = ModelGlobs::new(["gpt-4o*", "local"]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(allow(&mut ex, &models, "x")).err()?;
        Some((error.status, error.refusal.and_then(|r| r.code).unwrap_or("")))
    }

    #[test]
    fn the_model_must_be_told_and_allowed() {
        let json: &[(&str, &str)] = &[("content-type", "application/json")];
        let chat = |body: &'static str| ask("POST", "/v1/chat/completions", json, Body::from(body));
        let refused = Some((403, "model_not_allowed"));
        assert_eq!(chat(r#"{"model":"gpt-4o-mini"}"#), None);
        assert_eq!(chat(r#"{"model":"local:latest"}"#), None);
        assert_eq!(chat(r#"{"model":"o3"}"#), refused);
        assert_eq!(chat(r#"{"messages":[]}"#), refused);
        assert_eq!(chat(""), refused);
        assert_eq!(chat(r#"{"model":"local","Model":"o3"}"#).unwrap().0, 400, "read in two ways");
        assert_eq!(chat(r#"{"model":"local","models":["gpt-4o"]}"#), None);
        assert_eq!(chat(r#"{"model":"local","models":["gpt-4o","o3"]}"#), refused);
        assert_eq!(chat(r#"{"model":"local","fallbacks":["o3"]}"#), refused);
        assert_eq!(chat(r#"{"model":"local","models":"o3"}"#).unwrap().0, 400);
        let compressed = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert_eq!(ask("POST", "/v1/chat/completions", &compressed, Body::from(r#"{"model":"local"}"#)), refused);
        assert_eq!(ask("DELETE", "/v1/files/f", &[], Body::Empty), refused);
    }

    #[test]
    fn reading_needs_no_model_unless_it_begins_a_session() {
        assert_eq!(ask("GET", "/v1/models", &[], Body::Empty), None);
        assert_eq!(ask("HEAD", "/", &[], Body::Empty), None);
        let refused = Some((403, "model_not_allowed"));
        assert_eq!(ask("GET", "/v1/models/o3", &[], Body::Empty), refused);
        let posted = [("x-http-method-override", "POST")];
        assert_eq!(ask("GET", "/v1/chat/completions", &posted, Body::from(r#"{"model":"o3"}"#)), refused);
        let websocket = [("connection", "Upgrade"), ("upgrade", "websocket")];
        assert_eq!(ask("GET", "/v1/realtime?model=gpt-4o-realtime", &websocket, Body::Empty), None);
        assert_eq!(ask("GET", "/v1/realtime?model=o3", &websocket, Body::Empty), refused);
        assert_eq!(ask("GET", "/v1/realtime", &websocket, Body::Empty), refused);
    }
}
