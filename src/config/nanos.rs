//! A duration field of Caddy's JSON: whole nanoseconds, or on input also a Go duration text such as `"1m30s"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Nanoseconds; may be negative where the option gives that a meaning. Zero means absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub i64);

impl Nanos {
    #[must_use]
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// The duration when it is above zero.
    #[must_use]
    pub fn positive(self) -> Option<std::time::Duration> {
        u64::try_from(self.0).ok().filter(|n| *n > 0).map(std::time::Duration::from_nanos)
    }
}

impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bad = || serde::de::Error::custom("expected a duration: nanoseconds, or a text such as \"1m30s\"");
        match Value::deserialize(d)? {
            Value::Number(n) => n.as_i64().map(Self).ok_or_else(bad),
            Value::String(s) => crate::base::units::parse_duration(&s).map(Self).ok_or_else(bad),
            Value::Null => Ok(Self::default()),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_numbers_and_texts_and_writes_numbers() {
        let read = |v| serde_json::from_value::<Nanos>(v).unwrap();
        assert_eq!(read(json!(5)), Nanos(5));
        assert_eq!(read(json!("1m30s")), Nanos(90_000_000_000));
        assert!(serde_json::from_value::<Nanos>(json!("soon")).is_err());
        assert_eq!(serde_json::to_value(Nanos(-1)).unwrap(), json!(-1));
        assert_eq!(Nanos(-1).positive(), None);
    }
}
