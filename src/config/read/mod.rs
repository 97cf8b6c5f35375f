//! Lines that stand both among the global options and in sites: logs, certificate issuers, storage, usage. They are read from
//! a [`Line`], which knows no directive, into the typed forms.

pub mod acme_defaults;
pub mod dns_provider;
pub mod issuer;
pub mod line;
pub mod log;
mod log_encoder;
mod log_writer;
pub mod storage;
pub mod usage;

pub use line::Line;
