//! Durations in JSON: integers of nanoseconds, or Go duration strings.

use std::time::Duration;

use serde_json::Value;

use super::compile_cx::CompileError;

/// `None` for zero and negative values, which mean "no limit".
pub fn duration(value: &Value) -> Result<Option<Duration>, CompileError> {
    let nanos = match value {
        Value::Number(n) => n.as_i64(),
        Value::String(text) => crate::base::units::parse_duration(text),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_text() {
        assert_eq!(duration(&json!(1_000_000)).unwrap(), Some(Duration::from_millis(1)));
        assert_eq!(duration(&json!("1m30s")).unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(duration(&json!("-1s")).unwrap(), None);
        for wrong in [json!("soon"), json!(1.5), json!([1])] {
            assert!(duration(&wrong).is_err(), "{wrong}");
        }
    }
}
