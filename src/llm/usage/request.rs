//! What a request says of the tokens that its call may take, in every provider's words.

use crate::llm::json_view::Value;
use crate::llm::peek;

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Tokens of the prompt, estimated.
    pub input: u64,
    /// The most output tokens it allows, all choices together; `None` = no bound, or none that is told for sure.
    pub output_limit: Option<u64>,
    /// It says that it wants a stream.
    pub stream: bool,
    /// It says that it wants none.
    pub no_stream: bool,
}

/// Where requests bound their output. Of several the largest counts: which of them an upstream goes by is its own affair.
const LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// How many choices are made of one prompt.
const CHOICES: [&str; 2] = ["n", "best_of"];

/// Reads a JSON body; one that cannot be read says nothing but its length.
#[must_use]
pub fn read(body: &[u8]) -> Asked {
    let mut asked = Asked { input: (body.len() as u64).div_ceil(4), ..Asked::default() };
    let names = [LIMITS[0], LIMITS[1], LIMITS[2], CHOICES[0], CHOICES[1], "stream", "options", "generationConfig"];
    let Ok(found) = peek::top_level(body, names) else { return asked };
    let [first, second, third, n, best_of, stream, options, config] =
        found.map(|range| range.map(|range| Value::at(body, range)));
    let stream = stream.map(Value::raw);
    asked.stream = stream == Some(b"true");
    asked.no_stream = stream == Some(b"false");
    let nested = |object: Option<Value<'_>>, names: [&str; 2]| -> [Option<u64>; 2] {
        let Some(object) = object.map(Value::raw) else { return [None, None] };
        // What is there twice bounds nothing.
        let Ok(found) = peek::top_level(object, names) else { return [None, None] };
        found.map(|range| range.and_then(|range| number(object.get(range)?)))
    };
    let [ollama, _] = nested(options, ["num_predict", ""]);
    let [gemini, candidates] = nested(config, ["maxOutputTokens", "candidateCount"]);
    let direct = [first, second, third].map(|value| value.and_then(|v| number(v.raw())));
    let limit = direct.into_iter().chain([ollama, gemini]).flatten().max();
    let choices = [n, best_of].map(|value| value.and_then(|v| number(v.raw())));
    let choices = choices.into_iter().chain([candidates]).flatten().max().unwrap_or(1).max(1);
    asked.output_limit = limit.map(|limit| limit.saturating_mul(choices));
    asked
}

/// A whole number above zero; Ollama's `-1` is no bound.
fn number(raw: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(raw).ok()?;
    let whole = text.parse::<u64>().ok();
    // Some clients write `100.0` or `1e3`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range, checked
    let written = || text.parse::<f64>().ok().filter(|n| (1.0..9e15).contains(n)).map(|n| n.ceil() as u64);
    whole.or_else(written).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(body: &str) -> Option<u64> {
        read(body.as_bytes()).output_limit
    }

    #[test]
    fn the_bound_is_the_largest_that_is_told() {
        assert_eq!(limit(r#"{"max_tokens":5}"#), Some(5));
        assert_eq!(limit(r#"{"max_tokens":5,"max_completion_tokens":7,"n":3}"#), Some(21));
        assert_eq!(limit(r#"{"max_output_tokens":1e3}"#), Some(1000));
        assert_eq!(limit(r#"{"options":{"num_predict":9}}"#), Some(9));
        assert_eq!(limit(r#"{"options":{"num_predict":-1}}"#), None);
        assert_eq!(limit(r#"{"generationConfig":{"maxOutputTokens":4,"candidateCount":2}}"#), Some(8));
        assert_eq!(limit(r#"{"max_tokens":null}"#), None);
        assert_eq!(limit(r#"{"max_tokens":18446744073709551615,"n":9}"#), Some(u64::MAX));
    }

    #[test]
    fn what_two_could_read_differently_bounds_nothing() {
        assert_eq!(limit(r#"{"max_tokens":5,"max_tokens":500000}"#), None);
        assert_eq!(limit(r#"{"max_tokens":5"#), None);
        assert_eq!(limit("[]"), None);
    }
}
