//! What the loop of an HTTP/1 connection and the body of the request being answered share: socket, bytes read ahead,
//! the state of the body.
//!
//! A body may be read from another task while the loop writes the response, so each part is borrowed for one operation
//! at a time. Only one of them reads: the body until it ends, then the loop, which so learns that the client has left.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::request_head::is_hopeless;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::client::h1::head;
use crate::client::h1::receive::{BodyReader, Fault, read_small};
use crate::server::conn_state::ConnState;
use crate::server::socket::Socket;

/// What is read of a body nobody wanted, so that the connection can go on; as Go's server.
const UNWANTED: u64 = 256 << 10;

pub struct Link {
    socket: RefCell<Option<Socket>>,
    /// Read and not yet looked at: further requests.
    ahead: RefCell<Bytes>,
    /// A head that has not ended.
    partial: RefCell<Vec<u8>>,
    max_head: usize,
    /// The body of the request being answered, until it has been read.
    body: RefCell<Option<BodyReader>>,
    /// Counts requests: a body that outlives its request reads nothing more.
    request: Cell<u32>,
    /// Somebody may still read the body.
    wanted: Cell<bool>,
    /// `100 Continue` is still to be sent, from here on.
    expected: Cell<Option<usize>>,
    /// Bytes of the body given to who reads it.
    pub bytes_read: Rc<Cell<u64>>,
    state: Rc<ConnState>,
}

/// What comes next on a connection.
pub enum Next {
    Head(Bytes),
    Refuse(StatusCode),
    End,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Link {
    pub fn new(socket: Socket, state: Rc<ConnState>, max_head: usize) -> Rc<Self> {
        Rc::new(Self {
            socket: RefCell::new(Some(socket)),
            ahead: RefCell::default(),
            partial: RefCell::default(),
            max_head,
            body: RefCell::default(),
            request: Cell::new(0),
            wanted: Cell::new(false),
            expected: Cell::new(None),
            bytes_read: Rc::default(),
            state,
        })
    }

    /// The head of the next request.
    pub fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut partial = self.partial.borrow_mut();
        loop {
            let ahead = self.ahead.take();
            let found = if ahead.is_empty() {
                if partial.is_empty() && self.state.is_draining() {
                    return Poll::Ready(Next::End);
                }
                let mut socket = Half(&self.socket);
                match read_small(&mut socket, cx, |bytes| self.look(&mut partial, bytes)) {
                    Poll::Ready(Ok(found)) => found,
                    Poll::Ready(Err(_)) => return Poll::Ready(Next::End),
                    Poll::Pending => {
                        // TLS may have something to say to what was read: no renegotiation, new keys.
                        let failed =
                            self.is_tls() && matches!(Pin::new(&mut socket).poll_flush(cx), Poll::Ready(Err(_)));
                        return if failed { Poll::Ready(Next::End) } else { Poll::Pending };
                    }
                }
            } else {
                self.look(&mut partial, &ahead)
            };
            if let Some(next) = found {
                return Poll::Ready(next);
            }
        }
    }

    /// Takes the head from what came, keeps the rest.
    fn look(&self, partial: &mut Vec<u8>, bytes: &[u8]) -> Option<Next> {
        if bytes.is_empty() {
            return Some(Next::End);
        }
        let before = partial.len();
        // Blank lines before a request line are passed over (RFC 9112 section 2.2).
        let blank = if before == 0 { bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count() } else { 0 };
        let bytes = bytes.get(blank..).unwrap_or(b"");
        let (head, rest) = if before == 0
            && let Some(end) = head::end(bytes, 0)
        {
            let (head, rest) = bytes.split_at(end);
            (Bytes::copy_from_slice(head), Bytes::copy_from_slice(rest))
        } else {
            partial.extend_from_slice(bytes);
            let Some(end) = head::end(partial, before) else {
                let refused = if partial.len() > self.max_head {
                    Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
                } else {
                    is_hopeless(partial).then_some(StatusCode::BAD_REQUEST)
                };
                return refused.map(Next::Refuse);
            };
            let mut all = Bytes::from(std::mem::take(partial));
            let head = all.split_to(end);
            (head, all)
        };
        self.ahead.replace(rest);
        if head.len() > self.max_head {
            return Some(Next::Refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        }
        Some(Next::Head(head))
    }

    /// The body of the request whose head was just taken.
    pub fn begin_body(self: &Rc<Self>, receiving: head::Receiving, expects: bool) -> Body {
        self.request.set(self.request.get().wrapping_add(1));
        self.bytes_read.set(0);
        self.expected.set(None);
        if receiving == head::Receiving::Nothing {
            self.wanted.set(false);
            return Body::Empty;
        }
        let mut reader = BodyReader::new(receiving, self.ahead.take());
        if let Some(whole) = reader.whole() {
            self.ahead.replace(reader.into_surplus());
            self.bytes_read.set(whole.len() as u64);
            return Body::from(whole);
        }
        let hint = reader.size_hint();
        self.body.replace(Some(reader));
        self.wanted.set(true);
        self.expected.set(expects.then_some(0));
        Body::stream(RequestBody { link: Rc::clone(self), request: self.request.get(), hint, ended: false })
    }

    /// True when all of the body has come.
    pub fn has_whole_body(&self) -> bool {
        self.body.borrow().is_none()
    }

    /// The body is of no more use to anybody; whoever still holds it reads nothing.
    pub fn end_body(&self) {
        self.request.set(self.request.get().wrapping_add(1));
        self.wanted.set(false);
    }

    /// True when what is left of a body nobody reads is too much to be worth reading.
    pub fn body_is_a_burden(&self) -> bool {
        let waits = self.expected.get().is_some();
        let body = self.body.borrow();
        body.as_ref().is_some_and(|b| !self.wanted.get() && (waits || b.size_hint().lower() > UNWANTED))
    }

    /// Reads what is left of the body. Ready with whether the connection is at the next request.
    pub fn poll_rest(&self, cx: &mut Context<'_>, read: &mut u64) -> Poll<bool> {
        if self.expected.get().is_some() {
            // The client may send the body or not.
            return Poll::Ready(false);
        }
        while *read <= UNWANTED {
            match ready!(self.poll_body(cx)) {
                Some(Ok(frame)) => *read += frame.data_ref().map_or(0, |d| d.len() as u64),
                Some(Err(_)) => return Poll::Ready(false),
                None => return Poll::Ready(true),
            }
        }
        Poll::Ready(false)
    }

    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut slot = self.body.borrow_mut();
        let Some(reader) = slot.as_mut() else { return Poll::Ready(None) };
        let polled = ready!(reader.poll(&mut Half(&self.socket), cx));
        if matches!(polled, None | Some(Ok(_)))
            && reader.is_ended()
            && let Some(reader) = slot.take()
        {
            self.ahead.replace(reader.into_surplus());
        }
        Poll::Ready(polled)
    }

    fn poll_continue(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(written) = self.expected.get() {
            let rest = CONTINUE.get(written..).unwrap_or(b"");
            let mut socket = Half(&self.socket);
            if rest.is_empty() {
                ready!(Pin::new(&mut socket).poll_flush(cx))?;
                self.expected.set(None);
            } else {
                let n = ready!(Pin::new(&mut socket).poll_write(cx, rest))?;
                self.expected.set(Some(written + n));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A `100 Continue` of which a part is written is written whole; one not begun is not needed any more.
    pub fn poll_begun_continue(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.expected.get(), Some(written) if written > 0) {
            self.poll_continue(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Something came that nobody has read.
    pub fn has_unread(&self) -> bool {
        !self.has_whole_body() || !self.ahead.borrow().is_empty()
    }

    pub fn is_tls(&self) -> bool {
        self.socket.borrow().as_ref().is_some_and(Socket::is_tls)
    }

    /// Ready once the client has closed. Reads only when nobody else does, and no more than one piece.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_whole_body() {
            return Poll::Pending;
        }
        let mut ahead = self.ahead.borrow_mut();
        if !ahead.is_empty() {
            return Poll::Pending;
        }
        let mut socket = Half(&self.socket);
        match ready!(read_small(&mut socket, cx, Bytes::copy_from_slice)) {
            Ok(bytes) if !bytes.is_empty() => {
                // The next request, sent ahead of this one's answer.
                *ahead = bytes;
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Reads and forgets; ready at the end.
    pub fn poll_discard(&self, cx: &mut Context<'_>, read: &mut u64) -> Poll<()> {
        while *read <= 4 * UNWANTED {
            match ready!(read_small(&mut Half(&self.socket), cx, <[u8]>::len)) {
                Ok(n) if n > 0 => *read += n as u64,
                _ => break,
            }
        }
        Poll::Ready(())
    }

    pub fn write_side(&self) -> Half<'_> {
        Half(&self.socket)
    }

    /// The socket for another protocol, with what was read ahead of it.
    pub fn take_socket(&self) -> Option<Socket> {
        let mut socket = self.socket.take()?;
        socket.give_back(&self.ahead.take());
        Some(socket)
    }

    /// Has the socket closed by a reset, so that what was sent cannot pass for the whole.
    pub fn reset_on_close(&self) {
        if let Some(socket) = &*self.socket.borrow() {
            socket.reset_on_close();
        }
    }
}

/// The socket, borrowed for each operation.
pub struct Half<'l>(&'l RefCell<Option<Socket>>);

impl Half<'_> {
    fn with<T>(&self, work: impl FnOnce(Pin<&mut Socket>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.0.borrow_mut() {
            Some(socket) => work(Pin::new(socket)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Half<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|s| s.poll_read(cx, buf))
    }
}

impl AsyncWrite for Half<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|s| s.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|s| s.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|s| s.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|s| s.poll_shutdown(cx))
    }
}

/// A request body that comes while the request is being answered.
struct RequestBody {
    link: Rc<Link>,
    request: u32,
    /// What was known of its length at the start.
    hint: SizeHint,
    ended: bool,
}

impl RequestBody {
    fn is_current(&self) -> bool {
        self.link.request.get() == self.request
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.is_current() {
            let error = ProxyError::new(Kind::ClientGone, Retry::No, "the request has been answered already");
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match ready!(self.link.poll_continue(cx)) {
            Ok(()) => ready!(self.link.poll_body(cx)),
            Err(error) => Some(Err(Fault::Io(error))),
        };
        Poll::Ready(match polled {
            None => {
                self.ended = true;
                None
            }
            Some(Ok(frame)) => {
                let read = &self.link.bytes_read;
                read.set(read.get() + frame.data_ref().map_or(0, |d| d.len() as u64));
                self.ended = self.link.has_whole_body();
                Some(Ok(frame))
            }
            Some(Err(fault)) => Some(Err(fault_of_client(fault))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::with_exact(0);
        }
        match &*self.link.body.borrow() {
            Some(reader) if self.is_current() => reader.size_hint(),
            _ => self.hint,
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.is_current() {
            self.link.wanted.set(false);
        }
    }
}

fn fault_of_client(fault: Fault) -> ProxyError {
    match fault {
        Fault::Protocol(why) => ProxyError::new(Kind::ClientBody, Retry::No, why),
        Fault::Closed => ProxyError::new(Kind::ClientGone, Retry::No, "the client closed before its body ended"),
        Fault::Io(error) => ProxyError::new(Kind::ClientGone, Retry::No, error.to_string()),
    }
}
