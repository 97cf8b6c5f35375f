//! Puts another model in the place of the one a request asks for: only the bytes that name it change.

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::exchange::Exchange;
use super::requested_model::{Peeked, Place, place_in_uri};
use crate::base::body::Body;

/// What stands for itself in a segment of a path and in a query.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
/// `/v1/models/ID` is the rest of the path, slashes and all.
const REST: &AsciiSet = &SEGMENT.remove(b'/');

impl Exchange {
    /// Names `model` wherever [`Exchange::requested_model`] found a name: in the path or query, else in the held body.
    /// `false` when there is none; then nothing changed.
    pub fn rename_model(&mut self, model: &str) -> bool {
        if place_in_uri(&self.uri).is_some() {
            return self.rename_in_uri(model).is_some();
        }
        let (Body::Full(body), Some(place)) = (&self.body, self.model_place()) else { return false };
        let (range, name) = match place {
            Place::Json(range) => (range, serde_json::Value::from(model).to_string()),
            Place::Part(range) => (range, model.to_owned()),
        };
        let mut edited = Vec::with_capacity(body.len() - range.len() + name.len());
        edited.extend_from_slice(&body[..range.start]);
        edited.extend_from_slice(name.as_bytes());
        edited.extend_from_slice(&body[range.end..]);
        let edited = Bytes::from(edited);
        self.replace_body(edited.clone());
        self.peeked = Some(Peeked::known(edited, model));
        true
    }

    fn rename_in_uri(&mut self, model: &str) -> Option<()> {
        let place = place_in_uri(&self.uri)?;
        let target = self.uri.path_and_query()?.as_str();
        let is_rest = target[..place.start].ends_with("/v1/models/");
        let name = utf8_percent_encode(model, if is_rest { REST } else { SEGMENT });
        let renamed = format!("{}{name}{}", &target[..place.start], &target[place.end..]);
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::try_from(renamed).ok()?);
        self.uri = Uri::from_parts(parts).ok()?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::testing::exchange;
    use super::super::requested_model::ModelOf;
    use super::*;

    fn renamed(content_type: &str, body: &'static [u8], to: &str) -> (bool, Exchange) {
        let headers = [("content-type", content_type), ("content-length", "1")];
        let mut ex = exchange("POST", "/v1/chat/completions", &headers);
        ex.body = Body::Full(Bytes::from_static(body));
        let done = ex.rename_model(to);
        (done, ex)
    }

    fn body(ex: &Exchange) -> &[u8] {
        match &ex.body {
            Body::Full(bytes) => bytes,
            _ => panic!("not held"),
        }
    }

    #[test]
    fn only_the_bytes_of_the_name_change() {
        let sent = b"{\"x\":1.50 , \"mod\\u0065l\" :\"a\", \"p\":\"\xff\", \"model_\":\"a\"}\n";
        let (done, mut ex) = renamed("application/json", sent, "b\"c");
        assert!(done);
        assert_eq!(body(&ex), b"{\"x\":1.50 , \"mod\\u0065l\" :\"b\\\"c\", \"p\":\"\xff\", \"model_\":\"a\"}\n");
        assert_eq!(ex.headers["content-length"], body(&ex).len().to_string());
        assert_eq!(ex.known_model().as_deref(), Some("b\"c"));
        // Looked at anew it is the same.
        ex.peeked = None;
        assert!(matches!(ex.requested_model(1), ModelOf::Named(name) if &*name == "b\"c"));
    }

    #[test]
    fn a_part_of_a_form_is_replaced() {
        let form = b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nmodel\xff\r\n--B\r\n\
            content-disposition: form-data; name=model\r\n\r\nwhisper-1\r\n--B--\r\n";
        let (done, ex) = renamed("multipart/form-data; boundary=B", form, "large-v3");
        assert!(done);
        let expected = String::from_utf8_lossy(form).replace("whisper-1", "large-v3");
        assert_eq!(String::from_utf8_lossy(body(&ex)), expected);
    }

    #[test]
    fn without_a_name_nothing_changes() {
        for (kind, sent) in [("application/json", &b"{\"x\":1}"[..]), ("application/json", b"{"), ("image/png", b"{}")]
        {
            let (done, ex) = renamed(kind, sent, "b");
            assert!(!done);
            assert_eq!((body(&ex), &ex.headers["content-length"]), (sent, &http::HeaderValue::from_static("1")));
        }
    }

    #[test]
    fn paths_and_queries_name_it_too() {
        for (uri, to, expected) in [
            ("/p/v1/models/a%2Fb?x=1", "c/d e", "/p/v1/models/c/d%20e?x=1"),
            (
                "/openai/deployments/a/chat/completions?api-version=1",
                "c/d",
                "/openai/deployments/c%2Fd/chat/completions?api-version=1",
            ),
            ("/v1beta/models/a:generateContent?alt=sse", "g-2.5", "/v1beta/models/g-2.5:generateContent?alt=sse"),
            ("/v1/realtime?x=model=1&model=a&y=2", "r", "/v1/realtime?x=model=1&model=r&y=2"),
        ] {
            let mut ex = exchange("GET", uri, &[]);
            assert!(ex.rename_model(to), "{uri}");
            assert_eq!(ex.uri, expected);
            assert!(matches!(ex.requested_model(1), ModelOf::Named(name) if &*name == to), "{uri}");
        }
    }
}
