//! An open request: counted from its admission until its answer has ended, is given up, or the connection that it was upgraded
//! to is closed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::ZoneGate;
use crate::base::error::ProxyError;
use crate::http::body_filter::{self, Tap, TapEnd};
use crate::http::exchange::{Duplex, Exchange, PendingUpgrade, Response};
use crate::http::handler::LocalFuture;
use crate::http::stage::{Stage, SyncStage};
use crate::state::limit::{Limits, Ticket, Zone};
use crate::state::moment::Moment;

/// Says that it is over when the last who holds it lets go.
pub struct Open {
    zone: Arc<dyn Zone>,
    limits: Arc<Limits>,
    ticket: Ticket,
}

type AllOpen = SmallVec<[Rc<Open>; 1]>;

impl Open {
    pub fn new(zone: &ZoneGate, ticket: Ticket) -> Self {
        Self { zone: Arc::clone(&zone.zone), limits: Arc::clone(&zone.limits), ticket }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.zone.release(&self.ticket, &self.limits, Moment::of(Instant::now())).detach();
    }
}

/// Keeps them for as long as the exchange's answer, or what it is upgraded to, lasts.
pub fn attach(open: AllOpen, ex: &mut Exchange) {
    if let Some(upgrade) = ex.upgrade.take() {
        ex.upgrade = Some(Box::new(Kept { upgrade, open: open.clone() }));
    }
    ex.stages.push(Stage::Sync(Box::new(UntilTheEnd(open))));
}

struct UntilTheEnd(AllOpen);

impl SyncStage for UntilTheEnd {
    fn apply(self: Box<Self>, _: &mut Exchange, response: &mut Response) {
        // Of an answer without a body there is nothing to wait for.
        if !response.body().is_empty() {
            let body = response.body_mut().take();
            *response.body_mut() = body_filter::tap(body, Watch(self.0));
        }
    }
}

struct Watch(AllOpen);

impl Tap for Watch {
    fn chunk(&mut self, _: &Bytes) {}

    fn end(&mut self, _: TapEnd<'_>) {
        self.0.clear();
    }
}

/// An upgrade that may come.
struct Kept {
    upgrade: Box<dyn PendingUpgrade>,
    open: AllOpen,
}

impl PendingUpgrade for Kept {
    fn upgraded(self: Box<Self>) -> LocalFuture<'static, Result<Box<dyn Duplex>, ProxyError>> {
        Box::pin(async move {
            let connection = self.upgrade.upgraded().await?;
            Ok(Box::new(Upgraded { connection, _open: self.open }) as Box<dyn Duplex>)
        })
    }
}

struct Upgraded {
    connection: Box<dyn Duplex>,
    _open: AllOpen,
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection).poll_shutdown(cx)
    }
}
