//! Reads the first part of a body before anything is passed on, and loses nothing of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::base::body::Body;
use crate::base::error::ProxyError;

/// What was read ahead, then the rest.
struct ReadAhead {
    /// In order; trailers can only be the last.
    first: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for ReadAhead {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self.first.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held: u64 = self.first.iter().filter_map(Frame::data_ref).map(|d| d.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

/// Reads until `limit` bytes are there (`None` = all). A body that fits whole becomes [`Body::Full`] and can be sent
/// again; one with trailers, or longer than the limit, stays a stream, whose least size is what was read.
pub async fn read_ahead(body: Body, limit: Option<u64>) -> Result<Body, ProxyError> {
    let Body::Stream(mut stream) = body else { return Ok(body) };
    let mut first = VecDeque::new();
    let mut held: u64 = 0;
    while limit.is_none_or(|limit| held < limit) {
        match stream.frame().await {
            None => {
                let whole: Vec<Bytes> = first.into_iter().filter_map(|f: Frame<Bytes>| f.into_data().ok()).collect();
                return Ok(Body::Full(join(whole)));
            }
            Some(frame) => {
                let frame = frame?;
                held += frame.data_ref().map_or(0, |d| d.len() as u64);
                let last = frame.is_trailers();
                first.push_back(frame);
                if last {
                    break;
                }
            }
        }
    }
    Ok(Body::stream(ReadAhead { first, rest: Body::Stream(stream) }))
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut out = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        out.extend_from_slice(&part);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body_filter::testing::byte_chunks;

    fn pieces(parts: &[&'static str]) -> Body {
        byte_chunks(parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect())
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_whole() {
        let body = read_ahead(pieces(&["ab", "cd"]), Some(5)).await.unwrap();
        assert!(matches!(body, Body::Full(b) if &b[..] == b"abcd"));
    }

    #[tokio::test]
    async fn a_longer_body_loses_nothing() {
        let body = read_ahead(pieces(&["ab", "cd", "ef"]), Some(3)).await.unwrap();
        assert!(matches!(&body, Body::Stream(_)));
        assert_eq!(&body.collect().await.unwrap().to_bytes()[..], b"abcdef");
        let body = read_ahead(pieces(&["ab", "cd", "ef"]), None).await.unwrap();
        assert!(matches!(body, Body::Full(b) if &b[..] == b"abcdef"));
    }
}
