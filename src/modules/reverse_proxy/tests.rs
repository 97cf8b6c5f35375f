//! The directive's JSON, which the golden cases check in full; here what they do not reach.
