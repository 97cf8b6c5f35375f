//! Every diagnostic code with its long explanation, shown by `llmproxy explain CODE`.

/// `(code, one-line title, long form)`.
pub const CODES: &[(&str, &str, &str)] = &[];
