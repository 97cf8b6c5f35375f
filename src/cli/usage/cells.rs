//! Values for other programs: CSV that no spreadsheet takes for a formula, and JSON.

use rusqlite::types::Value;
use serde_json::Map;

/// A line of CSV (RFC 4180), without its end.
pub fn csv(values: &[Value]) -> String {
    let cells = values.iter().map(|value| match value {
        Value::Null => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Real(n) => n.to_string(),
        Value::Text(text) => csv_text(text),
        Value::Blob(_) => String::new(),
    });
    cells.collect::<Vec<_>>().join(",")
}

/// Names come from strangers: a text that begins as a formula does is marked as text.
pub fn csv_text(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// A JSON object on one line; what is not there is left out.
pub fn json(columns: &[String], values: &[Value]) -> String {
    let mut object = Map::new();
    for (name, value) in columns.iter().zip(values) {
        let value = match value {
            Value::Null | Value::Blob(_) => continue,
            Value::Integer(n) if name == "stream" => (*n != 0).into(),
            Value::Integer(n) => (*n).into(),
            Value::Real(n) => (*n).into(),
            Value::Text(text) if name == "tags" => serde_json::from_str(text).unwrap_or_else(|_| text.clone().into()),
            Value::Text(text) => text.clone().into(),
        };
        object.insert(name.clone(), value);
    }
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_they_say() {
        let values = [
            Value::Integer(1),
            Value::Null,
            Value::Text("=cmd(),\"x\"".into()),
            Value::Text("a\nb".into()),
            Value::Text(r#"{"p":"x"}"#.into()),
        ];
        assert_eq!(csv(&values), "1,,\"'=cmd(),\"\"x\"\"\",\"a\nb\",\"{\"\"p\"\":\"\"x\"\"}\"");
        let columns = ["stream", "user", "model", "route", "tags"].map(str::to_owned);
        assert_eq!(
            json(&columns, &values),
            r#"{"model":"=cmd(),\"x\"","route":"a\nb","stream":true,"tags":{"p":"x"}}"#
        );
    }
}
