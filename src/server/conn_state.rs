//! What the worker's clock tick needs to know of a connection: what it is doing, since when, and its descriptor.
//!
//! Atomics, because hyper's upgrade support asks that the socket be `Send`; all access is from one worker.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use tokio::sync::Notify;

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
    phase: AtomicU8,
    /// Tick of the worker when the phase began.
    since: AtomicU32,
    /// Requests being answered (several under HTTP/2).
    active: AtomicU32,
    /// Tick at which an HTTP/2 header block began that has not ended; [`NONE`]: there is none.
    block_since: AtomicU32,
    /// HTTP/2: tick of the last byte in either direction.
    last_io: AtomicU32,
    /// HTTP/2 is spoken: the end is announced before it comes.
    announces: AtomicBool,
    /// HTTP/2: bytes of large request heads that are held.
    large_heads: AtomicUsize,
    fd: AtomicI32,
    /// Told to close at once.
    pub kill: Notify,
    /// Told to announce the end, finish what is open and close (HTTP/2).
    pub finish: Notify,
}

impl ConnState {
    pub fn new(fd: i32, tick: u32) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Opening as u8),
            since: AtomicU32::new(tick),
            active: AtomicU32::new(0),
            fd: AtomicI32::new(fd),
            block_since: AtomicU32::new(NONE),
            last_io: AtomicU32::new(tick),
            announces: AtomicBool::new(false),
            large_heads: AtomicUsize::new(0),
            kill: Notify::new(),
            finish: Notify::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        Phase::from(self.phase.load(Ordering::Relaxed))
    }

    pub fn enter(&self, phase: Phase, tick: u32) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(tick, Ordering::Relaxed);
    }

    pub fn since(&self) -> u32 {
        self.since.load(Ordering::Relaxed)
    }

    pub fn request_started(&self, tick: u32) {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.enter(Phase::Serving, tick);
    }

    pub fn request_ended(&self, tick: u32) {
        if self.active.fetch_sub(1, Ordering::Relaxed) == 1 && self.phase() == Phase::Serving {
            self.enter(Phase::Idle, tick);
        }
    }

    /// HTTP/2: makes room for a request's head of this size until [`head_dropped`](Self::head_dropped) with what is
    /// returned; `None`: the streams of this connection have us hold too much already.
    pub fn hold_head(&self, size: usize) -> Option<usize> {
        if size <= SMALL_HEAD {
            return Some(0);
        }
        let held = self.large_heads.load(Ordering::Relaxed);
        if held > 0 && held.saturating_add(size) > LARGE_HEADS {
            return None;
        }
        self.large_heads.store(held.saturating_add(size), Ordering::Relaxed);
        Some(size)
    }

    pub fn head_dropped(&self, held: usize) {
        if held > 0 {
            self.large_heads.fetch_sub(held, Ordering::Relaxed);
        }
    }

    /// Requests being answered.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// HTTP/2 is spoken here: closing is announced to the client first.
    pub fn speaks_h2(&self) {
        self.announces.store(true, Ordering::Relaxed);
    }

    /// Ends a connection on which nothing is being answered: HTTP/2 announces it (RFC 9113 section 6.8) and has a
    /// second for that, `overdue` ticks after the first call; HTTP/1 just closes.
    pub fn end_idle(&self, overdue: u32) {
        const SECOND: u32 = 4;
        if self.announces.load(Ordering::Relaxed) && overdue <= SECOND {
            self.finish.notify_one();
        } else {
            self.kill.notify_one();
        }
    }

    /// Notes that bytes went either way on an HTTP/2 connection, and whether a header block is open now.
    pub fn io_happened(&self, tick: u32, block_open: bool) {
        self.last_io.store(tick, Ordering::Relaxed);
        match (block_open, self.block_since.load(Ordering::Relaxed)) {
            (true, NONE) => self.block_since.store(tick, Ordering::Relaxed),
            (false, since) if since != NONE => self.block_since.store(NONE, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Ticks since a byte went either way on an HTTP/2 connection.
    pub fn silence(&self, now: u32) -> u32 {
        now.wrapping_sub(self.last_io.load(Ordering::Relaxed))
    }

    /// For how many ticks an HTTP/2 header block has been open.
    pub fn block_age(&self, now: u32) -> Option<u32> {
        match self.block_since.load(Ordering::Relaxed) {
            NONE => None,
            since => Some(now.wrapping_sub(since)),
        }
    }

    /// The socket's descriptor; `None` once it is closed.
    pub fn fd(&self) -> Option<i32> {
        let fd = self.fd.load(Ordering::Relaxed);
        (fd >= 0).then_some(fd)
    }

    /// The socket is about to be closed: its descriptor may be reused by another.
    pub fn socket_closed(&self) {
        self.fd.store(-1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_header_block_counts_from_its_first_byte() {
        let state = ConnState::new(0, 5);
        assert_eq!(state.block_age(9), None);
        state.io_happened(10, true);
        state.io_happened(12, true);
        assert_eq!((state.block_age(15), state.silence(15)), (Some(5), 3));
        state.io_happened(16, false);
        assert_eq!(state.block_age(17), None);
    }

    #[test]
    fn large_heads_are_bounded_together_and_small_ones_are_not() {
        let state = ConnState::new(-1, 0);
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
