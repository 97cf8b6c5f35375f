//! The reading side of a connection. Small answers go through one buffer of the worker's, so that neither an idle
//! connection nor a quiet stream holds memory; a body that comes fast is read into buffers that travel on uncopied.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::task::coop::unconstrained;

use super::chunked::{Chunked, Step};
use super::head::{self, Head, Receiving};

/// What is read at once of a stream that is not fast.
const SMALL: usize = 16 << 10;
/// What is read at once of one that is.
const LARGE: usize = 32 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SMALL].into());
}

/// Why nothing more can be read.
#[derive(Debug)]
pub enum Fault {
    Closed,
    Io(io::Error),
    Protocol(&'static str),
}

/// Reads once; what came is lent to `take`. Zero bytes are the end.
pub fn read_small<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<io::Result<T>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut buf = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(take(buf.filled())))
    })
}

/// True when the peer has neither closed nor said anything unasked.
pub fn is_quiet<S: AsyncRead + Unpin>(stream: &mut S, cx: &mut Context<'_>) -> bool {
    // A task that spent its budget would find every connection quiet, also one that is closed.
    pin!(unconstrained(poll_fn(|cx| read_small(stream, cx, |_| ())))).poll(cx).is_pending()
}

/// A response head being read.
pub struct HeadReader {
    /// What came of it so far, when it did not come at once.
    partial: Vec<u8>,
    limit: usize,
    /// Whether anything came.
    pub began: bool,
}

impl HeadReader {
    pub fn new(limit: usize) -> Self {
        Self { partial: Vec::new(), limit, began: false }
    }

    /// The head of the final response (others of status 1xx are passed over, but 101), and what came behind it.
    pub fn poll<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Head, Bytes), Fault>> {
        loop {
            let partial = &mut self.partial;
            let read = ready!(read_small(stream, cx, |bytes| {
                if bytes.is_empty() {
                    return None;
                }
                let before = partial.len();
                if before == 0
                    && let Some(end) = head::end(bytes, 0)
                {
                    let (head, rest) = bytes.split_at(end);
                    return Some(Some((Bytes::copy_from_slice(head), Bytes::copy_from_slice(rest))));
                }
                partial.extend_from_slice(bytes);
                Some(head::end(partial, before).map(|end| {
                    let mut all = Bytes::from(std::mem::take(partial));
                    let head = all.split_to(end);
                    (head, all)
                }))
            }));
            let mut found = match read {
                Err(error) => return Poll::Ready(Err(Fault::Io(error))),
                Ok(None) => return Poll::Ready(Err(Fault::Closed)),
                Ok(Some(found)) => found,
            };
            self.began = true;
            while let Some((bytes, rest)) = found.take() {
                if bytes.len() > self.limit {
                    return Poll::Ready(Err(Fault::Protocol("the head is longer than allowed")));
                }
                let head = match head::parse(&bytes) {
                    Ok(head) => head,
                    Err(why) => return Poll::Ready(Err(Fault::Protocol(why))),
                };
                if !head.status.is_informational() || head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok((head, rest)));
                }
                // An endless row of them is bounded like one head.
                self.limit = self.limit.saturating_sub(bytes.len());
                match head::end(&rest, 0) {
                    Some(end) => {
                        let mut rest = rest;
                        let next = rest.split_to(end);
                        found = Some((next, rest));
                    }
                    None => self.partial = rest.to_vec(),
                }
            }
            if self.partial.len() > self.limit {
                return Poll::Ready(Err(Fault::Protocol("the head is longer than allowed")));
            }
            if !self.partial.is_empty() && !b"HTTP/1.".starts_with(self.partial.get(..7).unwrap_or(&self.partial)) {
                return Poll::Ready(Err(Fault::Protocol("the answer is not HTTP/1")));
            }
        }
    }
}

/// A body being read.
pub struct BodyReader {
    framing: Framing,
    /// Read and not yet given on.
    ahead: Bytes,
    /// The last read filled the buffer.
    fast: bool,
    large: BytesMut,
}

enum Framing {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Ended,
}

impl BodyReader {
    pub fn new(receiving: Receiving, ahead: Bytes) -> Self {
        let framing = match receiving {
            Receiving::Nothing => Framing::Ended,
            Receiving::Length(length) => Framing::Length(length),
            Receiving::Chunked => Framing::Chunked(Chunked::default()),
            Receiving::UntilClose => Framing::UntilClose,
        };
        Self { framing, ahead, fast: false, large: BytesMut::new() }
    }

    /// The whole body, when its length was told and all of it is here.
    pub fn whole(&mut self) -> Option<Bytes> {
        let Framing::Length(length) = self.framing else { return None };
        let length = usize::try_from(length).ok().filter(|length| *length <= self.ahead.len())?;
        self.framing = Framing::Ended;
        Some(self.ahead.split_to(length))
    }

    pub fn is_ended(&self) -> bool {
        matches!(self.framing, Framing::Ended)
    }

    /// What came behind the body.
    pub fn into_surplus(self) -> Bytes {
        self.ahead
    }

    /// True when more came than the body: nothing that was asked for.
    pub fn has_surplus(&self) -> bool {
        !self.ahead.is_empty()
    }

    pub fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Ended => SizeHint::with_exact(0),
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }

    /// The next piece; `None` once the body is whole.
    pub fn poll<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            match self.take_ahead() {
                Ok(Taken::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Taken::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(why) => return Poll::Ready(Some(Err(Fault::Protocol(why)))),
            }
            match ready!(self.read(stream, cx)) {
                Err(error) => return Poll::Ready(Some(Err(Fault::Io(error)))),
                Ok(true) => {}
                Ok(false) if matches!(self.framing, Framing::UntilClose) => self.framing = Framing::Ended,
                Ok(false) => return Poll::Ready(Some(Err(Fault::Closed))),
            }
        }
    }

    fn take_ahead(&mut self) -> Result<Taken, &'static str> {
        match &mut self.framing {
            Framing::Ended => Ok(Taken::End),
            _ if self.ahead.is_empty() => Ok(Taken::More),
            Framing::UntilClose => Ok(Taken::Data(std::mem::take(&mut self.ahead))),
            Framing::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(self.ahead.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.framing = Framing::Ended;
                }
                Ok(Taken::Data(self.ahead.split_to(taken)))
            }
            Framing::Chunked(chunked) => {
                let mut at = 0;
                let step = chunked.step(&self.ahead, &mut at)?;
                match step {
                    Step::Data(range) => {
                        let data = self.ahead.slice(range);
                        self.ahead.advance(at);
                        self.end_if_it_is_here();
                        Ok(Taken::Data(data))
                    }
                    Step::More => {
                        self.ahead.clear();
                        Ok(Taken::More)
                    }
                    Step::End => {
                        self.ahead.advance(at);
                        let trailers = chunked.trailers()?;
                        self.framing = Framing::Ended;
                        Ok(trailers.map_or(Taken::End, Taken::Trailers))
                    }
                }
            }
        }
    }

    /// Whoever takes the last piece of a body learns at once that it is the last, where its end came along.
    fn end_if_it_is_here(&mut self) {
        if let Framing::Chunked(chunked) = &self.framing
            && chunked.is_at_chunk_end()
            && &*self.ahead == b"\r\n0\r\n\r\n"
        {
            self.ahead.clear();
            self.framing = Framing::Ended;
        }
    }

    /// Reads once into `ahead`; false at the end.
    fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.fast {
            self.large.reserve(LARGE);
            let n = ready!(pin!(stream.read_buf(&mut self.large)).poll(cx))?;
            self.fast = n >= SMALL;
            self.ahead = self.large.split().freeze();
            return Poll::Ready(Ok(n > 0));
        }
        let ahead = &mut self.ahead;
        let n = ready!(read_small(stream, cx, |bytes| {
            *ahead = Bytes::copy_from_slice(bytes);
            bytes.len()
        }))?;
        self.fast = n == SMALL;
        if !self.fast {
            self.large = BytesMut::new();
        }
        Poll::Ready(Ok(n > 0))
    }
}

enum Taken {
    Data(Bytes),
    Trailers(http::HeaderMap),
    End,
    More,
}
