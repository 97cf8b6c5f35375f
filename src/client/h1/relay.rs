//! A response that began before its request's body had ended: a task moves both directions, so that the upload goes on
//! while nobody reads the response, and hands over one piece of the response at a time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::task::AbortHandle;

use super::receive::BodyReader;
use super::transmit::{self, Transmit};
use super::{H1, body_error};
use crate::base::body::Body;
use crate::base::error::{ProxyError, Retry};
use crate::client::clock::BodyClock;
use crate::client::target::Target;

type Piece = Result<Frame<Bytes>, ProxyError>;

/// What task and body share.
#[derive(Default)]
struct Window {
    piece: Option<Piece>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

pub(super) fn start(h1: Box<H1>, transmit: Transmit, reader: BodyReader, target: &Target) -> Body {
    let window = Rc::new(RefCell::new(Window::default()));
    let label = Arc::clone(&target.label);
    let mut task = Relay { h1, transmit: Some(transmit), reader, window: Rc::clone(&window), label };
    let handle = tokio::task::spawn_local(async move {
        poll_fn(|cx| task.poll(cx)).await;
        let Relay { h1, transmit, reader, .. } = task;
        // An upload that was never finished leaves the connection of no use.
        if transmit.is_none() && reader.is_ended() {
            h1.give_back(&reader);
        }
    });
    Body::stream(RelayedBody {
        window,
        _ends_with_the_body: Task(handle.abort_handle()),
        clock: BodyClock::new(target),
    })
}

struct Relay {
    h1: Box<H1>,
    /// `None` once all is written.
    transmit: Option<Transmit>,
    reader: BodyReader,
    window: Rc<RefCell<Window>>,
    label: Arc<str>,
}

impl Relay {
    /// Ready once the response has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(transmit) = &mut self.transmit {
            match transmit.poll(&mut self.h1.stream, cx) {
                Poll::Ready(Ok(())) => self.transmit = None,
                Poll::Ready(Err(transmit::Fault::Body(error))) => {
                    return self.end(Some(Err(ProxyError::new(error.kind, Retry::No, error.detail))));
                }
                // No more is taken; what the upstream says goes on.
                Poll::Ready(Err(transmit::Fault::Io(_))) => {
                    self.h1.may_serve_again = false;
                    self.transmit = None;
                }
                Poll::Pending => {}
            }
        }
        loop {
            if self.window.borrow().piece.is_some() {
                self.window.borrow_mut().writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            match self.reader.poll(&mut self.h1.stream, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return self.end(None),
                Poll::Ready(Some(Err(why))) => {
                    self.h1.may_serve_again = false;
                    let error = body_error(&self.label, why);
                    return self.end(Some(Err(error)));
                }
                Poll::Ready(Some(Ok(frame))) => self.put(Some(Ok(frame)), false),
            }
        }
    }

    fn end(&mut self, last: Option<Piece>) -> Poll<()> {
        self.put(last, true);
        Poll::Ready(())
    }

    fn put(&mut self, piece: Option<Piece>, ended: bool) {
        let mut window = self.window.borrow_mut();
        window.piece = piece;
        window.ended = ended;
        if let Some(reader) = window.reader.take() {
            reader.wake();
        }
    }
}

/// Ends the task, and so closes the connection, when dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct RelayedBody {
    window: Rc<RefCell<Window>>,
    _ends_with_the_body: Task,
    clock: BodyClock,
}

impl HttpBody for RelayedBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let this = &mut *self;
        {
            let mut window = this.window.borrow_mut();
            if let Some(piece) = window.piece.take() {
                if let Some(writer) = window.writer.take() {
                    writer.wake();
                }
                this.clock.heard();
                return Poll::Ready(Some(piece));
            }
            if window.ended {
                return Poll::Ready(None);
            }
            window.reader = Some(cx.waker().clone());
        }
        this.clock.poll(cx).map(|error| Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        let window = self.window.borrow();
        window.ended && window.piece.is_none()
    }
}
