//! The tag `:latest`, which Ollama's lists put behind a model's name, taken off requests for the `/v1` routes on the same base.
//!
//! VS Code Copilot takes names from `/api/tags` and asks `/v1/chat/completions` with them. Only the bytes of the tag are cut;
//! a body without it goes up as it came.

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{Method, Uri, header};

use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::hold::hold_body;
use crate::http::requested_model::{ModelOf, Place};

const TAG: &str = ":latest";

/// Whether the request may name a model with the tag.
pub fn may_have_tag(ex: &Exchange) -> bool {
    let Some(route) = ex.uri.path().strip_prefix("/v1/") else { return false };
    if route.starts_with("models/") {
        return route.ends_with(TAG);
    }
    // Uploads are not held up: no client of Ollama's lists sends them.
    let upload = || ex.headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"multipart/"));
    ex.method == Method::POST
        && matches!(route, "chat/completions" | "completions" | "embeddings" | "responses" | "messages")
        && !upload()
}

/// Takes the tag off. `limit`: bytes of body to hold.
pub async fn take_off(ex: &mut Exchange, limit: usize) -> Result<(), HandlerError> {
    if let Some(path) = ex.uri.path().strip_suffix(TAG) {
        let target = match ex.uri.query() {
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
            None => PathAndQuery::try_from(path),
        };
        if let Ok(target) = target {
            ex.uri = Uri::from(target);
        }
        return Ok(());
    }
    let mut asked = ex.requested_model(limit);
    if let ModelOf::NeedBody(limit) = asked {
        hold_body(ex, limit).await?;
        asked = ex.requested_model(limit);
    }
    // What cannot be read is the upstream's to judge.
    let ModelOf::Named(model) = asked else { return Ok(()) };
    if !model.ends_with(TAG) {
        return Ok(());
    }
    let (Some(Place::Json(place)), Body::Full(body)) = (ex.model_place(), &ex.body) else { return Ok(()) };
    if let Some(shorter) = without_tag(body, &place) {
        ex.replace_body(shorter);
    }
    Ok(())
}

/// The body without the tag at the end of the text at `place`, quotes included; `None` when it is spelled with escapes.
fn without_tag(body: &[u8], place: &std::ops::Range<usize>) -> Option<Bytes> {
    let text = body.get(place.clone())?;
    let name = text.strip_suffix(b"\"")?.strip_suffix(TAG.as_bytes())?;
    let cut = place.start + name.len();
    let mut out = BytesMut::with_capacity(body.len() - TAG.len());
    out.extend_from_slice(&body[..cut]);
    out.extend_from_slice(&body[cut + TAG.len()..]);
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{block_on, exchange};

    fn sent(path: &str, body: &'static str) -> (String, Bytes) {
        let mut ex = exchange("POST", path);
        ex.body = Body::from(body);
        if may_have_tag(&ex) {
            block_on(take_off(&mut ex, 1 << 20)).unwrap();
        }
        let Body::Full(bytes) = ex.body else { panic!("no body") };
        (ex.uri.to_string(), bytes)
    }

    #[test]
    fn only_the_tags_bytes_are_cut() {
        let body = "{ \"messages\":[{\"content\":\"x:latest\"}],\n\"model\" : \"gpt-4o:latest\" ,\"n\":1.50}";
        let expected = "{ \"messages\":[{\"content\":\"x:latest\"}],\n\"model\" : \"gpt-4o\" ,\"n\":1.50}";
        assert_eq!(sent("/v1/chat/completions", body).1, expected);
    }

    #[test]
    fn other_bodies_stay_as_they_are() {
        for body in [
            r#"{"model":"gpt-4o"}"#,
            r#"{"model":"m:latest","model":"n:latest"}"#,
            r#"{"model":7}"#,
            "not json :latest",
            r#"["gpt-4o:latest"]"#,
        ] {
            assert_eq!(sent("/v1/chat/completions", body).1, body);
        }
        let body = r#"{"model":"gpt-4o:latest"}"#;
        assert_eq!(sent("/v1/files", body).1, body);
        assert_eq!(sent("/api/chat", body).1, body);
    }

    #[test]
    fn a_path_that_names_a_model_loses_it_too() {
        assert_eq!(sent("/v1/models/org/gpt-4o:latest?x=1", "x").0, "/v1/models/org/gpt-4o?x=1");
        assert_eq!(sent("/v1/models/llama3:8b", "x").0, "/v1/models/llama3:8b");
    }
}
