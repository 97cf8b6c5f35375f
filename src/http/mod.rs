//! Room http.
