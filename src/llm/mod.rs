//! Room 1: what LLM APIs say on the wire. Owns: error bodies, later wire formats, usage and prices. Pure: no I/O, no
//! configuration.

pub mod error_body;
