//! Room 1: what LLM APIs say on the wire. Owns: bodies, events and errors of the providers' formats, usage and
//! prices. Pure: no I/O, no clock. Must not know: HTTP handling, configuration.

pub mod cursor;
pub mod date;
pub mod dialect;
pub mod error_body;
pub mod in_band;
pub mod json_view;
pub mod model_alias;
pub mod model_glob;
pub mod model_list;
pub mod model_table;
pub mod multipart;
pub mod ollama;
pub mod opening;
pub mod peek;
pub mod price;
pub mod readable;
pub mod sample;
pub mod sse;
pub mod usage;
