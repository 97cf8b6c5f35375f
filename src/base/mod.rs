//! Room 0: vocabulary that every other room speaks. Owns: source spans, diagnostics, units, the body type,
//! the request error. Must not know: configuration, HTTP semantics, the network.

pub mod body;
pub mod diagnostic;
pub mod env;
pub mod error;
pub mod field_list;
pub mod hex;
pub mod password;
pub mod span;
pub mod spare;
pub mod spare_headers;
pub mod units;
