//! A body on its way through that counts as under way until it ends.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

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
