//! Log probabilities: Ollama has a chat's shape for both kinds of answers.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::openai::object;
use super::tool_call::single_line;

/// Those of one choice, as an array; `None` when there are none that Ollama could tell.
pub(super) fn logprobs(raw: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Logprobs<'a> {
        /// Of a chat: as Ollama has it.
        #[serde(borrow)]
        content: Option<&'a RawValue>,
        /// Of a plain completion: one list each.
        tokens: Option<Vec<String>>,
        token_logprobs: Option<Vec<Option<f64>>>,
        top_logprobs: Option<Vec<Option<Map<String, Value>>>>,
    }
    let logprobs: Logprobs<'_> = object(raw.get())?;
    if let Some(content) = logprobs.content.filter(|content| content.get().starts_with('[')) {
        return Some(single_line(content));
    }
    let tokens = logprobs.tokens.filter(|tokens| !tokens.is_empty())?;
    let values = logprobs.token_logprobs.unwrap_or_default();
    let tops = logprobs.top_logprobs.unwrap_or_default();
    let all: Vec<Logprob> = tokens
        .into_iter()
        .enumerate()
        .map(|(n, token)| Logprob {
            token,
            // The first token of a prompt has none.
            logprob: values.get(n).copied().flatten().unwrap_or(0.0),
            top_logprobs: tops.get(n).and_then(Option::as_ref).map_or_else(Vec::new, alternatives),
        })
        .collect();
    serde_json::value::to_raw_value(&all).ok()
}

#[derive(Serialize)]
struct Logprob {
    token: String,
    logprob: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<Value>,
}

fn alternatives(map: &Map<String, Value>) -> Vec<Value> {
    map.iter().map(|(token, logprob)| json!({ "token": token, "logprob": logprob })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<String> {
        let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
        logprobs(&raw).map(|raw| raw.get().to_owned())
    }

    #[test]
    fn both_shapes_become_one() {
        assert_eq!(
            read("{\"content\":[{\"token\":\"a\",\n\"logprob\":-1}]}").unwrap(),
            r#"[{"token":"a", "logprob":-1}]"#
        );
        let lists = r#"{"tokens":["a","b"],"token_logprobs":[null,-0.5],"top_logprobs":[null,{"b":-0.5,"c":-2}],"text_offset":[0,1]}"#;
        assert_eq!(
            read(lists).unwrap(),
            r#"[{"token":"a","logprob":0.0},{"token":"b","logprob":-0.5,"top_logprobs":[{"logprob":-0.5,"token":"b"},{"logprob":-2,"token":"c"}]}]"#
        );
        for nothing in ["null", "{}", "[]", r#"{"content":null}"#, r#"{"tokens":[]}"#, r#"{"tokens":7}"#] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
