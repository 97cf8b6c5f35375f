//! Room 5: certificates and TLS for listeners. Owns: loading certificates, which certificate and which settings a
//! client hello gets. Must not know: HTTP routing, features, configuration files.
//!
//! ```text
//! PEM files ─load─▶ Certificate ─▶ CertStore ─┐
//! policies (SNI patterns, versions, ALPN) ────┴─▶ ServerTls ─choose(SNI)─▶ rustls::ServerConfig ─▶ handshake
//! ```

mod certificate;
mod policy;
mod resolver;

pub use certificate::{Certificate, LoadError};
pub use policy::{ClientAuth, Policy, ServerTls, curve_by_name, suite_by_name};
pub use resolver::{CertStore, Selection};
