//! Durations and sizes as an admin writes them.
