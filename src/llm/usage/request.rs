//! What a request says of the tokens that its call may take, in every provider's words.

use std::ops::Range;

use crate::llm::json_view::Value;
use crate::llm::peek;

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
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

/// Reads a JSON body; one that cannot be read says nothing.
#[must_use]
pub fn read(body: &[u8]) -> Asked {
    let mut asked = Asked::default();
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

/// A body that asks for the counts of a stream; `None` where nothing is to be added: no stream is asked for, the counts
/// are, or what is asked for cannot be told for sure. Every byte beside it stays.
#[must_use]
pub fn with_usage(body: &[u8]) -> Option<Vec<u8>> {
    let [stream, options] = peek::top_level(body, ["stream", "stream_options"]).ok()?;
    if body.get(stream?) != Some(b"true") {
        return None;
    }
    let Some(options) = options else {
        let brace = memchr::memchr(b'{', body)? + 1;
        return Some(spliced(body, brace..brace, br#""stream_options":{"include_usage":true},"#));
    };
    let written = body.get(options.clone())?;
    if written == b"null" {
        return Some(spliced(body, options, br#"{"include_usage":true}"#));
    }
    let [asked] = peek::top_level(written, ["include_usage"]).ok()?;
    match asked {
        Some(asked) if written.get(asked.clone()) == Some(b"true") => None,
        Some(asked) => Some(spliced(body, options.start + asked.start..options.start + asked.end, b"true")),
        None => {
            let is_empty = written.get(1..written.len() - 1)?.trim_ascii().is_empty();
            let field: &[u8] = if is_empty { br#""include_usage":true"# } else { br#""include_usage":true,"# };
            Some(spliced(body, options.start + 1..options.start + 1, field))
        }
    }
}

fn spliced(body: &[u8], place: Range<usize>, with: &[u8]) -> Vec<u8> {
    let (before, after) = (body.get(..place.start).unwrap_or_default(), body.get(place.end..).unwrap_or_default());
    [before, with, after].concat()
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
    fn a_stream_is_asked_for_its_counts_and_nothing_else_changes() {
        let with = |body: &str| with_usage(body.as_bytes()).map(|b| String::from_utf8(b).unwrap());
        for (body, asked) in [
            (
                r#" { "stream" : true, "x":1.50}"#,
                r#" {"stream_options":{"include_usage":true}, "stream" : true, "x":1.50}"#,
            ),
            (r#"{"stream":true,"stream_options":null}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            (r#"{"stream_options":{ },"stream":true}"#, r#"{"stream_options":{"include_usage":true },"stream":true}"#),
            (
                r#"{"stream_options":{"include_obfuscation":false},"stream":true}"#,
                r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true}"#,
            ),
            (
                r#"{"stream_options":{"a":[1],"include_usage": false },"stream":true}"#,
                r#"{"stream_options":{"a":[1],"include_usage": true },"stream":true}"#,
            ),
        ] {
            assert_eq!(with(body).as_deref(), Some(asked));
            assert_eq!(with(asked), None);
        }
        for body in [
            "{}",
            r#"{"stream":false}"#,
            r#"{"stream":"true"}"#,
            r#"{"stream":true,"stream":false}"#,
            r#"{"stream":true,"stream_options":7}"#,
            r#"{"stream":true"#,
            "[]",
        ] {
            assert_eq!(with(body), None, "{body}");
        }
    }

    #[test]
    fn what_two_could_read_differently_bounds_nothing() {
        assert_eq!(limit(r#"{"max_tokens":5,"max_tokens":500000}"#), None);
        assert_eq!(limit(r#"{"max_tokens":5"#), None);
        assert_eq!(limit("[]"), None);
    }
}
