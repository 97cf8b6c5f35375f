//! Serving one HTTP/2 connection: every limit of hyper and of the `h2` crate, set here by hand, and its end.
//!
//! | what a client may do | bounded by |
//! |---|---|
//! | streams at a time | [`STREAMS`], as Caddy |
//! | cancel requests not yet begun (rapid reset) | [`RESET_BEFORE_BEGIN`], then GOAWAY |
//! | cancel requests, ping, change settings, priorities or windows, send frames without content | `h2_frames`, then closed |
//! | make us reset streams (MadeYouReset) | [`OUR_RESETS`] in the life of the connection, then GOAWAY |
//! | split a header block into many frames | the library: a quarter more than the largest head needs, then GOAWAY |
//! | send large or highly compressed heads | the server's `max_header_size`, 431; four times that, GOAWAY |
//! | hold many large heads | `conn_state`: 4 MiB of those above 16 KiB together, then 431 |
//! | hold a header block open | the server's `read_header` timeout, then closed |
//! | not read, or open tiny windows | [`UNSENT`] for each stream is kept; the upstream is read no further |
//! | stay without a request | the server's `idle` timeout, then GOAWAY |

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::server::conn::http2;
use hyper_util::rt::TokioIo;

use super::connection::{ConnCx, note};
use super::request::{self, Incoming};
use super::response_body::ResponseBody;
use super::socket::Socket;
use super::worker::{TICK, current_tick};
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// Requests at a time on one connection.
const STREAMS: u32 = 250;
/// Requests that may be cancelled before we began them and that wait to be thrown away.
const RESET_BEFORE_BEGIN: usize = 20;
/// Streams we reset because of what the client did, in the life of a connection. Data that comes after an early answer
/// (a refused upload) counts too, so it is not small.
const OUR_RESETS: usize = 512;
/// Request body bytes in flight for a stream, and for the connection, before they are read: what Caddy offers. One
/// upload can use a fast line (1 MiB in 20 ms is 50 MB/s), and a connection whose requests are not read holds no more.
const WINDOW: u32 = 1 << 20;
/// Response bytes held for a stream whose client does not take them.
const UNSENT: usize = 32 << 10;
/// The smallest that the protocol allows: events of streams are short, and large frames hold up other streams.
const FRAME: u32 = 16 << 10;
/// What remembers header fields for a client's compression; the protocol's default.
const HEADER_TABLE: u32 = 4096;
/// A connection that should end and answers nothing more is closed after so long without a byte either way: its client
/// does not answer the PING that tells it has read GOAWAY.
const SILENCE: Duration = Duration::from_secs(5);

pub async fn serve(cx: Rc<ConnCx>, io: TokioIo<Socket>, max_head: usize) {
    let max_head = u32::try_from(max_head).unwrap_or(u32::MAX);
    let state = Rc::clone(&cx.state);
    let service = hyper::service::service_fn(move |request| answer(Rc::clone(&cx), request));
    let connection = http2::Builder::new(LocalExec)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESET_BEFORE_BEGIN)
        .max_local_error_reset_streams(OUR_RESETS)
        .max_header_list_size(max_head)
        .header_table_size(HEADER_TABLE)
        .max_frame_size(FRAME)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(UNSENT)
        // TCP asks whether the client is still there; a PING would only wake it.
        .keep_alive_interval(None)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = state.draining() => {}
        () = state.finishing() => {}
    }
    // Two GOAWAY frames a round trip apart: requests that are on their way are still answered (RFC 9113 section 6.8).
    connection.as_mut().graceful_shutdown();
    let patience = u32::try_from(SILENCE.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return note(ended),
            () = tokio::time::sleep(SILENCE / 5) => {
                if state.active() == 0 && state.silence(current_tick()) > patience {
                    return;
                }
            }
        }
    }
}

async fn answer(
    cx: Rc<ConnCx>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<ResponseBody>, request::Aborted> {
    let (head, incoming) = request.into_parts();
    let bytes_read: Rc<Cell<u64>> = Rc::default();
    let body = if incoming.is_end_stream() {
        Body::Empty
    } else {
        Body::stream(RequestBody { incoming, read: Rc::clone(&bytes_read) })
    };
    request::serve(cx, Incoming { head, body, bytes_read, upgrade: None }).await
}

/// A request's body, counted.
struct RequestBody {
    incoming: hyper::body::Incoming,
    read: Rc<Cell<u64>>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if polled.is_none() && !self.incoming.is_end_stream() {
            // RST_STREAM with NO_ERROR: hyper takes it for the end. An upstream must not take half a body for a whole.
            let error = ProxyError::new(Kind::ClientGone, Retry::No, "the request was reset before its body ended");
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(polled.map(|frame| match frame {
            Ok(frame) => {
                self.read.set(self.read.get() + frame.data_ref().map_or(0, |d| d.len() as u64));
                Ok(frame)
            }
            Err(error) => {
                let kind = if error.is_parse() || error.is_user() { Kind::ClientBody } else { Kind::ClientGone };
                Err(ProxyError::new(kind, Retry::No, error.to_string()))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Runs hyper's HTTP/2 tasks on this worker.
#[derive(Clone, Copy)]
struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
