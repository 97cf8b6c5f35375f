//! Room 1: what the program says about itself. Owns: the access log's records, encoders and writers, and the process
//! log. Must not know: HTTP handling, configuration files.

pub mod access;
