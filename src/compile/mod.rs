//! Room 7: Config → Runtime. Owns: the immutable runtime that workers execute, and everything that can be wrong with a
//! configuration that parses. Reads key files and certificates; touches nothing that runs.
//!
//! ```text
//! types::Config ─compile(registry)─▶ Runtime { servers, listeners, logs, watched files }   or all errors at once
//! ```

mod acme_issuer;
pub mod address;
pub mod admin;
mod authorities;
mod auto_https;
pub mod automation;
mod certificates;
mod client_auth;
mod client_names;
mod dns_challenge;
mod host_index;
pub mod keep_alive;
mod lints;
pub mod load;
pub mod logs;
mod on_demand;
pub mod runtime;
mod server;
mod storage;
mod tls;
pub mod wrappers;

pub use runtime::{ListenerSpec, Runtime, ServerRuntime};
pub use server::{Refused, compile};
