//! The response body as hyper polls it: counts bytes and says exactly once how it ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
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

pub struct ResponseBody {
    inner: Body,
    bytes: u64,
    end: Option<End>,
    on_end: Option<Box<dyn OnEnd>>,
}

impl ResponseBody {
    pub fn new(inner: Body, on_end: Option<Box<dyn OnEnd>>) -> Self {
        Self { inner, bytes: 0, end: None, on_end }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => self.bytes += frame.data_ref().map_or(0, |d| d.len() as u64),
            Some(Err(_)) => self.end = Some(End::Failed),
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
