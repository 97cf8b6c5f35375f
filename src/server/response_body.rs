//! A response's body and who is told how it ended. Over HTTP/2 hyper polls it: counts bytes and says exactly once how
//! it ended; over HTTP/1 the connection takes it apart and does so itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::base::body::Body;
use crate::base::error::ProxyError;

/// How a response body ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The producer failed; the client sees a broken stream.
    Failed,
    /// The client went away before the end.
    ClientGone,
}

/// Told once when the body has ended, with the bytes handed to the connection.
pub trait OnEnd {
    fn ended(self: Box<Self>, end: End, bytes: u64);
}

/// What a response carries of its body: nothing in answer to HEAD, nor with a status that has none (RFC 9110 section
/// 6.4.1).
pub fn fitting(head_only: bool, head: &mut http::response::Parts, body: Body) -> Body {
    let bodiless = head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
    if bodiless || !head_only {
        return if bodiless { Body::Empty } else { body };
    }
    // The length that GET would have told; of an empty body it may be anybody's.
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Body::Empty
}

pub struct ResponseBody {
    inner: Body,
    bytes: u64,
    end: Option<End>,
    /// What the producer failed with, until the connection has had its turn.
    broken: Option<ProxyError>,
    on_end: Option<Box<dyn OnEnd>>,
}

impl ResponseBody {
    pub fn new(inner: Body, on_end: Option<Box<dyn OnEnd>>) -> Self {
        Self { inner, bytes: 0, end: None, broken: None, on_end }
    }

    /// The body alone, and whom to tell.
    pub fn into_parts(mut self) -> (Body, Option<Box<dyn OnEnd>>) {
        (self.inner.take(), self.on_end.take())
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match polled {
            Some(Ok(ref frame)) => self.bytes += frame.data_ref().map_or(0, |d| d.len() as u64),
            Some(Err(error)) => {
                self.end = Some(End::Failed);
                // A reset drops what is queued, be it the head. A client that has no head asks again, and pays again: so
                // the connection, which is ready to write, writes first.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => self.end = Some(End::Complete),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            // hyper does not ask again once it knows that a body is at its end.
            let end = self.end.unwrap_or(if self.inner.is_end_stream() { End::Complete } else { End::ClientGone });
            on_end.ended(end, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    #[test]
    fn an_answer_to_head_tells_the_length_alone() {
        let head = |status: u16| Response::builder().status(status).body(()).unwrap().into_parts().0;
        let mut ok = head(200);
        assert!(fitting(true, &mut ok, Body::from("hello")).is_empty());
        assert_eq!(ok.headers["content-length"], "5");
        assert!(!fitting(false, &mut head(200), Body::from("hello")).is_empty());
        let mut none = head(204);
        assert!(fitting(false, &mut none, Body::from("hello")).is_empty() && none.headers.is_empty());
    }
}
