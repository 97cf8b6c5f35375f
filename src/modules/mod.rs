//! Room modules.
