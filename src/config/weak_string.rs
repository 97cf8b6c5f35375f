//! Caddy's `WeakString`: a text that JSON may also give as a number or a boolean, as in `"status_code": 404` or
//! `"status_code": "{http.vars.code}"`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Written to JSON as a number or boolean when it reads as one, as Caddy does. Empty means absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeakString(pub String);

impl WeakString {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for WeakString {
    fn from(s: &str) -> Self {
        Self(s.to_owned())
    }
}

impl Serialize for WeakString {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_str() {
            "true" => s.serialize_bool(true),
            "false" => s.serialize_bool(false),
            text => match text.parse::<i64>() {
                Ok(n) => s.serialize_i64(n),
                Err(_) => s.serialize_str(text),
            },
        }
    }
}

impl<'de> Deserialize<'de> for WeakString {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::String(s) => Ok(Self(s)),
            Value::Number(n) => Ok(Self(n.to_string())),
            Value::Bool(b) => Ok(Self(b.to_string())),
            Value::Null => Ok(Self::default()),
            _ => Err(serde::de::Error::custom("expected a text, a number or a boolean")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_and_booleans_lose_their_quotes() {
        let to = |s: &str| serde_json::to_value(WeakString::from(s)).unwrap();
        assert_eq!(to("404"), json!(404));
        assert_eq!(to("true"), json!(true));
        assert_eq!(to("4xx"), json!("4xx"));
        assert_eq!(serde_json::from_value::<WeakString>(json!(404)).unwrap().as_str(), "404");
        assert!(serde_json::from_value::<WeakString>(json!([])).is_err());
    }
}
