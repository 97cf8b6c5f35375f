//! What the worker's clock tick needs to know of a connection: what it is doing, since when, and its descriptor.
//!
//! Atomics, because hyper's upgrade support asks that the socket be `Send`; all access is from one worker.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};

use tokio::sync::Notify;

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
    fd: AtomicI32,
    /// Set when a request's framing could be read in two ways; no further request of it is served.
    bad_framing: AtomicU8,
    /// Told to close at once.
    pub kill: Notify,
}

impl ConnState {
    pub fn new(fd: i32, tick: u32) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Opening as u8),
            since: AtomicU32::new(tick),
            active: AtomicU32::new(0),
            fd: AtomicI32::new(fd),
            bad_framing: AtomicU8::new(0),
            kill: Notify::new(),
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

    /// The socket's descriptor; `None` once it is closed.
    pub fn fd(&self) -> Option<i32> {
        let fd = self.fd.load(Ordering::Relaxed);
        (fd >= 0).then_some(fd)
    }

    /// The socket is about to be closed: its descriptor may be reused by another.
    pub fn socket_closed(&self) {
        self.fd.store(-1, Ordering::Relaxed);
    }

    pub fn flag_bad_framing(&self) {
        self.bad_framing.store(1, Ordering::Relaxed);
    }

    pub fn has_bad_framing(&self) -> bool {
        self.bad_framing.load(Ordering::Relaxed) != 0
    }
}
