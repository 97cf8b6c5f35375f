//! Room 2: where things are kept that must outlive the process. Owns: the key-value store for certificates, accounts and
//! keys, and its locks; the usage ledger. Must not know: what the values mean.
//!
//! ```text
//! key ("certificates/local/a.test/a.test.crt") ─▶ FileStorage{root} ─▶ a file of mode 0600, replaced in one step
//! lock("name") ─▶ locks/name.lock, kept fresh ─▶ one holder among all processes on the folder
//! Ledger::record(call) ─▶ usage.db (SQLite), written by one thread ◀─ llmproxy usage, anybody's tools
//! ```
//!
//! The layout and the lock files are those of Caddy (certmagic's `FileStorage`), so that both can work on one folder.

pub mod file;
mod folder;
pub mod key;
pub mod ledger;
pub mod lock;

pub use file::FileStorage;
pub use folder::default_folder;
pub use lock::{BriefLock, Lock};
