//! Holds a request body in memory, within bounds, so that it can be looked at and sent again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use http_body_util::BodyExt;

use super::error::HandlerError;
use super::exchange::Exchange;
use crate::base::body::{Body, BoxBody};

/// Reads the request body into memory, at most `limit` bytes.
///
/// # Errors
/// 413 when it is larger, 400 when it breaks off, 503 when all requests together hold as much as this process may.
pub async fn hold_body(ex: &mut Exchange, limit: usize) -> Result<(), HandlerError> {
    let body = ex.body.take();
    ex.body = match body {
        Body::Stream(stream) => Body::Full(collect(stream, limit, &POOL).await?),
        // Full even when empty: a matcher that asked knows by it that the body has been read.
        Body::Empty => Body::Full(Bytes::new()),
        full @ Body::Full(_) => full,
    };
    Ok(())
}

async fn collect(mut stream: BoxBody, limit: usize, pool: &'static Pool) -> Result<Bytes, HandlerError> {
    let expected = http_body::Body::size_hint(&stream).exact();
    if expected.is_some_and(|n| n > limit as u64) {
        return Err(too_large());
    }
    let mut share = Share { pool, bytes: 0 };
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| HandlerError::from_proxy("body", error))?;
        let Ok(data) = frame.into_data() else { continue };
        if share.bytes + data.len() > limit {
            return Err(too_large());
        }
        share.grow(data.len())?;
        // Most bodies come in one piece: that one is kept without a copy.
        match (first.take(), all.is_empty()) {
            (None, true) => first = Some(data),
            (held, _) => {
                if let Some(held) = held {
                    // The declared length is believed only as far as bytes have really come.
                    all.reserve(held.len() + data.len());
                    all.extend_from_slice(&held);
                }
                all.extend_from_slice(&data);
            }
        }
    }
    let bytes = first.unwrap_or_else(|| all.freeze());
    // Small bodies are not worth a counter: what they hold is bounded by the number of connections.
    if bytes.len() < COUNTED { Ok(bytes) } else { Ok(Bytes::from_owner(Held { bytes, _share: share })) }
}

fn too_large() -> HandlerError {
    HandlerError::new(413, "body", "request body is larger than may be held")
}

/// Bodies from this size on count until they are dropped.
const COUNTED: usize = 64 << 10;

/// What all requests of this process may hold together.
struct Pool {
    held: AtomicUsize,
    allowed: OnceLock<usize>,
}

static POOL: Pool = Pool { held: AtomicUsize::new(0), allowed: OnceLock::new() };

impl Pool {
    /// A quarter of the machine's memory, at most 4 GiB: strangers who send large bodies at once must not exhaust it.
    fn allowed(&self) -> usize {
        *self.allowed.get_or_init(|| {
            let info = rustix::system::sysinfo();
            let total = u64::from(info.mem_unit).saturating_mul(info.totalram);
            usize::try_from((total / 4).clamp(64 << 20, 4 << 30)).unwrap_or(usize::MAX)
        })
    }
}

/// Part of what may be held, given back on drop.
pub struct Share {
    pool: &'static Pool,
    bytes: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { pool: &POOL, bytes: 0 }
    }
}

impl Share {
    /// Makes it `bytes` large, where that is large enough to count; false when all together hold too much by that.
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        bytes < COUNTED || self.grow(bytes - self.bytes).is_ok()
    }

    fn grow(&mut self, bytes: usize) -> Result<(), HandlerError> {
        self.bytes += bytes;
        if self.pool.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.pool.allowed() {
            return Ok(());
        }
        let error = HandlerError::new(503, "body", "all request bodies together hold as much memory as they may");
        Err(error.header(header::RETRY_AFTER, HeaderValue::from_static("1")))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::ProxyError;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    struct Pieces(std::vec::IntoIter<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = ProxyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, ProxyError>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(http_body::Frame::data(piece))))
        }
    }

    fn pool(allowed: usize) -> &'static Pool {
        Box::leak(Box::new(Pool { held: AtomicUsize::new(0), allowed: OnceLock::from(allowed) }))
    }

    fn hold(pieces: &[&'static [u8]], limit: usize, pool: &'static Pool) -> Result<Bytes, u16> {
        let pieces: Vec<Bytes> = pieces.iter().map(|p| Bytes::from_static(p)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(collect(Box::pin(Pieces(pieces.into_iter())), limit, pool)).map_err(|e| e.status)
    }

    #[test]
    fn pieces_are_joined_up_to_the_bound() {
        let pool = pool(100);
        assert_eq!(hold(&[], 0, pool).unwrap(), "");
        assert_eq!(hold(&[b"abc"], 3, pool).unwrap(), "abc");
        assert_eq!(hold(&[b"", b"ab", b"c", b""], 3, pool).unwrap(), "abc");
        assert_eq!(hold(&[b"ab", b"cd"], 3, pool), Err(413));
    }

    #[test]
    fn all_bodies_together_are_bounded_and_what_was_held_is_given_back() {
        static BIG: [u8; COUNTED] = [7; COUNTED];
        let pool = pool(COUNTED + 5);
        let body = hold(&[&BIG[..], b"x"], COUNTED + 1, pool).unwrap();
        assert_eq!(body.len(), COUNTED + 1);
        let part = body.slice(3..9);
        drop(body);
        assert_eq!(hold(&[b"12345"], 9, pool), Err(503), "a part of the body keeps all of it");
        drop(part);
        assert_eq!(pool.held.load(Ordering::Relaxed), 0);
        assert_eq!(hold(&[b"12345"], 9, pool).unwrap(), "12345");
    }
}
