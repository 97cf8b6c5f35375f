//! Room tls.
