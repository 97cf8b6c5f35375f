//! The downstream socket under HTTP: plain TCP, unix or TLS, with activity noted and the frames of HTTP/2 watched.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::conn_state::{ConnState, Phase};
use super::h2_frames::{self, FrameWatch};
use super::worker::current_tick;
use crate::http::exchange::Peer;

/// A connection as accepted.
pub struct Plain {
    io: Io,
    /// Bytes that were looked at, to be read again.
    early: Vec<u8>,
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Plain {
    pub fn tcp(stream: TcpStream) -> Self {
        Self { io: Io::Tcp(stream), early: Vec::new() }
    }

    pub fn unix(stream: UnixStream) -> Self {
        Self { io: Io::Unix(stream), early: Vec::new() }
    }

    pub fn fd(&self) -> i32 {
        use std::os::fd::AsRawFd;
        match &self.io {
            Io::Tcp(s) => s.as_raw_fd(),
            Io::Unix(s) => s.as_raw_fd(),
        }
    }

    /// Whose connection it is, and to which of our addresses (`None` on a unix socket); an error when it is gone already.
    pub fn ends(&self) -> io::Result<(Peer, Option<SocketAddr>)> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        match &self.io {
            Io::Tcp(s) => Ok((Peer::Ip(canonical(s.peer_addr()?)), s.local_addr().ok().map(canonical))),
            Io::Unix(_) => Ok((Peer::Unix, None)),
        }
    }

    /// Gives back bytes that were read, to be read next.
    pub fn give_back(&mut self, bytes: Vec<u8>) {
        self.early.splice(0..0, bytes);
    }
}

/// A connection as HTTP sees it.
pub enum Transport {
    Plain(Plain),
    Tls(Box<TlsStream<Plain>>),
}

macro_rules! each {
    ($self:ident, $s:ident => $e:expr) => {
        match &mut $self.get_mut().io {
            Io::Tcp($s) => $e,
            Io::Unix($s) => $e,
        }
    };
}

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..n]);
            self.early.drain(..n);
            return Poll::Ready(Ok(()));
        }
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

/// What looks at the bytes that come in.
enum Watch {
    /// Who reads them says what they are; here only that some came.
    Http1,
    Http2(FrameWatch),
}

/// [`Transport`] with its [`ConnState`] kept up to date.
pub struct Socket {
    transport: Transport,
    state: Rc<ConnState>,
    watch: Watch,
    /// Bytes read before the protocol was known, to be read again.
    prefix: Vec<u8>,
}

impl Socket {
    /// `http2`: the client is about to speak HTTP/2; else HTTP/1.
    pub fn new(transport: Transport, state: Rc<ConnState>, http2: bool, prefix: Vec<u8>) -> Self {
        let watch = if http2 {
            state.speaks_h2();
            Watch::Http2(FrameWatch::new(current_tick()))
        } else {
            Watch::Http1
        };
        Self { transport, state, watch, prefix }
    }

    /// An error: the client may not go on.
    fn seen(state: &ConnState, watch: &mut Watch, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match watch {
            Watch::Http2(frames) => return seen_frames(state, frames, bytes),
            Watch::Http1 if matches!(state.phase(), Phase::Opening | Phase::Idle) => {
                state.enter(Phase::Head, current_tick());
            }
            Watch::Http1 => {}
        }
        Ok(())
    }

    /// Gives back bytes that were read, to be read next.
    pub fn give_back(&mut self, bytes: &[u8]) {
        self.prefix.splice(0..0, bytes.iter().copied());
    }

    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Closing it resets the connection instead of ending it.
    pub fn reset_on_close(&self) {
        let plain = match &self.transport {
            Transport::Plain(plain) => plain,
            // A TLS stream that ends without its closing alert is a cut one by itself.
            Transport::Tls(_) => return,
        };
        if let Io::Tcp(stream) = &plain.io {
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Passes on what a write came to.
    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Watch::Http2(frames), Poll::Ready(Ok(n))) = (&mut self.watch, &polled) {
            frames.sent(*n);
            self.state.io_happened(current_tick(), frames.is_block_open());
        }
        polled
    }
}

/// Frames that need no request do not keep an HTTP/2 connection from being idle; a request itself says when it begins.
fn seen_frames(state: &ConnState, frames: &mut FrameWatch, bytes: &[u8]) -> io::Result<()> {
    let now = current_tick();
    match frames.feed(bytes, now) {
        h2_frames::Verdict::Fine => {}
        h2_frames::Verdict::Flood => {
            return Err(io::Error::other("more HTTP/2 frames that carry nothing than allowed"));
        }
        h2_frames::Verdict::NotHttp2 => return Err(io::Error::other("the first HTTP/2 frame is not SETTINGS")),
    }
    state.io_happened(now, frames.is_block_open());
    if state.phase() == Phase::Opening && frames.is_settled() {
        state.enter(Phase::Idle, now);
    }
    Ok(())
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
            return Poll::Ready(Self::seen(&this.state, &mut this.watch, &buf.filled()[before..]));
        }
        let polled = match &mut this.transport {
            Transport::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Transport::Tls(s) => Pin::new(s).poll_read(cx, buf),
        };
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Self::seen(&this.state, &mut this.watch, &buf.filled()[before..])),
            other => other,
        }
    }
}

macro_rules! write_side {
    ($self:ident, $s:ident => $e:expr) => {
        match &mut $self.transport {
            Transport::Plain($s) => $e,
            Transport::Tls($s) => $e,
        }
    };
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = write_side!(self, s => Pin::new(s).poll_write(cx, buf));
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = write_side!(self, s => Pin::new(s).poll_write_vectored(cx, bufs));
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_side!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        write_side!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}
