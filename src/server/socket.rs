//! The downstream socket under hyper: plain TCP, unix or TLS, with activity noted and request framing watched.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::conn_state::{ConnState, Phase};
use super::framing::{FramingWatch, Verdict};
use super::worker::current_tick;

/// A connection as accepted.
pub enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Plain {
    pub fn fd(&self) -> i32 {
        use std::os::fd::AsRawFd;
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Unix(s) => s.as_raw_fd(),
        }
    }
}

/// A connection as HTTP sees it.
pub enum Transport {
    Plain(Plain),
    Tls(Box<TlsStream<Plain>>),
}

macro_rules! each {
    ($self:ident, $s:ident => $e:expr) => {
        match $self.get_mut() {
            Plain::Tcp($s) => $e,
            Plain::Unix($s) => $e,
        }
    };
}

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// [`Transport`] with its [`ConnState`] kept up to date. `watch` is `None` where hyper speaks HTTP/2.
pub struct Socket {
    transport: Transport,
    state: Arc<ConnState>,
    watch: Option<FramingWatch>,
    /// Bytes read before the protocol was known, to be read again.
    prefix: Vec<u8>,
}

impl Socket {
    pub fn new(transport: Transport, state: Arc<ConnState>, watch_framing: bool, prefix: Vec<u8>) -> Self {
        Self { transport, state, watch: watch_framing.then(FramingWatch::default), prefix }
    }

    fn seen(state: &ConnState, watch: &mut Option<FramingWatch>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match state.phase() {
            Phase::Opening | Phase::Idle => state.enter(Phase::Head, current_tick()),
            Phase::Upgraded => {
                *watch = None;
                return;
            }
            Phase::Head | Phase::Serving => {}
        }
        if let Some(watch) = watch
            && watch.feed(bytes) == Verdict::Ambiguous
        {
            state.flag_bad_framing();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.state.socket_closed();
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if !this.prefix.is_empty() {
            let n = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..n]);
            this.prefix.drain(..n);
            Self::seen(&this.state, &mut this.watch, &buf.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        let polled = match &mut this.transport {
            Transport::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Transport::Tls(s) => Pin::new(s).poll_read(cx, buf),
        };
        if polled.is_ready() {
            Self::seen(&this.state, &mut this.watch, &buf.filled()[before..]);
        }
        polled
    }
}

macro_rules! write_side {
    ($self:ident, $s:ident => $e:expr) => {
        match &mut $self.get_mut().transport {
            Transport::Plain($s) => $e,
            Transport::Tls($s) => $e,
        }
    };
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        write_side!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        write_side!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_side!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_side!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}
