//! What a call may take, told before it is made: for what sets aside tokens or money for it.

use std::rc::Rc;

use bytes::Bytes;
use http_body::Body as _;

use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::hold::hold_body;
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::llm::usage::{Endpoint, Prompt, request};

/// What a call may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Tokens of the prompt: a quick estimate, a tenth off for English and code.
    pub input: u64,
    /// The most output tokens that the request allows, all of its choices together; `None` = it sets no bound.
    pub output_limit: Option<u64>,
    /// The model asked for.
    pub model: Option<Rc<str>>,
    pub endpoint: Endpoint,
    pub stream: bool,
}

/// What was forecast of a body, kept while it stays the same.
pub(super) struct Kept {
    body: Bytes,
    pub prompt: Prompt,
    asked: request::Asked,
}

impl Kept {
    /// Whether it is true of this body: the same bytes are the same allocation, which is kept alive here.
    pub fn is_of(&self, body: &Bytes) -> bool {
        std::ptr::eq(self.body.as_ref(), body.as_ref())
    }
}

/// Reads the request as far as counting needs. Holds its body where it is of a kind that tells, as a `model` matcher does.
///
/// # Errors
/// As [`hold_body`], and 400 where the model cannot be told for sure.
pub async fn forecast(ex: &mut Exchange) -> Result<Forecast, HandlerError> {
    let endpoint = Endpoint::of_path(ex.uri.path());
    let model = loop {
        match ex.requested_model(DEFAULT_LIMIT) {
            ModelOf::Named(model) => break Some(model),
            ModelOf::NotTold => break None,
            ModelOf::NeedBody(limit) => hold_body(ex, limit).await?,
            ModelOf::Bad(error) => return Err(error),
        }
    };
    // Where the path names the model, the body has not been looked at.
    hold(ex, endpoint).await?;
    let (input, asked) = match &ex.body {
        Body::Full(body) if endpoint.is_metered() && ex.may_tell_in_json() => look(ex, body.clone(), endpoint),
        // What is not read takes something all the same.
        body if endpoint.is_metered() => (body.size_hint().lower() / 4, request::Asked::default()),
        _ => (0, request::Asked::default()),
    };
    let stream = asked.stream || endpoint.streams_unasked(ex.uri.path()) && !asked.no_stream;
    Ok(Forecast { input, output_limit: asked.output_limit, model, endpoint, stream })
}

/// Holds the body of a call whose counts can be told from it.
pub(super) async fn hold(ex: &mut Exchange, endpoint: Endpoint) -> Result<(), HandlerError> {
    if endpoint.is_metered() && ex.may_tell_in_json() {
        hold_body(ex, DEFAULT_LIMIT).await?;
    }
    Ok(())
}

fn look(ex: &mut Exchange, body: Bytes, endpoint: Endpoint) -> (u64, request::Asked) {
    if let Some(kept) = ex.meter.as_ref().and_then(|meter| meter.forecast.as_ref())
        && kept.is_of(&body)
    {
        return (kept.prompt.quick(), kept.asked);
    }
    let (asked, prompt) = (request::read(&body), Prompt::read(&body, endpoint));
    let input = prompt.quick();
    ex.meter().forecast = Some(Kept { body, prompt, asked });
    (input, asked)
}

#[cfg(test)]
mod tests {
    use super::super::super::exchange::testing::exchange;
    use super::*;

    fn told(path: &str, body: &'static str) -> Forecast {
        let mut ex = exchange("POST", path, &[("content-type", "application/json")]);
        ex.body = Body::from(body);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime.block_on(forecast(&mut ex)).unwrap();
        assert_eq!(runtime.block_on(forecast(&mut ex)).unwrap(), first);
        first
    }

    #[test]
    fn the_request_tells_model_bound_and_stream() {
        let chat = told(
            "/v1/chat/completions",
            r#"{"model":"m","max_tokens":50,"n":2,"stream":true,"messages":[{"role":"user","content":"How are you today?"}]}"#,
        );
        assert_eq!((chat.model.as_deref(), chat.output_limit, chat.stream), (Some("m"), Some(100), true));
        assert!((9..14).contains(&chat.input), "{}", chat.input);
        let ollama = told("/api/chat", r#"{"model":"m","options":{"num_predict":7},"messages":[]}"#);
        assert_eq!((ollama.endpoint, ollama.output_limit, ollama.stream), (Endpoint::OllamaChat, Some(7), true));
        assert!(!told("/api/chat", r#"{"model":"m","stream":false}"#).stream);
        let gemini = told(
            "/v1beta/models/g:streamGenerateContent",
            r#"{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"maxOutputTokens":9}}"#,
        );
        assert_eq!((gemini.model.as_deref(), gemini.output_limit, gemini.stream), (Some("g"), Some(9), true));
    }
}
