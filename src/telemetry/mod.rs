//! Room 1: what the program says about itself. Owns: entries, their formats and filters, logs, the threads that write
//! them, which requests an access log takes. Must not know: HTTP handling, configuration files.
//!
//! ```text
//! request ended ─▶ AccessLogs: loggers of the host ─▶ Log: level, namespace, sampling ─▶ Encoder ─▶ buffer of the thread
//!                                                            tick or 32 KiB ─▶ Sink: bounded queue ─▶ writer thread
//! ```

pub mod access;
pub mod buffer;
pub mod credentials;
pub mod encoder;
pub mod file;
pub mod filter;
mod go_layout;
mod json;
pub mod level;
pub mod line;
pub mod log;
pub mod process;
pub mod query;
pub mod sink;
pub mod transcript;

pub use go_layout::Layout;
