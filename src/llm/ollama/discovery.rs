//! What clients ask before they chat: `/api/tags`, `/api/ps`, `/api/show` and `/api/version`, made of the upstream's model
//! list and the model table.
//!
//! Clients check fields that they never show: VS Code Copilot skips a model without `capabilities`, Zed drops the whole list
//! for one entry without `size`, Continue looks for `.Suffix` in `template`. So every field is there for every model, with
//! what is known of that model; what nobody published is an empty text or a zero.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::request::BadRequest;
use super::text::{Stamp, Text};
use super::{listed_name, upstream_name};
use crate::llm::model_table::{AS_OF_UNIX, Capabilities, Facts, ModelTable};

/// A model of an upstream's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    /// Unix time.
    pub created: Option<i64>,
    /// Tokens, where the upstream says it (vLLM, OpenRouter, Groq, Mistral do).
    pub context: Option<u64>,
    /// A name for people.
    pub display: Option<String>,
}

impl Listed {
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// What `/api/show` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As the client named it; [`Asked::is`] compares.
    pub model: String,
    pub verbose: bool,
}

impl Asked {
    /// Is this the model that is meant? The tag `:latest` does not matter.
    pub fn is(&self, id: &str) -> bool {
        upstream_name(&self.model) == upstream_name(id)
    }
}

/// The body of `/api/show`: `model`, or `name` from older clients.
pub fn asked(body: &[u8]) -> Result<Asked, BadRequest> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Show<'a> {
        #[serde(borrow)]
        model: Text<'a>,
        #[serde(borrow)]
        name: Text<'a>,
        verbose: Option<bool>,
    }
    let show: Show<'_> = super::request::read(body)?;
    let model = show.model.said().or(show.name.said()).ok_or(BadRequest::new("model is required"))?;
    Ok(Asked { model: model.to_owned(), verbose: show.verbose.unwrap_or(false) })
}

/// A model list in OpenAI's shape, also Anthropic's and a bare array; `None` when it is none. Entries without an id are left
/// out, and so is the second of two with the same id.
pub fn models(body: &[u8]) -> Option<Vec<Listed>> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, alias = "models")]
        data: Option<Vec<&'a RawValue>>,
    }
    let text = std::str::from_utf8(body).ok()?;
    let entries = if text.trim_start().starts_with('[') {
        serde_json::from_str::<Vec<&RawValue>>(text).ok()?
    } else {
        // No list at all is an empty one, as gpt-reverse-proxy has it.
        super::openai::object::<List<'_>>(text)?.data.unwrap_or_default()
    };
    let mut seen = std::collections::HashSet::new();
    let listed = entries.into_iter().filter_map(|entry| listed(entry.get()));
    Some(listed.filter(|model| seen.insert(model.id.clone())).collect())
}

/// `/api/tags`.
pub fn tags(models: &[Listed], table: &ModelTable) -> Vec<u8> {
    #[derive(Serialize)]
    struct Tag<'a> {
        name: &'a str,
        model: &'a str,
        modified_at: Stamp,
        size: u64,
        digest: String,
        details: Details<'a>,
        capabilities: Vec<&'static str>,
    }
    list(models, |model| {
        let facts = facts(model, table);
        let name = listed_name(&model.id);
        json!(Tag {
            name: &name,
            model: &name,
            modified_at: modified(model),
            size: size(&facts),
            digest: digest(&model.id),
            details: details(&facts),
            capabilities: facts.capabilities.names().collect(),
        })
    })
}

/// `/api/ps`: models that an upstream serves are always loaded.
pub fn ps(models: &[Listed], table: &ModelTable, now: SystemTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct Loaded<'a> {
        name: &'a str,
        model: &'a str,
        size: u64,
        digest: String,
        details: Details<'a>,
        expires_at: Stamp,
        size_vram: u64,
        context_length: u64,
    }
    list(models, |model| {
        let facts = facts(model, table);
        let name = listed_name(&model.id);
        json!(Loaded {
            name: &name,
            model: &name,
            size: size(&facts),
            digest: digest(&model.id),
            details: details(&facts),
            expires_at: Stamp(now + KEPT),
            size_vram: size(&facts),
            context_length: facts.context,
        })
    })
}

/// `/api/show` for a model that is listed. `verbose` adds what Ollama then adds, which no upstream tells: an empty list of
/// tensors.
pub fn show(model: &Listed, table: &ModelTable, verbose: bool) -> Vec<u8> {
    let facts = facts(model, table);
    let template = if facts.capabilities.has(Capabilities::INSERT) {
        "{{ if .Suffix }}{{ .Prompt }}{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"
    } else {
        "{{ .Prompt }}"
    };
    // Continue reads it line by line; a prompt that fills it gets cut there and not upstream.
    let parameters = format!("num_ctx                        {}", facts.context);
    let mut shown = json!({
        "license": "",
        "modelfile": format!("# Modelfile of a model behind llmproxy\nFROM {}\nTEMPLATE {template:?}\n", model.id),
        "parameters": parameters,
        "template": template,
        "system": "",
        "details": details(&facts),
        "model_info": model_info(&facts),
        "capabilities": facts.capabilities.names().collect::<Vec<_>>(),
        "modified_at": modified(model),
    });
    if verbose && let Value::Object(fields) = &mut shown {
        fields.insert("tensors".to_owned(), Value::Array(Vec::new()));
    }
    written(&shown)
}

/// `/api/version`. Copilot wants at least 0.6.4, Open WebUI digits and dots.
pub fn version(version: &str) -> Vec<u8> {
    written(&json!({ "version": version }))
}

/// How long a model is said to stay loaded.
const KEPT: Duration = Duration::from_mins(5);

#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: &'a str,
    quantization_level: &'a str,
    context_length: u64,
    embedding_length: u64,
}

fn details<'a>(facts: &Facts<'a>) -> Details<'a> {
    Details {
        parent_model: "",
        format: "gguf",
        family: facts.family,
        families: [facts.family],
        parameter_size: facts.parameter_size,
        quantization_level: facts.quantization,
        context_length: facts.context,
        embedding_length: facts.embedding_length.unwrap_or(0),
    }
}

fn model_info(facts: &Facts<'_>) -> Value {
    let architecture = facts.architecture;
    let mut info = Map::new();
    info.insert("general.architecture".into(), architecture.into());
    info.insert("general.basename".into(), facts.display.into());
    info.insert("general.parameter_count".into(), facts.parameter_count().into());
    info.insert(format!("{architecture}.context_length"), facts.context.into());
    info.insert(format!("{architecture}.embedding_length"), facts.embedding_length.unwrap_or(0).into());
    Value::Object(info)
}

/// What the upstream says of the context and the name stands before the table, but not before the file.
fn facts<'a>(model: &'a Listed, table: &'a ModelTable) -> Facts<'a> {
    let mut facts = table.get_with(&model.id, |facts| {
        if let Some(context) = model.context {
            facts.context = context;
        }
        if let Some(display) = model.display.as_deref()
            && !facts.known
        {
            facts.display = display;
        }
    });
    facts.output = facts.output.min(facts.context);
    facts
}

fn listed(entry: &str) -> Option<Listed> {
    let entry: Value = serde_json::from_str(entry).ok()?;
    if let Value::String(id) = entry {
        return Some(Listed::new(id)).filter(|model| !model.id.is_empty());
    }
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let number = |name: &str| entry.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
    let id = text("id").or(text("model")).or(text("name"))?;
    let created = entry.get("created").and_then(Value::as_i64).filter(|time| *time > 0);
    let named = text("display_name").or(text("name")).filter(|name| *name != id);
    Some(Listed {
        id: id.to_owned(),
        created: created.or_else(|| text("created_at").and_then(rfc3339)),
        context: ["context_length", "max_model_len", "context_window", "max_context_length"]
            .into_iter()
            .find_map(number),
        display: named.map(str::to_owned),
    })
}

/// Seconds of a time as `2025-02-19T00:00:00Z`; offsets other than `Z` and fractions do not matter for a list.
fn rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u8>().ok();
    let year: i32 = text.get(..4)?.parse().ok()?;
    let month = time::Month::try_from(number(5, 7)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, number(8, 10)?).ok()?;
    let clock = time::Time::from_hms(number(11, 13)?, number(14, 16)?, number(17, 19)?).ok()?;
    Some(time::PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp())
}

fn modified(model: &Listed) -> Stamp {
    let seconds = u64::try_from(model.created.unwrap_or(AS_OF_UNIX)).unwrap_or(0);
    // A year of five digits is no time for a client.
    Stamp(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST)))
}

/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

/// Sixty-four hexadecimal digits that stay the same as long as the id does.
fn digest(id: &str) -> String {
    Sha256::digest(id.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// About what the weights take in 16 bits, or in the bits of a quantization as `Q4_K_M`; 0 when it is not known.
fn size(facts: &Facts<'_>) -> u64 {
    let bits = facts.quantization.trim_start_matches(|c: char| !c.is_ascii_digit());
    let digits = bits.find(|c: char| !c.is_ascii_digit()).unwrap_or(bits.len());
    let bits: u64 = bits[..digits].parse().ok().filter(|bits| (1..=64).contains(bits)).unwrap_or(16);
    facts.parameter_count() / 8 * bits
}

fn list(models: &[Listed], entry: impl Fn(&Listed) -> Value) -> Vec<u8> {
    written(&json!({ "models": models.iter().map(entry).collect::<Vec<_>>() }))
}

/// Texts and numbers cannot fail to be written.
fn written(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
