//! Undoes gzip chunk by chunk, so that a stream stays a stream: what was asked for on the client's behalf, or came unasked
//! where the body is to be read.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::{Body as HttpBody, Frame};

use super::exchange::Response;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// Compressed bytes taken at a time: deflate grows a thousandfold at most, so this bounds what one step can make.
const STEP: usize = 4096;

/// Decodes the response if it is gzip alone.
pub fn apply(response: &mut Response) {
    let gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"gzip"));
    if !gzip || response.body().is_empty() {
        return;
    }
    response.headers_mut().remove(CONTENT_ENCODING);
    response.headers_mut().remove(CONTENT_LENGTH);
    let inner = response.body_mut().take();
    *response.body_mut() = Body::stream(Gunzip {
        inner,
        pending: Bytes::new(),
        decoder: MultiGzDecoder::new(Vec::new()),
        started: false,
        done: false,
    });
}

struct Gunzip {
    inner: Body,
    /// Compressed bytes not decoded yet.
    pending: Bytes,
    decoder: MultiGzDecoder<Vec<u8>>,
    started: bool,
    done: bool,
}

impl Gunzip {
    /// Decodes one step of `pending`.
    fn step(&mut self) -> std::io::Result<Vec<u8>> {
        let n = self.pending.len().min(STEP);
        self.started |= n > 0;
        let used = self.decoder.write(&self.pending[..n])?;
        if used == 0 && n > 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        self.pending.advance(used);
        self.decoder.flush()?;
        Ok(std::mem::take(self.decoder.get_mut()))
    }
}

impl HttpBody for Gunzip {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = self.get_mut();
        let broken = |_| ProxyError::new(Kind::UpstreamBody, Retry::No, "the upstream's gzip data is broken");
        loop {
            while !this.pending.is_empty() {
                let out = this.step().map_err(broken)?;
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                }
            }
            if this.done {
                return Poll::Ready(None);
            }
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.pending = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.done = true;
                    // A body cut short must not look complete.
                    if this.started {
                        this.decoder.try_finish().map_err(broken)?;
                        let out = std::mem::take(this.decoder.get_mut());
                        if !out.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                        }
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done && self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body_filter::testing::{byte_chunks, next, read};

    fn gzip(parts: &[&str]) -> Vec<Bytes> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut out = Vec::new();
        for part in parts {
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.flush().unwrap();
            out.push(Bytes::from(std::mem::take(encoder.get_mut())));
        }
        out.push(Bytes::from(encoder.finish().unwrap()));
        out
    }

    fn response(parts: Vec<Bytes>) -> Response {
        let mut response = Response::new(byte_chunks(parts));
        response.headers_mut().insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        response.headers_mut().insert(CONTENT_LENGTH, http::HeaderValue::from_static("9"));
        apply(&mut response);
        response
    }

    #[test]
    fn each_flushed_part_comes_out_at_once() {
        let mut response = response(gzip(&["one ", "two"]));
        assert!(response.headers().is_empty());
        let mut next = || next(response.body_mut()).map(|f| f.unwrap().into_data().unwrap());
        assert_eq!(next().as_deref(), Some(&b"one "[..]));
        assert_eq!(next().as_deref(), Some(&b"two"[..]));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_cut_or_broken_body_is_an_error() {
        let mut parts = gzip(&["one", "two"]);
        parts.pop();
        assert!(!read(response(parts).into_body()).1);
        assert!(!read(response(vec![Bytes::from_static(b"not gzip at all")]).into_body()).1);
    }

    #[test]
    fn byte_by_byte_is_the_same() {
        let whole: Vec<u8> = gzip(&["a longer text, a longer text"]).concat();
        let parts = whole.iter().map(|b| Bytes::from(vec![*b])).collect();
        assert_eq!(read(response(parts).into_body()), (b"a longer text, a longer text".to_vec(), true));
    }
}
