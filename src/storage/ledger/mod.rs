//! The usage ledger: every call that was counted, in a SQLite file that users open with tools of their own.
//!
//! ```text
//! record(Row) ─ queue, bounded ─▶ writer: one thread ─ every flush interval ─▶ calls, charges, spend, days: one transaction
//! spent(budget) ◀─ spend          llmproxy usage ◀─ days, calls: readers beside the writer (WAL)
//! ```
//!
//! **What may be lost.** A commit is on the disk when it is told (`synchronous = FULL`), so kill -9 and a power failure
//! alike lose what came since the last flush, and nothing else. Calls, charges and what budgets have spent are of one
//! transaction: they agree at every moment.
//!
//! **Back-pressure.** Traffic never waits. While the disk does not take them, up to [`queue::MOST`] calls wait in memory;
//! what comes then is not kept, is counted and told in the log and the status. What budgets are charged for such calls
//! is added up all the same, and written when the disk recovers.

mod queue;
pub mod report;
mod row;
mod schema;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use self::queue::Queue;
pub use self::row::{Charge, Row, Spent, TEXT};
pub use self::schema::Fault;
use crate::llm::price::Nano;

/// How often calls are written.
pub const FLUSH: Duration = Duration::from_secs(1);
/// How long single calls are kept.
pub const RETENTION: Duration = Duration::from_hours(90 * 24);

/// How a ledger is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Time between two transactions: what a crash loses at most.
    pub flush: Duration,
    /// How long single calls are kept; the sums of days stay. `None` = for ever.
    pub retention: Option<Duration>,
    /// Pages that the file may have, for tests of a full disk.
    #[doc(hidden)]
    pub max_pages: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { flush: FLUSH, retention: Some(RETENTION), max_pages: None }
    }
}

/// A ledger that is open. It is closed, with what came written, when the last who holds it lets go.
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    queue: Queue,
    settings: Mutex<Settings>,
    /// Why nothing can be written at this moment.
    failing: Mutex<Option<String>>,
    /// Calls that are not in the file and never will be.
    lost: AtomicU64,
    told_lost: Mutex<Option<Instant>>,
}

/// What `llmproxy status` shows of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    pub path: String,
    /// Why nothing can be written at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Calls since the start that were not kept.
    #[serde(default)]
    pub lost: u64,
}

static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Ledger>>>> = LazyLock::new(Mutex::default);
/// Of all ledgers whose writers run, also of those that nobody holds any more.
static WRITERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

impl Ledger {
    /// The ledger of a file: the one that is open in this process, which takes on the settings, else opened, and made
    /// when there is none. Blocks.
    ///
    /// A broken file is set aside and a new one begun. A disk that is full, or a file that another program holds, is no
    /// error: calls then wait in memory and it is tried again.
    ///
    /// # Errors
    /// What only a person can mend: no right to the file or folder, a file that is something else.
    pub fn open(path: &Path, settings: Settings) -> Result<Arc<Self>, String> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let mut open = locked(&OPEN);
        if let Some(ledger) = open.get(&path).and_then(Weak::upgrade) {
            *ledger.shared.settings() = settings;
            return Ok(ledger);
        }
        let (connection, failing) = match writer::open(&path) {
            Ok(connection) => (Some(connection), None),
            Err(Fault::Refused(why)) => return Err(format!("the usage ledger cannot be opened: {why}")),
            Err(fault) => {
                tracing::error!(ledger = %path.display(), error = %fault, "the ledger cannot be opened now; requests go on");
                (None, Some(fault.to_string()))
            }
        };
        let shared = Arc::new(Shared {
            path: path.clone(),
            queue: Queue::default(),
            settings: Mutex::new(settings),
            failing: Mutex::new(failing),
            lost: AtomicU64::new(0),
            told_lost: Mutex::new(None),
        });
        let writing = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer::run(&writing, connection))
            .map_err(|error| format!("the usage ledger cannot be written: no thread for it ({error})"))?;
        let mut writers = locked(&WRITERS);
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(&shared));
        drop(writers);
        let ledger = Arc::new(Self { shared });
        open.retain(|_, ledger| ledger.strong_count() > 0);
        open.insert(path, Arc::downgrade(&ledger));
        Ok(ledger)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Keeps a call; never waits. While the disk stands still and there is no more room, the call is counted as lost.
    pub fn record(&self, row: Row) {
        if !self.shared.queue.push(Box::new(row)) {
            self.shared.lose();
        }
    }

    /// What a budget has been charged, by key and period, with what was recorded before; periods that began before
    /// `from` (unix seconds) are left out, but for those without an end. Blocks, a few seconds at most.
    pub fn spent(&self, budget: &str, from: i64) -> Result<Vec<Spent>, Fault> {
        self.flush(Duration::from_secs(5));
        let connection = schema::open_to_read(&self.shared.path)?;
        spent(&connection, budget, from).map_err(Fault::from)
    }

    /// Waits until everything recorded so far is written; false when that takes longer than `limit`.
    pub fn flush(&self, limit: Duration) -> bool {
        self.shared.queue.flush(limit)
    }

    #[must_use]
    pub fn status(&self) -> LedgerStatus {
        LedgerStatus {
            path: self.shared.path.display().to_string(),
            error: self.shared.failing().clone(),
            lost: self.shared.lost.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

/// All ledgers that are open, by path.
#[must_use]
pub fn status() -> Vec<LedgerStatus> {
    let open: Vec<Arc<Ledger>> = locked(&OPEN).values().filter_map(Weak::upgrade).collect();
    let mut all: Vec<LedgerStatus> = open.iter().map(|ledger| ledger.status()).collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Has all ledgers written and closed, at the end of the program; together no longer than `limit`.
pub fn close_all(limit: Duration) {
    let until = Instant::now() + limit;
    let writers: Vec<Arc<Shared>> = locked(&WRITERS).iter().filter_map(Weak::upgrade).collect();
    for writer in writers {
        if !writer.queue.close_and_wait(until.saturating_duration_since(Instant::now())) {
            tracing::error!(ledger = %writer.path.display(), "the ledger could not be written to its end");
        }
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        locked(&self.settings)
    }

    fn failing(&self) -> MutexGuard<'_, Option<String>> {
        locked(&self.failing)
    }

    fn lose(&self) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = locked(&self.told_lost);
        if told.is_none_or(|told| told.elapsed() >= Duration::from_secs(10)) {
            *told = Some(Instant::now());
            tracing::error!(ledger = %self.path.display(), lost, "no room for more calls: they are missing from the ledger");
        }
    }
}

fn spent(connection: &Connection, budget: &str, from: i64) -> rusqlite::Result<Vec<Spent>> {
    let mut sums = connection.prepare(
        "SELECT key, per, period, cost, tokens FROM spend WHERE budget = ? AND (period >= ? OR per = 'total')",
    )?;
    let rows = sums.query_map((budget, from), |row| {
        Ok(Spent {
            key: row.get(0)?,
            per: row.get(1)?,
            period: row.get(2)?,
            cost: Nano(row.get(3)?),
            tokens: row.get::<_, i64>(4)?.try_into().unwrap_or(0),
        })
    })?;
    rows.collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
