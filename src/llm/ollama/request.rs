//! Requests: `/api/chat`, `/api/generate`, `/api/embed` and `/api/embeddings` as the OpenAI format asks for them.
//!
//! - `options`: `num_predict` becomes `max_tokens` or `max_completion_tokens` as the model wants it; `temperature`, `top_p`,
//!   `seed`, `stop` and the penalties keep their names; the others (`num_ctx`, `top_k`, `min_p`, `repeat_penalty`, …) are left
//!   out. What a model is known to refuse of them is left out as well.
//! - `think`: a level becomes `reasoning_effort` (`max` is sent as `high`); `true` is `medium`, since some models think only
//!   when told to, or what the model has nearest to it; `false` sends the model's own word for no thinking where it has one. A model that is known not to think
//!   refuses `true`, as in Ollama.
//! - `format`: `"json"` or a schema becomes `response_format`.
//! - `images` become data URLs; arguments of tool calls become strings; tool calls without id get one.
//! - `/api/generate` is asked as a chat; with `raw` or a `suffix` as a plain completion. `template` and `context` are left
//!   out: the upstream applies the model's own template, and no answer carries a context.
//! - An empty conversation or prompt only loads the model, or unloads it with `"keep_alive":0`: answered at once.
//! - `keep_alive`, `truncate` and `shift` are left out.
//!
//! The model is read from `model` alone: `name`, the field's old name, counts for `/api/show` only (`discovery::asked`), so
//! that no inference request can name one model to those who judge it and another to the upstream.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Number;
use serde_json::value::RawValue;

use super::message::{self, Message, Sent};
use super::option::{self, Options};
use super::text::{Text, cut};
use super::{Kind, Plan, upstream_name};
use crate::llm::model_table::{Capabilities, Facts, ModelTable};

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Translated {
    /// To be asked upstream.
    Ask(Ask),
    /// Answered without asking: [`super::response::immediate`] writes the answer.
    Immediate(Immediate),
}

/// A request in the OpenAI format.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// Below the upstream's base: `/v1/…`.
    pub path: &'static str,
    /// JSON.
    pub body: Vec<u8>,
    pub plan: Plan,
}

/// An answer that no upstream is needed for. It is one JSON object also where lines were asked for, as in Ollama.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immediate {
    pub model: String,
    pub what: Nothing,
}

/// What a request without a prompt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    LoadChat,
    UnloadChat,
    LoadGenerate,
    UnloadGenerate,
    /// No text was given: no vectors.
    NoInput,
    /// The same of the old route.
    NoPrompt,
}

/// A refusal in Ollama's words, for `{"error":…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRequest {
    pub status: u16,
    pub text: Cow<'static, str>,
}

impl BadRequest {
    pub(super) fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { status: 400, text: text.into() }
    }

    /// What the JSON reader says, which may repeat a piece of the client's own text.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::new(format!("invalid request body: {}", cut(&error.to_string(), 200)))
    }
}

/// `/api/chat`.
pub fn chat(body: &[u8], table: &ModelTable) -> Result<Translated, BadRequest> {
    let request: Chat<'_> = read(body)?;
    let model = named(&request.model)?;
    let messages = request.messages.as_deref().unwrap_or_default();
    if messages.is_empty() {
        let what = if is_zero(request.keep_alive)? { Nothing::UnloadChat } else { Nothing::LoadChat };
        return Ok(Translated::Immediate(Immediate { model: model.to_owned(), what }));
    }
    let facts = table.get(model);
    let think = Think::read(request.think, model, &facts)?;
    let stream = request.stream.unwrap_or(true);
    let wanted = Wanted {
        options: option::read(request.options, facts.asks)?,
        think,
        format: format(request.format)?,
        tools: tools(request.tools)?,
        logprobs: request.logprobs.unwrap_or(false),
        top_logprobs: top_logprobs(request.top_logprobs)?,
        stream,
    };
    let plan = wanted.plan(model, Kind::Chat);
    let body = wanted.chat_body(model, message::translate(messages)?, &facts);
    Ok(Translated::Ask(Ask { path: CHAT, body, plan }))
}

/// `/api/generate`.
pub fn generate(body: &[u8], table: &ModelTable) -> Result<Translated, BadRequest> {
    let request: Generate<'_> = read(body)?;
    let model = named(&request.model)?;
    let raw = request.raw.unwrap_or(false);
    if request.prompt.is_empty() && request.suffix.is_empty() {
        let what = if is_zero(request.keep_alive)? { Nothing::UnloadGenerate } else { Nothing::LoadGenerate };
        return Ok(Translated::Immediate(Immediate { model: model.to_owned(), what }));
    }
    let has_context = request.context.is_some_and(|context| !matches!(context.get(), "[]" | "[ ]"));
    if raw && (!request.template.is_empty() || !request.system.is_empty() || has_context) {
        return Err(BadRequest::new("raw mode does not support template, system, or context"));
    }
    let facts = table.get(model);
    if !request.suffix.is_empty() && facts.known && !facts.capabilities.has(Capabilities::INSERT) {
        return Err(BadRequest::new(format!("{:?} does not support insert", cut(model, 200))));
    }
    let think = Think::read(request.think, model, &facts)?;
    let wanted = Wanted {
        options: option::read(request.options, facts.asks)?,
        think,
        format: format(request.format)?,
        tools: None,
        logprobs: request.logprobs.unwrap_or(false),
        top_logprobs: top_logprobs(request.top_logprobs)?,
        stream: request.stream.unwrap_or(true),
    };
    if raw || !request.suffix.is_empty() {
        let plan = wanted.plan(model, Kind::Complete);
        let body = wanted.completion_body(model, request.prompt.as_str(), request.suffix.said());
        return Ok(Translated::Ask(Ask { path: COMPLETIONS, body, plan }));
    }
    let plan = wanted.plan(model, Kind::Generate);
    let mut messages = Vec::with_capacity(2);
    if let Some(system) = request.system.said() {
        messages.push(message::plain("system", system, &[])?);
    }
    messages.push(message::plain("user", request.prompt.as_str(), request.images.as_deref().unwrap_or_default())?);
    let body = wanted.chat_body(model, messages, &facts);
    Ok(Translated::Ask(Ask { path: CHAT, body, plan }))
}

/// `/api/embed`.
pub fn embed(body: &[u8], _table: &ModelTable) -> Result<Translated, BadRequest> {
    let request: Embed<'_> = read(body)?;
    let model = named(&request.model)?;
    let input = match request.input {
        None => Vec::new(),
        Some(raw) => input(raw)?,
    };
    if input.is_empty() {
        let what = Nothing::NoInput;
        return Ok(Translated::Immediate(Immediate { model: model.to_owned(), what }));
    }
    let dimensions = request.dimensions.filter(|n| *n > 0);
    Ok(Translated::Ask(embeddings_ask(model, &input, dimensions, Kind::Embed)))
}

/// The old `/api/embeddings`.
pub fn embeddings(body: &[u8], _table: &ModelTable) -> Result<Translated, BadRequest> {
    let request: Embeddings<'_> = read(body)?;
    let model = named(&request.model)?;
    if request.prompt.is_empty() {
        let what = Nothing::NoPrompt;
        return Ok(Translated::Immediate(Immediate { model: model.to_owned(), what }));
    }
    Ok(Translated::Ask(embeddings_ask(model, &[request.prompt], None, Kind::Embeddings)))
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Chat<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    messages: Option<Vec<Message<'a>>>,
    stream: Option<bool>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    format: Option<&'a RawValue>,
    #[serde(borrow)]
    options: Option<&'a RawValue>,
    #[serde(borrow)]
    think: Option<&'a RawValue>,
    #[serde(borrow)]
    keep_alive: Option<&'a RawValue>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Generate<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    prompt: Text<'a>,
    #[serde(borrow)]
    suffix: Text<'a>,
    #[serde(borrow)]
    system: Text<'a>,
    #[serde(borrow)]
    template: Text<'a>,
    #[serde(borrow)]
    context: Option<&'a RawValue>,
    stream: Option<bool>,
    raw: Option<bool>,
    #[serde(borrow)]
    format: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    options: Option<&'a RawValue>,
    #[serde(borrow)]
    think: Option<&'a RawValue>,
    #[serde(borrow)]
    keep_alive: Option<&'a RawValue>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Embed<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    dimensions: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Embeddings<'a> {
    #[serde(borrow)]
    model: Text<'a>,
    #[serde(borrow)]
    prompt: Text<'a>,
}

/// What a chat and a completion have in common.
struct Wanted<'a> {
    options: Options,
    think: Think,
    format: Option<ResponseFormat<'a>>,
    tools: Option<&'a RawValue>,
    logprobs: bool,
    top_logprobs: Option<u8>,
    stream: bool,
}

#[derive(Serialize)]
struct ChatBody<'a> {
    model: &'a str,
    messages: Vec<Sent<'a>>,
    #[serde(flatten)]
    common: Common<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u8>,
}

#[derive(Serialize)]
struct CompletionBody<'a> {
    model: &'a str,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    #[serde(flatten)]
    common: Common<'a>,
    /// Here a number: of how many tokens each place tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u8>,
}

#[derive(Serialize)]
struct Common<'a> {
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<&'a Number>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<&'a Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<&'a Number>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: Schema<'a> },
}

#[derive(Debug, Serialize)]
struct Schema<'a> {
    name: &'static str,
    schema: &'a RawValue,
}

#[derive(Serialize)]
struct EmbeddingsBody<'a> {
    model: &'a str,
    input: &'a [Text<'a>],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<i64>,
}

impl Wanted<'_> {
    fn plan(&self, model: &str, kind: Kind) -> Plan {
        Plan {
            model: model.to_owned(),
            kind,
            stream: self.stream,
            thinking: self.think != Think::Off,
            logprobs: self.logprobs,
        }
    }

    fn chat_body(&self, model: &str, messages: Vec<Sent<'_>>, facts: &Facts<'_>) -> Vec<u8> {
        let newer = facts.asks.max_completion_tokens;
        let logprobs = self.logprobs && !facts.asks.no_stop;
        let body = ChatBody {
            model: upstream_name(model),
            messages,
            common: self.common(if newer { None } else { self.options.longest }),
            max_completion_tokens: if newer { self.options.longest } else { None },
            tools: self.tools,
            response_format: self.format.as_ref(),
            reasoning_effort: self.think.effort(facts),
            logprobs: logprobs.then_some(true),
            top_logprobs: self.top_logprobs.filter(|_| logprobs),
        };
        written(&body)
    }

    fn completion_body(&self, model: &str, prompt: &str, suffix: Option<&str>) -> Vec<u8> {
        let model = upstream_name(model);
        let logprobs = self.logprobs.then(|| self.top_logprobs.unwrap_or(0));
        written(&CompletionBody { model, prompt, suffix, common: self.common(self.options.longest), logprobs })
    }

    fn common(&self, max_tokens: Option<u64>) -> Common<'_> {
        Common {
            stream: self.stream,
            // The counts of the last line.
            stream_options: self.stream.then_some(StreamOptions { include_usage: true }),
            max_tokens,
            temperature: self.options.temperature.as_ref(),
            top_p: self.options.top_p.as_ref(),
            seed: self.options.seed.as_ref(),
            stop: &self.options.stop,
            presence_penalty: self.options.presence_penalty.as_ref(),
            frequency_penalty: self.options.frequency_penalty.as_ref(),
        }
    }
}

fn embeddings_ask(model: &str, input: &[Text<'_>], dimensions: Option<i64>, kind: Kind) -> Ask {
    let body = written(&EmbeddingsBody { model: upstream_name(model), input, encoding_format: "float", dimensions });
    let plan = Plan { model: model.to_owned(), kind, stream: false, thinking: false, logprobs: false };
    Ask { path: EMBEDDINGS, body, plan }
}

/// Texts, numbers and JSON that was read before cannot fail to be written.
fn written(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BadRequest> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(BadRequest::new("missing request body"));
    }
    // Derived readers take an array for an object.
    if body.iter().find(|c| !c.is_ascii_whitespace()) != Some(&b'{') {
        return Err(BadRequest::new("invalid request body: expected a JSON object"));
    }
    serde_json::from_slice(body).map_err(|e| BadRequest::json(&e))
}

fn named<'a>(model: &'a Text<'_>) -> Result<&'a str, BadRequest> {
    model.said().ok_or(BadRequest::new("model is required"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Think {
    Unsaid,
    Off,
    On,
    Level(&'static str),
}

impl Think {
    fn read(raw: Option<&RawValue>, model: &str, facts: &Facts<'_>) -> Result<Self, BadRequest> {
        let think = match raw.map(RawValue::get) {
            None => Self::Unsaid,
            Some("true") => Self::On,
            Some("false") => Self::Off,
            Some("\"low\"") => Self::Level("low"),
            Some("\"medium\"") => Self::Level("medium"),
            Some("\"high\"" | "\"max\"") => Self::Level("high"),
            Some(other) => {
                let text = format!(
                    "invalid think value: {} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)",
                    cut(other, 200)
                );
                return Err(BadRequest::new(text));
            }
        };
        let wants = matches!(think, Self::On | Self::Level(_));
        if wants && facts.known && !facts.capabilities.has(Capabilities::THINKING) {
            return Err(BadRequest::new(format!("{:?} does not support thinking", cut(model, 200))));
        }
        Ok(think)
    }

    fn effort(self, facts: &Facts<'_>) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Off => facts.asks.effort_off,
            Self::On => facts.asks.efforts.nearest("medium"),
            Self::Level(level) => facts.asks.efforts.nearest(level),
        }
    }
}

fn format(raw: Option<&RawValue>) -> Result<Option<ResponseFormat<'_>>, BadRequest> {
    let Some(raw) = raw else { return Ok(None) };
    match raw.get() {
        "\"\"" => Ok(None),
        "\"json\"" => Ok(Some(ResponseFormat::JsonObject)),
        text if text.starts_with('{') => {
            Ok(Some(ResponseFormat::JsonSchema { json_schema: Schema { name: "response", schema: raw } }))
        }
        other => {
            let other = cut(other, 200);
            Err(BadRequest::new(format!("invalid format: {other}; expected \"json\" or a valid JSON Schema object")))
        }
    }
}

/// As they are: Ollama has OpenAI's shape. An empty list is none, which OpenAI refuses.
fn tools(raw: Option<&RawValue>) -> Result<Option<&RawValue>, BadRequest> {
    let Some(raw) = raw else { return Ok(None) };
    let text = raw.get();
    if !text.starts_with('[') {
        return Err(BadRequest::new("invalid request body: tools must be an array"));
    }
    Ok(Some(raw).filter(|_| text[1..].trim_start() != "]"))
}

fn top_logprobs(count: Option<i64>) -> Result<Option<u8>, BadRequest> {
    match count {
        None | Some(0) => Ok(None),
        Some(count) => match u8::try_from(count) {
            Ok(count) if count <= 20 => Ok(Some(count)),
            _ => Err(BadRequest::new("top_logprobs must be between 0 and 20")),
        },
    }
}

/// One text or several; an empty one alone is none.
fn input(raw: &RawValue) -> Result<Vec<Text<'_>>, BadRequest> {
    let wrong = |_| BadRequest::new("invalid input type");
    match raw.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str::<Text<'_>>(raw.get())
            .map(|one| if one.is_empty() { Vec::new() } else { vec![one] })
            .map_err(wrong),
        Some(b'[') if raw.get().contains("null") => {
            // `null` is a text elsewhere, not here.
            let all: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(wrong)?;
            if all.iter().any(|one| one.get() == "null") {
                return Err(BadRequest::new("invalid input type"));
            }
            serde_json::from_str(raw.get()).map_err(wrong)
        }
        Some(b'[') => serde_json::from_str(raw.get()).map_err(wrong),
        _ => Err(BadRequest::new("invalid input type")),
    }
}

/// A number of seconds, or a text as `5m`: does it mean at once? Others than numbers and texts are refused.
fn is_zero(keep_alive: Option<&RawValue>) -> Result<bool, BadRequest> {
    let Some(raw) = keep_alive else { return Ok(false) };
    let text = raw.get();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let number = inner.unwrap_or(text).trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if inner.is_none() && !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Err(BadRequest::new("invalid keep_alive: expected a number of seconds or a duration as \"5m\""));
    }
    Ok(number.parse::<f64>().is_ok_and(|seconds| seconds == 0.0))
}
