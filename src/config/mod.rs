//! Room 4: what a configuration is. Owns: the typed config (its serde form is Caddy's JSON), the registry of modules
//! and directives, the directive parsing context, imports (`expand`) and the adapter (`resolve`). Must not know: any
//! single directive, handler or matcher; network and clock.
//!
//! ```text
//! path ─expand─▶ syntax::tree::File ─resolve(registry)─▶ types::Config ─▶ compile
//! Caddy JSON ────────────────serde──────────────────────▶ types::Config
//! ```

pub mod background;
pub mod compile_cx;
pub mod directive_cx;
pub mod dns_provider;
pub mod dns_servers;
pub mod duration;
pub mod expand;
pub mod go_live;
pub mod log_types;
pub mod nanos;
pub mod read;
pub mod registry;
pub mod resolve;
pub mod response_handler;
pub mod scalar;
pub mod tls_types;
pub mod trust_pool;
pub mod trusted_certificates;
pub mod types;
pub mod usage_ledger;
pub mod usage_types;
pub mod weak_string;
