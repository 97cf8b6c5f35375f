//! Serving one HTTP/1 connection: requests one after the other, each answered whole before the next is looked at.
//!
//! ```text
//! Link ─head─▶ request_head::parse ─▶ request::serve ─▶ response_head::write ─▶ Transmit ─▶ Link
//!   ▲                                     │ body, as it is asked for
//!   └─────────────────────────────────────┘
//! ```
//!
//! | a client may not | because |
//! |---|---|
//! | send a head longer than `max_header_size`, or more than 100 fields | 431 |
//! | say in two ways how long its body is, end a line by a bare line feed, fold a field | 400 (`request_head`) |
//! | take longer for a head than `read_header`, or be idle longer than `idle` | closed by the worker's tick |
//! | have the connection go on behind a large body that nobody read | closed |
//!
//! Between requests nothing is held but the socket: heads are read through a buffer of the worker's.

mod link;
pub mod request_head;
mod response_head;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Response, StatusCode, header};
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;

use super::connection::ConnCx;
use super::request::{self, Incoming};
use super::response_body::{End, OnEnd};
use super::socket::Socket;
use super::upgrade::Upgrade;
use crate::base::body::Body;
use crate::base::field_list;
use crate::base::spare_headers;
use crate::client::h1::head::Sending;
use crate::client::h1::transmit::{self, Fault, Transmit};
use link::{Link, Next};
use request_head::RequestHead;
use response_head::Asked;

/// How long a client may take to send what is left of a body that nobody wanted, and to close.
const LINGER: Duration = Duration::from_millis(500);
/// How long what was already there may take to be written once a response has failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Largest buffer that is kept for the next response.
const KEPT: usize = 16 << 10;

thread_local! {
    /// Where heads and small bodies are put together: one for all responses of a worker that are short.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Serves the connection until it ends. Once it is told to drain: answers what is open, then closes.
pub async fn serve(cx: Rc<ConnCx>, socket: Socket, max_head: usize) {
    let link = Link::new(socket, Rc::clone(&cx.state), max_head);
    loop {
        let head = match poll_fn(|cx| link.poll_head(cx)).await {
            Next::Head(head) => head,
            Next::Refuse(status) => return refuse(&link, status).await,
            Next::End => return close(&link).await,
        };
        match request_head::parse(&head) {
            Ok(head) => {
                if answer(&cx, &link, head).await == After::Close {
                    return;
                }
            }
            Err(status) => return refuse(&link, status).await,
        }
    }
}

#[derive(PartialEq, Eq)]
enum After {
    Next,
    Close,
}

async fn answer(cx: &Rc<ConnCx>, link: &Rc<Link>, head: RequestHead) -> After {
    let asked = Asked { version: head.parts.version, head_only: head.parts.method == Method::HEAD };
    // RFC 9110 section 6.5.1: they go to who said that it takes them.
    let trailers = field_list::says(&head.parts.headers, &header::TE, "trailers");
    let (upgrade, mut switched) = if head.parts.headers.contains_key(header::UPGRADE) {
        let (tx, upgraded) = oneshot::channel();
        (Some(Box::new(Upgrade { upgraded, state: Rc::clone(&cx.state) }) as Box<_>), Some(tx))
    } else {
        (None, None)
    };
    let keep_alive = head.keep_alive;
    let body = link.begin_body(head.body, head.expects);
    let incoming = Incoming { head: head.parts, body, bytes_read: Rc::clone(&link.bytes_read), upgrade };
    // Boxed: an idle connection has no room for it.
    let mut serving = Box::pin(request::serve(Rc::clone(cx), incoming));
    let served = poll_fn(|cx| match serving.as_mut().poll(cx) {
        Poll::Ready(served) => Poll::Ready(served.ok()),
        Poll::Pending => link.poll_gone(cx).map(|()| None),
    })
    .await;
    drop(serving);
    // None: the client has left, or a handler wants the connection closed without a word.
    let Some(response) = served else { return After::Close };
    let (head, body) = response.into_parts();
    let (body, on_end) = body.into_parts();
    let sending = response_head::sending(asked, &head, &body);
    let mut close = !keep_alive
        || cx.state.is_draining()
        || sending == Sending::UntilClose
        || field_list::says(&head.headers, &header::CONNECTION, "close")
        || link.body_is_a_burden();
    let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut buffer = BUFFER.take();
    response_head::write(asked, &head, sending, close && !switching, &mut buffer);
    let announced = match sending {
        Sending::Chunked if trailers => transmit::announced(&head.headers),
        _ => Vec::new(),
    };
    spare_headers::keep(head.headers);
    if poll_fn(|cx| link.poll_begun_continue(cx)).await.is_err() {
        close = true;
    }
    let mut outgoing = Outgoing { transmit: Transmit::behind_head(buffer, sending, body, announced), on_end };
    let sent = poll_fn(|cx| outgoing.poll(link, cx)).await;
    if switching && sent == End::Complete {
        outgoing.ended(End::Complete);
        if let (Some(tx), Some(socket)) = (switched.take(), link.take_socket()) {
            // Nobody there: the tunnel was given up.
            let _ = tx.send(socket);
        }
        return After::Close;
    }
    if sent == End::Failed {
        // What came before it broke still belongs to the client; the missing end tells the rest.
        let rest = poll_fn(|cx| outgoing.transmit.poll_buffered(&mut link.write_side(), cx));
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        if sending == Sending::UntilClose {
            link.reset_on_close();
        }
    }
    outgoing.ended(sent);
    if sent != End::Complete {
        return After::Close;
    }
    outgoing.give_back();
    link.end_body();
    if !close && !link.has_whole_body() {
        let mut read = 0;
        let rest = poll_fn(|cx| link.poll_rest(cx, &mut read));
        close = !tokio::time::timeout(LINGER, rest).await.unwrap_or(false);
    }
    if close {
        self::close(link).await;
        return After::Close;
    }
    After::Next
}

/// An answer before any route: the request cannot be understood, so the connection ends with it.
async fn refuse(link: &Rc<Link>, status: StatusCode) {
    let (head, ()) = Response::builder().status(status).body(()).unwrap_or_default().into_parts();
    let asked = Asked { version: http::Version::HTTP_11, head_only: false };
    let mut buffer = Vec::with_capacity(128);
    response_head::write(asked, &head, Sending::Nothing, true, &mut buffer);
    let mut transmit = Transmit::behind_head(buffer, Sending::Nothing, Body::Empty, Vec::new());
    let sent = tokio::time::timeout(LAST_WORDS, poll_fn(|cx| transmit.poll(&mut link.write_side(), cx))).await;
    if matches!(sent, Ok(Ok(()))) {
        linger(link).await;
    }
}

/// Ends the connection after a whole response.
async fn close(link: &Rc<Link>) {
    if link.has_unread() {
        linger(link).await;
    } else if link.is_tls() {
        // Without it the client cannot tell the end from a cut.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| Pin::new(&mut link.write_side()).poll_shutdown(cx))).await;
    }
}

/// Closes our side and waits a little for the client to close its own: a socket closed with unread bytes is reset,
/// and the client may lose the answer (RFC 9112 section 9.6).
async fn linger(link: &Rc<Link>) {
    let mut read = 0;
    let mut shut = false;
    let gone = poll_fn(|cx| {
        if !shut {
            if Pin::new(&mut link.write_side()).poll_shutdown(cx).is_pending() {
                return Poll::Pending;
            }
            shut = true;
        }
        link.poll_discard(cx, &mut read)
    });
    let _ = tokio::time::timeout(LINGER, gone).await;
}

/// A response on its way to the client; says exactly once how it ended.
struct Outgoing {
    transmit: Transmit,
    on_end: Option<Box<dyn OnEnd>>,
}

impl Outgoing {
    /// While nothing is to be sent it looks whether the client is still there.
    fn poll(&mut self, link: &Link, cx: &mut Context<'_>) -> Poll<End> {
        match self.transmit.poll(&mut link.write_side(), cx) {
            Poll::Ready(Ok(())) => Poll::Ready(End::Complete),
            Poll::Ready(Err(Fault::Body(_))) => Poll::Ready(End::Failed),
            Poll::Ready(Err(Fault::Io(_))) => Poll::Ready(End::ClientGone),
            Poll::Pending => link.poll_gone(cx).map(|()| End::ClientGone),
        }
    }

    /// Keeps the buffer for the next response.
    fn give_back(&mut self) {
        let buffer = self.transmit.take_buffer();
        if buffer.capacity() <= KEPT {
            BUFFER.set(buffer);
        }
    }

    fn ended(&mut self, end: End) {
        if let Some(on_end) = self.on_end.take() {
            on_end.ended(end, self.transmit.content);
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.ended(End::ClientGone);
    }
}
