//! Room 5: certificates and TLS for listeners. Owns: loading certificates, which certificate and which settings a
//! client hello gets. Must not know: HTTP routing, features, configuration files.
//!
//! ```text
//! PEM files ─load─▶ Certificate ─▶ CertStore ─┐
//! policies (SNI patterns, versions, ALPN) ────┴─▶ ServerTls ─choose(SNI)─▶ rustls::ServerConfig ─▶ handshake
//! ```

pub mod acme;
pub mod authorities;
pub mod authority;
pub mod automation;
mod certificate;
pub mod cleaning;
mod client_auth;
mod key_type;
pub mod maintenance;
mod managed;
pub mod ocsp;
pub mod on_demand;
mod policy;
mod resolver;
pub mod subject;
mod tickets;

pub use certificate::{Certificate, KeyAlgorithm, LoadError, LoadErrorKind, Validity};
pub use client_auth::ClientAuth;
pub use key_type::KeyType;
pub use managed::ManagedStore;
pub use policy::{Hello, Matcher, Policy, ServerTls, curve_by_name, suite_by_name};
pub use resolver::{CertStore, Selection};
pub use tickets::TicketSettings;
