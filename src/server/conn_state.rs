//! What the worker's clock tick needs to know of a connection: what it is doing, since when, and its descriptor.
//!
//! It also carries what the connection is told from outside its task: to end at once, to finish. All is on one worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// No tick: a worker counts four a second, so none reaches it.
const NONE: u32 = u32::MAX;

/// HTTP/2: request heads up to this size may be as many as there are streams.
const SMALL_HEAD: usize = 16 << 10;
/// HTTP/2: bytes of larger request heads that one connection may have us hold; a single one may be larger.
const LARGE_HEADS: usize = 4 << 20;

/// What a connection is doing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Accepted; TLS handshake or first bytes awaited.
    Opening = 0,
    /// Between requests.
    Idle = 1,
    /// Part of a request head has come.
    Head = 2,
    /// At least one request is being answered.
    Serving = 3,
    /// Handed over to a tunnel: no longer an HTTP connection.
    Upgraded = 4,
}

impl Phase {
    fn from(n: u8) -> Self {
        match n {
            0 => Self::Opening,
            1 => Self::Idle,
            2 => Self::Head,
            3 => Self::Serving,
            _ => Self::Upgraded,
        }
    }
}

#[derive(Debug)]
pub struct ConnState {
    phase: Cell<u8>,
    /// Tick of the worker when the phase began.
    since: Cell<u32>,
    /// Requests being answered (several under HTTP/2).
    active: Cell<u32>,
    /// Tick at which an HTTP/2 header block began that has not ended; [`NONE`]: there is none.
    block_since: Cell<u32>,
    /// HTTP/2: tick of the last byte in either direction.
    last_io: Cell<u32>,
    /// HTTP/2 is spoken: the end is announced before it comes.
    announces: Cell<bool>,
    /// HTTP/2: bytes of large request heads that are held.
    large_heads: Cell<usize>,
    fd: Cell<i32>,
    /// Told to close at once.
    killed: Cell<bool>,
    /// Told to announce the end, finish what is open and close (HTTP/2).
    finishing: Cell<bool>,
    /// All connections of its listening address are told to finish what is open and close.
    draining: Rc<Cell<bool>>,
    /// Of the connection's task.
    waker: RefCell<Option<Waker>>,
}

impl ConnState {
    pub fn new(fd: i32, tick: u32, draining: Rc<Cell<bool>>) -> Self {
        Self {
            phase: Cell::new(Phase::Opening as u8),
            since: Cell::new(tick),
            active: Cell::new(0),
            fd: Cell::new(fd),
            block_since: Cell::new(NONE),
            last_io: Cell::new(tick),
            announces: Cell::new(false),
            large_heads: Cell::new(0),
            killed: Cell::new(false),
            finishing: Cell::new(false),
            draining,
            waker: RefCell::default(),
        }
    }

    pub fn phase(&self) -> Phase {
        Phase::from(self.phase.get())
    }

    pub fn enter(&self, phase: Phase, tick: u32) {
        self.phase.set(phase as u8);
        self.since.set(tick);
    }

    pub fn since(&self) -> u32 {
        self.since.get()
    }

    pub fn request_started(&self, tick: u32) {
        self.active.set(self.active.get() + 1);
        self.enter(Phase::Serving, tick);
    }

    pub fn request_ended(&self, tick: u32) {
        self.active.set(self.active.get().saturating_sub(1));
        if self.active.get() == 0 && self.phase() == Phase::Serving {
            self.enter(Phase::Idle, tick);
        }
    }

    /// HTTP/2: makes room for a request's head of this size until [`head_dropped`](Self::head_dropped) with what is
    /// returned; `None`: the streams of this connection have us hold too much already.
    pub fn hold_head(&self, size: usize) -> Option<usize> {
        if size <= SMALL_HEAD {
            return Some(0);
        }
        let held = self.large_heads.get();
        if held > 0 && held.saturating_add(size) > LARGE_HEADS {
            return None;
        }
        self.large_heads.set(held.saturating_add(size));
        Some(size)
    }

    pub fn head_dropped(&self, held: usize) {
        if held > 0 {
            self.large_heads.set(self.large_heads.get().saturating_sub(held));
        }
    }

    /// Requests being answered.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// HTTP/2 is spoken here: closing is announced to the client first.
    pub fn speaks_h2(&self) {
        self.announces.set(true);
    }

    /// Has the connection closed at once.
    pub fn kill(&self) {
        self.killed.set(true);
        self.wake();
    }

    /// Has what is open finished and the connection closed (HTTP/2).
    pub fn finish(&self) {
        self.finishing.set(true);
        self.wake();
    }

    /// Has the connection look at what it was told.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Ready once the connection is to close at once. To be polled by its task before all else: it is how the task is
    /// known.
    pub fn poll_killed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        if self.killed.get() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Resolves once the connection is to finish what is open and close.
    pub async fn draining(&self) {
        poll_fn(|_| if self.draining.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Resolves once this connection alone is to finish.
    pub async fn finishing(&self) {
        poll_fn(|_| if self.finishing.take() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Ends a connection on which nothing is being answered: HTTP/2 announces it (RFC 9113 section 6.8) and has a
    /// second for that, `overdue` ticks after the first call; HTTP/1 just closes.
    pub fn end_idle(&self, overdue: u32) {
        const SECOND: u32 = 4;
        if self.announces.get() && overdue <= SECOND {
            self.finish();
        } else {
            self.kill();
        }
    }

    /// Notes that bytes went either way on an HTTP/2 connection, and whether a header block is open now.
    pub fn io_happened(&self, tick: u32, block_open: bool) {
        self.last_io.set(tick);
        match (block_open, self.block_since.get()) {
            (true, NONE) => self.block_since.set(tick),
            (false, since) if since != NONE => self.block_since.set(NONE),
            _ => {}
        }
    }

    /// Ticks since a byte went either way on an HTTP/2 connection.
    pub fn silence(&self, now: u32) -> u32 {
        now.wrapping_sub(self.last_io.get())
    }

    /// For how many ticks an HTTP/2 header block has been open.
    pub fn block_age(&self, now: u32) -> Option<u32> {
        match self.block_since.get() {
            NONE => None,
            since => Some(now.wrapping_sub(since)),
        }
    }

    /// The socket's descriptor; `None` once it is closed.
    pub fn fd(&self) -> Option<i32> {
        let fd = self.fd.get();
        (fd >= 0).then_some(fd)
    }

    /// The socket is about to be closed: its descriptor may be reused by another.
    pub fn socket_closed(&self) {
        self.fd.set(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_header_block_counts_from_its_first_byte() {
        let state = ConnState::new(0, 5, Rc::default());
        assert_eq!(state.block_age(9), None);
        state.io_happened(10, true);
        state.io_happened(12, true);
        assert_eq!((state.block_age(15), state.silence(15)), (Some(5), 3));
        state.io_happened(16, false);
        assert_eq!(state.block_age(17), None);
    }

    #[test]
    fn large_heads_are_bounded_together_and_small_ones_are_not() {
        let state = ConnState::new(-1, 0, Rc::default());
        for _ in 0..1000 {
            assert_eq!(state.hold_head(SMALL_HEAD), Some(0));
        }
        let held: Vec<usize> = std::iter::from_fn(|| state.hold_head(1 << 20)).take(1000).collect();
        assert_eq!(held, [1 << 20; 4]);
        assert_eq!(state.hold_head(SMALL_HEAD + 1), None);
        assert_eq!(state.hold_head(SMALL_HEAD), Some(0));
        state.head_dropped(0);
        assert_eq!(state.hold_head(1 << 20), None);
        for held in held {
            state.head_dropped(held);
        }
        // One that the server's own limit permits is never too large by itself.
        assert_eq!(state.hold_head(LARGE_HEADS + 1), Some(LARGE_HEADS + 1));
        assert_eq!(state.hold_head(1 << 20), None);
        state.head_dropped(LARGE_HEADS + 1);
        assert_eq!(state.hold_head(1 << 20), Some(1 << 20));
    }
}
