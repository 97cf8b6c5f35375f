//! Untyped values of `vars` and `map`: a bare word that reads as a number or a boolean becomes one in JSON, a quoted
//! word never does (Caddy's `ScalarVal`).

use serde_json::{Number, Value};

use crate::syntax::token::Token;

/// The word as the JSON value that Caddy's adapter makes of it. `None` for a number that JSON cannot hold (`inf`, `nan`).
#[must_use]
pub fn scalar(token: &Token) -> Option<Value> {
    let text = token.text();
    if token.quoted() {
        return Some(Value::String(text.to_owned()));
    }
    if let Ok(n) = text.parse::<i64>() {
        return Some(Value::from(n));
    }
    if let Some(n) = float(text) {
        return number(n);
    }
    Some(match text {
        "t" | "T" | "TRUE" | "true" | "True" => Value::Bool(true),
        "f" | "F" | "FALSE" | "false" | "False" => Value::Bool(false),
        _ => Value::String(text.to_owned()),
    })
}

/// The text of such a value when a placeholder shows it (Caddy's `ToString`).
#[must_use]
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        // Go shows numbers that came from JSON without an exponent and without a needless fraction.
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), |f| f.to_string()),
        other => other.to_string(),
    }
}

/// Go's ParseFloat in decimal: as Rust's, and underscores may stand between digits.
fn float(text: &str) -> Option<f64> {
    if !text.contains('_') {
        return text.parse().ok();
    }
    let bytes = text.as_bytes();
    let between_digits = bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'_')
        .all(|(i, _)| i > 0 && bytes[i - 1].is_ascii_digit() && bytes.get(i + 1).is_some_and(u8::is_ascii_digit));
    if between_digits { text.replace('_', "").parse().ok() } else { None }
}

fn number(n: f64) -> Option<Value> {
    // Whole numbers are printed without a fraction, as Go prints them.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() < EXACT {
        #[allow(clippy::cast_possible_truncation)] // checked above
        return Some(Value::from(n as i64));
    }
    Number::from_f64(n).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::{FileId, Span};
    use crate::syntax::token::Quote;
    use serde_json::json;

    fn read(text: &str, quote: Quote) -> Option<Value> {
        scalar(&Token { text: text.into(), span: Span::new(FileId(0), 0, 0), quote, from_env: false })
    }

    #[test]
    fn bare_words_become_numbers_and_booleans() {
        for (word, value) in [
            ("1", json!(1)),
            ("010", json!(10)),
            ("1e3", json!(1000)),
            ("1_000", json!(1000)),
            ("1.50", json!(1.5)),
            (".5", json!(0.5)),
            ("t", json!(true)),
            ("0x10", json!("0x10")),
            ("a", json!("a")),
        ] {
            assert_eq!(read(word, Quote::None), Some(value), "{word}");
        }
        assert_eq!(read("1", Quote::Double), Some(json!("1")));
        assert_eq!(read("inf", Quote::None), None);
    }

    #[test]
    fn shown_without_needless_fraction() {
        assert_eq!(text_of(&json!(1.0)), "1");
        assert_eq!(text_of(&json!(1.5)), "1.5");
        assert_eq!(text_of(&json!(true)), "true");
    }
}
