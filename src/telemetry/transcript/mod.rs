//! Records of single requests, for diagnosis: what came and went on both sides of the proxy, with times.
//!
//! A record is a file of JSON lines, one [`Line`] for each event. What happens is handed to the folder's writer thread
//! through a bounded queue and written there; traffic never waits for it.
//!
//! ```text
//! exchange ─▶ Event ─▶ Folder: bounded queue ─▶ writer thread ─▶ TIME-ID.jsonl.part ─ at the end ─▶ TIME-ID.jsonl
//! ```

mod event;
mod files;
mod folder;
mod line;
mod writer;

pub use event::{Direction, End, Event, Head, Leg, What};
pub use folder::{Folder, Start, Ticket, flush_all};
pub use line::Line;
