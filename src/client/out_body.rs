//! The request body on its way out over HTTP/2, where the connection polls it: says when it is fully read, and can be cancelled from the response's side.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

pub(super) struct OutBody {
    body: Body,
    /// Only for a body that streams: the others are complete from the start.
    upload: Option<Rc<Upload>>,
}

/// The state of a streaming upload, seen from the response.
#[derive(Default)]
pub(super) struct Upload {
    done: Cell<bool>,
    cancelled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl OutBody {
    pub fn new(body: Body) -> Self {
        let upload = matches!(body, Body::Stream(_)).then(Rc::default);
        if let Some(upload) = &upload {
            let upload: &Rc<Upload> = upload;
            upload.done.set(body.is_empty());
        }
        Self { body, upload }
    }

    pub fn upload(&self) -> Option<Rc<Upload>> {
        self.upload.clone()
    }

    pub fn into_inner(self) -> Body {
        self.body
    }
}

impl Upload {
    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Ends the upload with an error, which resets an HTTP/2 stream.
    pub fn cancel(&self) {
        if !self.done.get() {
            self.cancelled.set(true);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

impl HttpBody for OutBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        let Some(upload) = &this.upload else { return Pin::new(&mut this.body).poll_frame(cx) };
        if upload.cancelled.get() {
            return Poll::Ready(Some(Err(ProxyError::new(Kind::ClientGone, Retry::No, "the response was dropped"))));
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => upload.done.set(true),
            Poll::Ready(Some(Ok(frame))) => {
                if frame.is_trailers() || this.body.is_empty() {
                    upload.done.set(true);
                }
            }
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending => {
                let mut waker = upload.waker.borrow_mut();
                match &mut *waker {
                    Some(old) => old.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
