//! The one body type that travels between rooms: request and response bodies alike.
//!
//! Data flow: a producer (downstream connection, upstream connection, a handler) makes a [`Body`]; filters wrap it;
//! the server or the client polls it. Dropping a body cancels its producer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::error::ProxyError;

/// A streaming source. Not `Send`: a request lives on one worker.
pub type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = ProxyError>>>;

#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    /// A whole body at hand.
    Full(Bytes),
    Stream(BoxBody),
}

impl Body {
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = ProxyError> + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }

    /// True when no byte and no trailer will come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(b) => b.is_empty(),
            Self::Stream(s) => s.is_end_stream(),
        }
    }

    /// The same body again, when it is at hand.
    #[must_use]
    pub fn spare(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Full(b) => Some(Self::Full(b.clone())),
            Self::Stream(_) => None,
        }
    }

    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Body::Empty",
            Self::Full(_) => "Body::Full",
            Self::Stream(_) => "Body::Stream",
        })
    }
}

impl From<Bytes> for Body {
    fn from(b: Bytes) -> Self {
        if b.is_empty() { Self::Empty } else { Self::Full(b) }
    }
}

impl From<String> for Body {
    fn from(s: String) -> Self {
        Bytes::from(s).into()
    }
}

impl From<&'static str> for Body {
    fn from(s: &'static str) -> Self {
        Bytes::from_static(s.as_bytes()).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(b) => {
                let data = std::mem::take(b);
                *self = Self::Empty;
                Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
            }
            Self::Stream(s) => s.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(b) => SizeHint::with_exact(b.len() as u64),
            Self::Stream(s) => s.size_hint(),
        }
    }
}
