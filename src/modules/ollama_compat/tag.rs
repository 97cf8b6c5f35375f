//! The tag `:latest`, which Ollama's lists put behind a model's name, taken off requests for the `/v1` routes on the same base.
//!
//! VS Code Copilot takes names from `/api/tags` and asks `/v1/chat/completions` with them. Only the bytes of the tag are cut;
//! a body without it goes up as it came. A name that the upstream's own list has with the tag keeps it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{Method, Uri, header};
use percent_encoding::percent_decode_str;

use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::hold::hold_body;
use crate::http::requested_model::{ModelOf, Place};
use crate::llm::peek;

const TAG: &str = ":latest";

/// Names that an upstream's own list has with the tag, from the lists seen so far.
#[derive(Default)]
pub struct Tagged(Mutex<HashSet<Box<str>>>);

/// Most names kept: an upstream that makes up names must not fill the memory.
const MOST_KEPT: usize = 1024;

impl Tagged {
    pub fn learn<'a>(&self, ids: impl Iterator<Item = &'a str>) {
        for id in ids.filter(|id| id.ends_with(TAG)) {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < MOST_KEPT && !known.contains(id) {
                known.insert(id.into());
            }
        }
    }

    /// Whether the tag at the end of the name is only that of a list, and means nothing to the upstream.
    fn is_added(&self, name: &str) -> bool {
        name.ends_with(TAG) && !self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// A translated body, which names its model without the tag, with the name that the upstream knows.
    pub fn restore(&self, name: &str, body: Vec<u8>) -> Vec<u8> {
        if !name.ends_with(TAG) || self.is_added(name) {
            return body;
        }
        let Ok([Some(place)]) = peek::top_level(&body, ["model"]) else { return body };
        let mut out = body;
        // Before the quote that ends the name.
        let end = place.end.saturating_sub(1);
        out.splice(end..end, TAG.bytes());
        out
    }
}

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
pub async fn take_off(ex: &mut Exchange, limit: usize, tagged: &Tagged) -> Result<(), HandlerError> {
    if let Some(path) = ex.uri.path().strip_suffix(TAG) {
        let name = ex.uri.path().strip_prefix("/v1/models/").unwrap_or("");
        if !tagged.is_added(&percent_decode_str(name).decode_utf8_lossy()) {
            return Ok(());
        }
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
    if !tagged.is_added(&model) {
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
        sent_knowing(&Tagged::default(), path, body)
    }

    fn sent_knowing(tagged: &Tagged, path: &str, body: &'static str) -> (String, Bytes) {
        let mut ex = exchange("POST", path);
        ex.body = Body::from(body);
        if may_have_tag(&ex) {
            block_on(take_off(&mut ex, 1 << 20, tagged)).unwrap();
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

    #[test]
    fn a_name_that_the_upstream_has_with_the_tag_keeps_it() {
        let tagged = Tagged::default();
        tagged.learn(["org/own:latest", "gpt-4o"].into_iter());
        let body = r#"{"model":"org/own:latest"}"#;
        assert_eq!(sent_knowing(&tagged, "/v1/chat/completions", body).1, body);
        assert_eq!(sent_knowing(&tagged, "/v1/models/org%2Fown:latest", "x").0, "/v1/models/org%2Fown:latest");
        assert_eq!(
            tagged.restore("org/own:latest", br#"{"model":"org/own","n":1}"#.to_vec()),
            br#"{"model":"org/own:latest","n":1}"#
        );
        for name in ["gpt-4o:latest", "gpt-4o", "org/own"] {
            assert_eq!(tagged.restore(name, body.into()), body.as_bytes(), "{name}");
        }
    }
}
