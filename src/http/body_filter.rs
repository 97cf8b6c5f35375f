//! What may stand between a body and who reads it: a [`Transform`] changes it, a [`Tap`] watches it, [`hold`] waits for
//! all of it.
//!
//! Filters are sans-io: they get chunks and the end, and never poll. A chunk that nothing changes goes on as it is, without
//! an allocation. Dropping the filtered body (the client is gone) drops what feeds it, which cancels the upstream request.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::error::HandlerError;
use super::exchange::{Exchange, Response};
use super::gunzip;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// Changes a body on its way.
pub trait Transform {
    /// A chunk came. An error ends the body as broken.
    fn data(&mut self, chunk: Bytes, out: &mut Out) -> Result<(), ProxyError>;

    /// The body ended, well or not; called once, and not after an error of its own, after [`Out::finish`], or when the
    /// client is gone. `Ok` ends the body cleanly, also one that broke: the way to put an error event into a stream that
    /// has begun.
    fn end(&mut self, how: Result<(), ProxyError>, out: &mut Out) -> Result<(), ProxyError> {
        let _ = out;
        how
    }
}

/// Where a transform puts what goes on.
#[derive(Debug, Default)]
pub struct Out {
    queue: VecDeque<Frame<Bytes>>,
    /// The chunk being transformed: slices of it that follow one another leave as one.
    source: Bytes,
    finished: bool,
}

impl Out {
    pub fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if piece.is_empty() {
            return;
        }
        if let Some(last) = self.queue.back_mut().and_then(Frame::data_mut)
            && let Some(joined) = joined(&self.source, last, &piece)
        {
            *last = joined;
        } else {
            self.queue.push_back(Frame::data(piece));
        }
    }

    /// Ends the body cleanly behind what has been pushed; what feeds it is dropped.
    pub fn finish(&mut self) {
        self.finished = true;
    }
}

/// Two neighbouring slices of one chunk as one slice.
fn joined(source: &Bytes, first: &Bytes, second: &Bytes) -> Option<Bytes> {
    let place = |part: &Bytes| (part.as_ptr() as usize).checked_sub(source.as_ptr() as usize);
    let (start, middle) = (place(first)?, place(second)?);
    let end = middle + second.len();
    (start + first.len() == middle && end <= source.len()).then(|| source.slice(start..end))
}

/// The body as the transform makes it; trailers stay. Its length is unknown: use [`transform`] on a response, which drops
/// the headers that tell it.
#[must_use]
pub fn filter(body: Body, transform: impl Transform + 'static) -> Body {
    Body::stream(Filtered { inner: Some(body), transform, out: Out::default(), error: None })
}

/// Filters the body of a response, and drops the headers that were true of the body before.
pub fn transform(response: &mut Response, transform: impl Transform + 'static) {
    forget_body(response.headers_mut());
    let body = response.body_mut().take();
    *response.body_mut() = filter(body, transform);
}

/// Drops headers that tell the bytes of a body that is going to change: length, digests, ranges, strong validators.
pub fn forget_body(headers: &mut HeaderMap) {
    const DIGESTS: [HeaderName; 4] = [
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    for name in [header::CONTENT_LENGTH, header::ETAG, header::ACCEPT_RANGES].iter().chain(&DIGESTS) {
        headers.remove(name);
    }
}

struct Filtered<T> {
    /// `None` once it has ended.
    inner: Option<Body>,
    transform: T,
    out: Out,
    /// Goes on behind what is queued.
    error: Option<ProxyError>,
}

// Nothing in it is pinned in place: a `Body` may move between polls.
impl<T> Unpin for Filtered<T> {}

impl<T: Transform> Filtered<T> {
    /// Takes what the inner body gave.
    fn take(&mut self, polled: Option<Result<Frame<Bytes>, ProxyError>>) -> Result<(), ProxyError> {
        match polled.transpose() {
            Ok(Some(frame)) => match frame.into_data() {
                Ok(chunk) => {
                    self.out.source = chunk.clone();
                    let done = self.transform.data(chunk, &mut self.out);
                    self.out.source = Bytes::new();
                    done
                }
                Err(trailers) => {
                    self.end(Ok(()))?;
                    self.out.queue.push_back(trailers);
                    Ok(())
                }
            },
            Ok(None) => self.end(Ok(())),
            Err(error) => self.end(Err(error)),
        }
    }

    fn end(&mut self, how: Result<(), ProxyError>) -> Result<(), ProxyError> {
        self.inner = None;
        self.transform.end(how, &mut self.out)
    }
}

impl<T: Transform> HttpBody for Filtered<T> {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.out.queue.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if let Some(error) = this.error.take() {
                return Poll::Ready(Some(Err(error)));
            }
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            let polled = ready!(Pin::new(inner).poll_frame(cx));
            if let Err(error) = this.take(polled) {
                this.inner = None;
                this.error = Some(error);
            }
            if this.out.finished {
                this.inner = None;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none() && self.error.is_none() && self.out.queue.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::new() }
    }
}

/// Watches a body and cannot change it.
pub trait Tap {
    fn chunk(&mut self, chunk: &Bytes);

    /// Told exactly once, when the body has ended or is dropped.
    fn end(&mut self, how: TapEnd<'_>);
}

#[derive(Debug)]
pub enum TapEnd<'a> {
    Complete,
    /// The producer failed.
    Failed(&'a ProxyError),
    /// Dropped before its end: the client is gone.
    Dropped,
}

/// The same body, watched.
#[must_use]
pub fn tap(body: Body, tap: impl Tap + 'static) -> Body {
    Body::stream(Tapped { inner: body, tap, told: false })
}

struct Tapped<T: Tap> {
    inner: Body,
    tap: T,
    told: bool,
}

impl<T: Tap> Unpin for Tapped<T> {}

impl<T: Tap> Tapped<T> {
    fn tell(&mut self, how: TapEnd<'_>) {
        if !std::mem::replace(&mut self.told, true) {
            self.tap.end(how);
        }
    }
}

impl<T: Tap> HttpBody for Tapped<T> {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.tap.chunk(chunk);
                }
            }
            Some(Err(error)) => self.tell(TapEnd::Failed(error)),
            None => self.tell(TapEnd::Complete),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<T: Tap> Drop for Tapped<T> {
    fn drop(&mut self) {
        // A body that says that it is at its end is not polled again.
        let how = if self.inner.is_end_stream() { TapEnd::Complete } else { TapEnd::Dropped };
        self.tell(how);
    }
}

/// The whole body, of at most `limit` bytes; trailers are dropped. For answers that are no stream.
pub async fn hold(body: Body, limit: usize) -> Result<Bytes, HandlerError> {
    let stream = match body {
        Body::Empty => return Ok(Bytes::new()),
        Body::Full(bytes) if bytes.len() <= limit => return Ok(bytes),
        other => other,
    };
    let collected = http_body_util::Limited::new(stream, limit).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        let cause = error.downcast::<ProxyError>().map_or_else(
            |_| {
                let detail = "the answer is larger than may be held";
                ProxyError::new(Kind::UpstreamBody, Retry::No, detail)
            },
            |cause| *cause,
        );
        HandlerError::from_proxy("body", cause)
    })
}

/// Asks the upstream for an answer that is not compressed, since it is going to be read.
pub fn ask_identity(ex: &mut Exchange) {
    ex.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Makes the body readable: undoes gzip, which some upstreams send unasked. False when it is encoded in another way, and
/// can only be passed on.
#[must_use]
pub fn decode(response: &mut Response) -> bool {
    gunzip::apply(response);
    !is_encoded(response.headers())
}

#[must_use]
pub fn is_encoded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::CONTENT_ENCODING);
    codings.iter().any(|v| !matches!(v.as_bytes().trim_ascii(), b"" | b"identity"))
}

/// Bodies for the unit tests of any room.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    struct Frames(VecDeque<Result<Frame<Bytes>, ProxyError>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = ProxyError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    /// A body of these frames.
    pub(crate) fn frames(frames: Vec<Result<Frame<Bytes>, ProxyError>>) -> Body {
        Body::stream(Frames(frames.into()))
    }

    /// A body of these chunks that ends well.
    pub(crate) fn byte_chunks(parts: Vec<Bytes>) -> Body {
        frames(parts.into_iter().map(|b| Ok(Frame::data(b))).collect())
    }

    /// A body of these chunks that breaks off after the last.
    pub(crate) fn broken(parts: Vec<Bytes>) -> Body {
        let cut = ProxyError::new(Kind::UpstreamBody, Retry::No, "cut");
        frames(parts.into_iter().map(|b| Ok(Frame::data(b))).chain([Err(cut)]).collect())
    }

    /// The next frame of a body that never waits.
    pub(crate) fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, ProxyError>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => panic!("a test body never waits"),
        }
    }

    /// The bytes of a body, and whether it ended well.
    pub(crate) fn read(mut body: Body) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        loop {
            match next(&mut body) {
                Some(Ok(frame)) => out.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) => return (out, false),
                None => return (out, true),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Takes chunks apart at `|`, doubles what is `x`, ends the body at `.`; puts `!` behind a broken one.
    struct Split;

    impl Transform for Split {
        fn data(&mut self, chunk: Bytes, out: &mut Out) -> Result<(), ProxyError> {
            for part in chunk.split_inclusive(|b| *b == b'|') {
                match part {
                    b"x" => out.push("xx"),
                    b"." => out.finish(),
                    b"e" => return Err(ProxyError::new(Kind::Internal, Retry::No, "e")),
                    _ => out.push(chunk.slice_ref(part)),
                }
            }
            Ok(())
        }

        fn end(&mut self, how: Result<(), ProxyError>, out: &mut Out) -> Result<(), ProxyError> {
            out.push(if how.is_ok() { "$" } else { "!" });
            Ok(())
        }
    }

    fn parts(all: &[&'static str]) -> Vec<Bytes> {
        all.iter().map(|p| Bytes::from_static(p.as_bytes())).collect()
    }

    #[test]
    fn slices_that_follow_one_another_leave_as_the_chunk_they_were() {
        let chunk = Bytes::from("a|b|c".to_owned());
        let mut body = filter(byte_chunks(vec![chunk.clone(), Bytes::from_static(b"a|x")]), Split);
        let first = next(&mut body).unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.as_ptr(), first.len()), (chunk.as_ptr(), chunk.len()));
        assert!(!body.is_end_stream());
        assert_eq!(read(body), (b"a|xx$".to_vec(), true));
    }

    #[test]
    fn a_transform_decides_how_a_body_ends() {
        assert_eq!(read(filter(broken(parts(&["a"])), Split)), (b"a!".to_vec(), true));
        assert_eq!(read(filter(byte_chunks(parts(&["a|.", "never"])), Split)), (b"a|".to_vec(), true));
        assert_eq!(read(filter(byte_chunks(parts(&["a|e", "never"])), Split)), (b"a|".to_vec(), false));
        assert_eq!(read(filter(Body::Empty, Split)), (b"$".to_vec(), true));
    }

    #[test]
    fn trailers_stay_behind_what_the_transform_adds() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let all = vec![Ok(Frame::data(Bytes::from_static(b"a"))), Ok(Frame::trailers(trailers.clone()))];
        let mut body = filter(frames(all), Split);
        let data = |frame: Option<Result<Frame<Bytes>, ProxyError>>| frame.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&data(next(&mut body))[..], b"a");
        assert_eq!(&data(next(&mut body))[..], b"$");
        assert_eq!(next(&mut body).unwrap().unwrap().into_trailers().unwrap(), trailers);
        assert!(next(&mut body).is_none() && body.is_end_stream());
    }

    #[test]
    fn a_filtered_response_forgets_what_was_true_of_the_old_body() {
        let mut response = Response::new(Body::from("a"));
        for name in ["content-length", "etag", "digest", "content-type"] {
            response.headers_mut().insert(name, HeaderValue::from_static("1"));
        }
        transform(&mut response, Split);
        assert_eq!(response.headers().keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
        assert_eq!(response.body().size_hint().exact(), None);
    }

    #[derive(Clone, Default)]
    struct Notes(Rc<RefCell<Vec<String>>>);

    impl Tap for Notes {
        fn chunk(&mut self, chunk: &Bytes) {
            self.0.borrow_mut().push(String::from_utf8_lossy(chunk).into_owned());
        }

        fn end(&mut self, how: TapEnd<'_>) {
            let how = match how {
                TapEnd::Complete => "complete",
                TapEnd::Failed(_) => "failed",
                TapEnd::Dropped => "dropped",
            };
            self.0.borrow_mut().push(how.to_owned());
        }
    }

    #[test]
    fn a_tap_is_told_the_end_once() {
        let noted = |run: &dyn Fn(Notes)| {
            let notes = Notes::default();
            run(notes.clone());
            notes.0.take().join(",")
        };
        assert_eq!(noted(&|t| drop(read(tap(byte_chunks(parts(&["a", "b"])), t)))), "a,b,complete");
        assert_eq!(noted(&|t| drop(read(tap(broken(parts(&["a"])), t)))), "a,failed");
        assert_eq!(noted(&|t| drop(next(&mut tap(byte_chunks(parts(&["a", "b"])), t)))), "a,dropped");
        // Not polled to its end, because it said that it is there.
        assert_eq!(noted(&|t| drop(next(&mut tap(Body::from("a"), t)))), "a,complete");
    }

    #[tokio::test]
    async fn a_body_is_held_within_its_limit() {
        assert_eq!(hold(byte_chunks(parts(&["ab", "c"])), 3).await.unwrap(), "abc");
        assert_eq!(hold(Body::Empty, 0).await.unwrap(), "");
        for body in [byte_chunks(parts(&["ab", "cd"])), Body::from("abcd"), broken(parts(&["a"]))] {
            assert_eq!(hold(body, 3).await.unwrap_err().status, 502);
        }
    }

    #[test]
    fn gzip_is_undone_and_other_codings_are_told() {
        let coded = |coding: &'static str| {
            let mut response = Response::new(Body::from("x"));
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            decode(&mut response)
        };
        assert!(coded("identity") && coded("gzip"));
        assert!(!coded("br") && !coded("gzip, br"));
    }
}
