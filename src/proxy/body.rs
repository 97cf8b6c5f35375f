//! Bodies on their way through: one that counts as under way until it ends, one that was read ahead.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::state::InFlight;
use crate::base::body::Body;
use crate::base::error::ProxyError;

/// Keeps its upstream's request count up until it is dropped.
pub struct Counted {
    inner: Body,
    _guard: InFlight,
}

impl Counted {
    pub fn new(inner: Body, guard: InFlight) -> Self {
        Self { inner, _guard: guard }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What was read ahead, then the rest.
struct ReadAhead {
    /// In order; trailers can only be the last.
    first: std::collections::VecDeque<Frame<Bytes>>,
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

/// Reads up to `limit` bytes (`None` = all) before anything is passed on. A body that fits whole becomes
/// [`Body::Full`] and can be sent again; one with trailers, or longer than the limit, stays a stream.
pub async fn read_ahead(body: Body, limit: Option<u64>) -> Result<Body, ProxyError> {
    let Body::Stream(mut stream) = body else { return Ok(body) };
    let mut first = std::collections::VecDeque::new();
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
    use crate::proxy::testing::{block_on, chunks};

    #[test]
    fn a_body_within_the_limit_is_whole() {
        let body = block_on(read_ahead(chunks(&["ab", "cd"]), Some(5))).unwrap();
        assert!(matches!(body, Body::Full(b) if &b[..] == b"abcd"));
    }

    #[test]
    fn a_longer_body_loses_nothing() {
        let body = block_on(read_ahead(chunks(&["ab", "cd", "ef"]), Some(3))).unwrap();
        assert!(matches!(&body, Body::Stream(_)));
        assert_eq!(&block_on(body.collect()).unwrap().to_bytes()[..], b"abcdef");
        let body = block_on(read_ahead(chunks(&["ab", "cd", "ef"]), None)).unwrap();
        assert!(matches!(body, Body::Full(b) if &b[..] == b"abcdef"));
    }
}
