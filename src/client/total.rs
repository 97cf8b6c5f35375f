//! The limit on a whole exchange, from the call to the last byte of the response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::send::{SendError, Sent};
use super::target::Target;
use super::ticker::Deadline;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// Runs an exchange within the limit. What is not over in time is cancelled; an upgraded connection is bounded by nobody
/// here.
pub(super) async fn bounded(
    target: &Target,
    limit: Duration,
    exchange: impl Future<Output = Result<Sent, SendError>>,
) -> Result<Sent, SendError> {
    let started = Instant::now();
    let Ok(result) = tokio::time::timeout(limit, exchange).await else {
        let error = too_long(Kind::ResponseTimeout, Retry::IfIdempotent, target.label());
        return Err(SendError { error, request: None });
    };
    let mut sent = result?;
    if matches!(sent.response.body(), Body::Stream(_)) {
        let mut deadline = Deadline::default();
        deadline.set_after(started, limit);
        let inner = std::mem::take(sent.response.body_mut());
        *sent.response.body_mut() = Body::stream(Bounded { inner, deadline, label: Arc::clone(&target.label) });
    }
    Ok(sent)
}

fn too_long(kind: Kind, retry: Retry, label: &str) -> ProxyError {
    ProxyError::new(kind, retry, format!("{label}: the whole exchange took too long"))
}

struct Bounded {
    inner: Body,
    deadline: Deadline,
    label: Arc<str>,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        // First: a body that never pauses is bounded too.
        if this.deadline.poll(cx).is_ready() {
            this.deadline.clear();
            this.inner = Body::Empty;
            return Poll::Ready(Some(Err(too_long(Kind::ReadTimeout, Retry::No, &this.label))));
        }
        Pin::new(&mut this.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
