//! `options` of a request: what of them an upstream in the OpenAI format knows.
//!
//! `num_ctx`, `top_k`, `min_p`, `repeat_penalty` and all others that are not listed here are left out.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::request::BadRequest;
use crate::llm::model_table::Asks;

/// As the client wrote them. Types are judged in [`read`], with Ollama's words.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    num_predict: Value,
    temperature: Value,
    top_p: Value,
    seed: Value,
    stop: Value,
    presence_penalty: Value,
    frequency_penalty: Value,
}

/// In OpenAI's terms; `None` is not sent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Options {
    /// `max_tokens` or `max_completion_tokens`.
    pub(super) longest: Option<u64>,
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) seed: Option<Number>,
    pub(super) stop: Vec<String>,
    pub(super) presence_penalty: Option<Number>,
    pub(super) frequency_penalty: Option<Number>,
}

/// Leaves out what the model refuses anyway.
pub(super) fn read(options: Option<&RawValue>, asks: Asks) -> Result<Options, BadRequest> {
    let Some(options) = options else { return Ok(Options::default()) };
    if !options.get().starts_with('{') {
        return Err(BadRequest::new("invalid request body: options must be an object"));
    }
    let written: Written = serde_json::from_str(options.get()).map_err(|e| BadRequest::json(&e))?;
    let read = Options {
        // Negative: as long as the model likes.
        longest: integer("num_predict", written.num_predict)?.and_then(|n| n.as_u64()).filter(|longest| *longest > 0),
        temperature: float("temperature", written.temperature)?,
        top_p: float("top_p", written.top_p)?,
        seed: integer("seed", written.seed)?,
        stop: strings("stop", written.stop)?,
        presence_penalty: float("presence_penalty", written.presence_penalty)?,
        frequency_penalty: float("frequency_penalty", written.frequency_penalty)?,
    };
    Ok(Options {
        temperature: read.temperature.filter(|_| !asks.no_sampling),
        top_p: read.top_p.filter(|_| !asks.no_sampling),
        presence_penalty: read.presence_penalty.filter(|_| !asks.no_sampling),
        frequency_penalty: read.frequency_penalty.filter(|_| !asks.no_sampling),
        stop: if asks.no_stop { Vec::new() } else { read.stop },
        ..read
    })
}

fn float(name: &str, value: Value) -> Result<Option<Number>, BadRequest> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(Some(number)),
        _ => Err(BadRequest::new(format!("option \"{name}\" must be of type float32"))),
    }
}

/// Ollama cuts `1.0` down to `1`, and so do its clients rely on.
fn integer(name: &str, value: Value) -> Result<Option<Number>, BadRequest> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(Some(number)),
        Value::Number(number) => Ok(number.as_f64().map(|n| {
            #[expect(clippy::cast_possible_truncation, reason = "as Ollama does; beyond the range the nearest one")]
            let cut = n as i64;
            Number::from(cut)
        })),
        _ => Err(BadRequest::new(format!("option \"{name}\" must be of type integer"))),
    }
}

fn strings(name: &str, value: Value) -> Result<Vec<String>, BadRequest> {
    let wrong = || BadRequest::new(format!("option \"{name}\" must be of an array of strings"));
    match value {
        Value::Null => Ok(Vec::new()),
        // Ollama wants an array; one string is what many a client sends.
        Value::String(one) => Ok(vec![one]),
        Value::Array(all) => all
            .into_iter()
            .map(|one| match one {
                Value::String(text) => Ok(text),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}
