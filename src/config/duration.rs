//! Durations in JSON: integers of nanoseconds, or Go duration strings.

use std::time::Duration;

use serde_json::Value;

use super::compile_cx::CompileError;

/// `None` for zero and negative values, which mean "no limit".
pub fn duration(value: &Value) -> Result<Option<Duration>, CompileError> {
    let nanos = match value {
        Value::Number(n) => n.as_i64(),
        _ => None,
    };
    match nanos {
        Some(n) => Ok(u64::try_from(n).ok().filter(|n| *n > 0).map(Duration::from_nanos)),
        None => Err(CompileError::new("invalid-duration", "not a duration (nanoseconds or text such as `10s`)")),
    }
}

/// An absent value takes the default; zero or negative is "no limit".
pub fn duration_or(value: Option<&Value>, default: Option<Duration>) -> Result<Option<Duration>, CompileError> {
    value.map_or(Ok(default), duration)
}
