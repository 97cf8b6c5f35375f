//! The request's side of a folder of records: a bounded queue to the thread that writes them.
//!
//! A folder lives as long as something refers to it, so it survives reloads; two that name the same path are one.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::event::Event;
use super::writer::Writer;

/// Most that waits for the writer thread: memory, and events.
const MOST_BYTES: usize = 32 << 20;
const MOST_EVENTS: usize = 16 << 10;
/// Records under way at a time, each an open file.
const MOST_OPEN: usize = 512;

static FOLDERS: LazyLock<Mutex<HashMap<PathBuf, Weak<Folder>>>> = LazyLock::new(Mutex::default);

fn folders() -> MutexGuard<'static, HashMap<PathBuf, Weak<Folder>>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where records go.
pub struct Folder {
    queue: Arc<Queue>,
    next: AtomicU64,
}

/// A record under way.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What a record begins with.
#[derive(Debug)]
pub struct Start {
    pub id: String,
    /// Nanoseconds since 1970.
    pub unix_nanos: i64,
}

pub(super) enum Job {
    Start(Ticket, Start),
    Event(Ticket, Event),
    /// The record is whole, but for so many events that did not fit into the queue.
    End {
        ticket: Ticket,
        at: Duration,
        gaps: u64,
        truncated: bool,
    },
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to do.
    filled: Condvar,
    /// The writer has nothing to do.
    idle: Condvar,
    /// Bytes that all records may take.
    pub total_size: AtomicU64,
    /// Records that were not begun, for the writer to tell.
    pub refused: AtomicU64,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    open: usize,
    busy: bool,
    closed: bool,
}

impl Folder {
    /// The folder at work for this path, or a new one. Touches no disk: that is the writer's part.
    pub fn open(path: &Path, total_size: u64) -> std::io::Result<Arc<Self>> {
        // The working directory may change under a relative path; the folder must not.
        let path = std::path::absolute(path)?;
        let mut folders = folders();
        if let Some(folder) = folders.get(&path).and_then(Weak::upgrade) {
            folder.queue.total_size.store(total_size, Ordering::Relaxed);
            return Ok(folder);
        }
        let folder = Self::spawn(path.clone(), total_size, std::fs::OpenOptions::open)?;
        folders.retain(|_, folder| folder.strong_count() > 0);
        folders.insert(path, Arc::downgrade(&folder));
        Ok(folder)
    }

    pub(super) fn spawn(path: PathBuf, total_size: u64, open: super::files::OpenFile) -> std::io::Result<Arc<Self>> {
        let queue = Arc::new(Queue { total_size: AtomicU64::new(total_size), ..Queue::default() });
        let writer = Writer::new(path, Arc::clone(&queue), open);
        std::thread::Builder::new().name("record-writer".into()).spawn(move || writer.run())?;
        Ok(Arc::new(Self { queue, next: AtomicU64::new(0) }))
    }

    /// Begins a record; `None` when too many are under way. Each that begins must [`end`](Self::end).
    pub fn begin(&self, start: Start) -> Option<Ticket> {
        let ticket = Ticket(self.next.fetch_add(1, Ordering::Relaxed));
        let mut state = self.queue.lock();
        if state.open >= MOST_OPEN {
            drop(state);
            self.queue.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        state.open += 1;
        state.jobs.push_back(Job::Start(ticket, start));
        drop(state);
        self.queue.filled.notify_one();
        Some(ticket)
    }

    /// Hands over an event without waiting; false when the queue is full.
    pub fn push(&self, ticket: Ticket, event: Event) -> bool {
        let weight = event.weight();
        let mut state = self.queue.lock();
        if state.jobs.len() >= MOST_EVENTS || state.bytes + weight > MOST_BYTES {
            return false;
        }
        state.bytes += weight;
        state.jobs.push_back(Job::Event(ticket, event));
        drop(state);
        self.queue.filled.notify_one();
        true
    }

    /// Ends a record. Never refused: there is at most one for each that began.
    pub fn end(&self, ticket: Ticket, at: Duration, gaps: u64, truncated: bool) {
        self.queue.lock().jobs.push_back(Job::End { ticket, at, gaps, truncated });
        self.queue.filled.notify_one();
    }

    /// Waits until everything handed over so far is written, at most until `deadline`.
    pub fn flush(&self, deadline: Instant) {
        let mut state = self.queue.lock();
        while state.busy || !state.jobs.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.queue.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.filled.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that waits, as soon as there is something; `None` once the folder is gone and nothing is left.
    pub(super) fn take(&self) -> Option<VecDeque<Job>> {
        let mut state = self.lock();
        state.busy = false;
        loop {
            if !state.jobs.is_empty() {
                state.busy = true;
                state.bytes = 0;
                return Some(std::mem::take(&mut state.jobs));
            }
            self.idle.notify_all();
            if state.closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn one_closed(&self) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
    }
}

/// Writes out what waits for all folders; for the end of the program. What takes longer than `limit` is given up.
pub fn flush_all(limit: Duration) {
    let deadline = Instant::now() + limit;
    let open: Vec<_> = folders().values().filter_map(Weak::upgrade).collect();
    for folder in open {
        folder.flush(deadline);
    }
}
