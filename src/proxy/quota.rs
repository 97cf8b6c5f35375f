//! A `429` that will not pass by waiting: the account has no money left (OpenAI's `insufficient_quota`), or the answer
//! itself says that asking again is pointless.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as HttpBody, Frame};
use serde::Deserialize;

use super::replay::RequestBody;
use crate::base::body::Body;
use crate::base::error::ProxyError;
use crate::http::exchange::Response;

/// Bytes of an answer that are read to understand it. Errors of providers take a few hundred.
const LOOK: usize = 16 << 10;

/// How long the answer's body is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether this `429` stays so for this key. Reads, and keeps, the beginning of its body.
pub(super) async fn is_spent(response: &mut Response) -> bool {
    if response.headers().get("x-should-retry").is_some_and(|v| v == "false") {
        return true;
    }
    let Some(packing) = packing(response.headers()) else { return false };
    if response.body().size_hint().lower() > LOOK as u64 {
        return false;
    }
    let mut body = RequestBody::new(response.body_mut().take(), 0);
    let looked = tokio::time::timeout(PATIENCE, body.read_ahead(LOOK)).await;
    let (body, spent) = match looked {
        Ok(Ok(text)) => (body.next(), says_spent(&text, packing)),
        Ok(Err(error)) => (Some(Body::stream(Cut(Some(error)))), false),
        Err(_) => (body.next(), false),
    };
    *response.body_mut() = body.unwrap_or_default();
    spent
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
}

/// `None` when the body is not JSON that can be read here.
fn packing(headers: &HeaderMap) -> Option<Packing> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if !kind.split(';').next()?.trim().eq_ignore_ascii_case("application/json") {
        return None;
    }
    match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
        None => Some(Packing::Plain),
        Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => Some(Packing::Gzip),
        Some(_) => None,
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Fault,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default, rename = "type")]
    kind: serde_json::Value,
    #[serde(default)]
    code: serde_json::Value,
}

fn says_spent(text: &[u8], packing: Packing) -> bool {
    let mut plain = Vec::new();
    let text = match packing {
        Packing::Plain => text,
        Packing::Gzip => {
            let read = flate2::read::MultiGzDecoder::new(text).take(LOOK as u64).read_to_end(&mut plain);
            if read.is_err() {
                return false;
            }
            &plain
        }
    };
    let Ok(Answer { error }) = serde_json::from_slice(text) else { return false };
    [error.kind, error.code].iter().any(|word| {
        matches!(word.as_str(), Some("insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active"))
    })
}

/// The rest of a body that broke off while it was looked at.
struct Cut(Option<ProxyError>);

impl HttpBody for Cut {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::{HeaderValue, StatusCode};
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::body_filter::testing::broken;
    use crate::proxy::testing::{block_on, chunks};

    const SPENT: &str = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;

    fn answer(headers: &[(&'static str, &'static str)], body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        for (name, value) in headers {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        response
    }

    /// Whether it is spent, and the body as it is afterwards.
    fn look(headers: &[(&'static str, &'static str)], body: Body) -> (bool, Option<Bytes>) {
        block_on(async {
            let mut response = answer(headers, body);
            let spent = is_spent(&mut response).await;
            (spent, response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes))
        })
    }

    #[test]
    fn an_account_without_quota_is_told_from_a_rate_limit() {
        let json = [("content-type", "application/json; charset=utf-8")];
        let rate = r#"{"error":{"message":"insufficient_quota","type":"tokens","code":"rate_limit_exceeded"}}"#;
        assert_eq!(look(&json, chunks(&[&SPENT[..20], &SPENT[20..]])), (true, Some(Bytes::from(SPENT))));
        for body in [rate, "{}", "[]", "", r#"{"error":"insufficient_quota"}"#, r#"{"error":{"code":5}}"#] {
            assert_eq!(look(&json, Body::from(body)), (false, Some(Bytes::from(body))), "{body}");
        }
        assert!(!look(&[("content-type", "text/html")], Body::from(SPENT)).0);
        assert!(look(&[("x-should-retry", "false")], Body::Empty).0);
    }

    #[test]
    fn a_packed_answer_is_read_and_passed_on_as_it_is() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(SPENT.as_bytes()).unwrap();
        let packed = Bytes::from(packer.finish().unwrap());
        let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert_eq!(look(&gzip, Body::Full(packed.clone())), (true, Some(packed)));
        assert_eq!(look(&gzip, Body::from(SPENT)), (false, Some(Bytes::from(SPENT))));
    }

    #[test]
    fn a_body_that_is_long_silent_or_cut_stays_what_it_is() {
        let json = [("content-type", "application/json")];
        let long = "x".repeat(3 * LOOK);
        assert_eq!(look(&json, Body::from(long.clone())), (false, Some(Bytes::from(long))));
        assert_eq!(look(&json, broken(vec![Bytes::from_static(b"{")])), (false, None));
        block_on(async {
            let mut response = answer(&json, Body::stream(Silent));
            assert!(!is_spent(&mut response).await);
        });
    }

    struct Silent;
    impl HttpBody for Silent {
        type Data = Bytes;
        type Error = ProxyError;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
            Poll::Pending
        }
    }
}
