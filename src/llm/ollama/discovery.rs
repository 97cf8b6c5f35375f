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
use crate::base::hex::hex;
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
    hex(&Sha256::digest(id.as_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::model_table::Entry;

    const LIST: &str = r#"{"object":"list","data":[
        {"id":"gpt-4o","object":"model","created":1715367049,"owned_by":"system"},
        {"id":"meta-llama/Llama-3.1-8B-Instruct","created":1,"max_model_len":16384},
        {"id":"codestral-latest"},
        {"id":"house-model:7b","name":"House model","context_length":64000},
        {"id":"text-embedding-3-small","created":0},
        {"id":"gpt-4o","created":5},
        {"object":"model"}, 7, {"id":""}
    ]}"#;

    fn value(json: &[u8]) -> Value {
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn lists_of_several_shapes_are_read() {
        let ids = |body: &str| models(body.as_bytes()).map(|all| all.into_iter().map(|one| one.id).collect::<Vec<_>>());
        let expected = ["gpt-4o", "meta-llama/Llama-3.1-8B-Instruct", "codestral-latest", "house-model:7b"];
        assert_eq!(ids(LIST).unwrap()[..4], expected);
        assert_eq!(ids(LIST).unwrap().len(), 5);
        assert_eq!(ids(r#"[{"id":"a"},"b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(ids(r#"{"models":[{"name":"models/gemini-2.5-pro"}]}"#).unwrap(), ["models/gemini-2.5-pro"]);
        assert!(ids("{}").unwrap().is_empty() && ids(r#"{"data":null}"#).unwrap().is_empty());
        for broken in ["", "7", "<html>", r#"{"data":7}"#] {
            assert_eq!(ids(broken), None, "{broken}");
        }
        let anthropic = r#"{"data":[{"type":"model","id":"claude-x","display_name":"Claude X","created_at":"2025-02-19T00:00:00Z"}],"has_more":false}"#;
        let listed = &models(anthropic.as_bytes()).unwrap()[0];
        assert_eq!((listed.created, listed.display.as_deref()), (Some(1_739_923_200), Some("Claude X")));
    }

    /// Zed fails the whole list for one missing field; Open WebUI finds a model by its tagged name; Copilot takes `model`.
    #[test]
    fn tags_have_every_field_for_every_model() {
        let tags = value(&tags(&models(LIST.as_bytes()).unwrap(), &ModelTable::default()));
        let all = tags["models"].as_array().unwrap();
        assert_eq!(all.len(), 5);
        for model in all {
            assert_eq!(model["name"], model["model"]);
            assert!(model["name"].as_str().unwrap().contains(':'));
            assert!(model["modified_at"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 30));
            assert!(model["size"].is_u64());
            let digest = model["digest"].as_str().unwrap();
            assert!(digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit()));
            let details = &model["details"];
            for field in ["parent_model", "format", "family", "parameter_size", "quantization_level"] {
                assert!(details[field].is_string(), "{field} of {model}");
            }
            assert_eq!(details["families"][0], details["family"]);
            assert!(details["context_length"].as_u64().unwrap() > 0);
            assert!(!model["capabilities"].as_array().unwrap().is_empty());
        }
        assert_eq!(all[0]["name"], "gpt-4o:latest");
        assert_eq!(all[0]["modified_at"], "2024-05-10T18:50:49.000000000Z");
        assert_eq!(all[2]["modified_at"], "2026-11-21T00:00:00.000000000Z");
        assert_eq!(all[3]["name"], "house-model:7b");
        assert_eq!(all[1]["details"]["parameter_size"], "8.0B");
        assert_eq!(all[1]["size"], 16_000_000_000_u64);
        assert_eq!(all[1]["details"]["context_length"], 16_384);
        let digests: std::collections::BTreeSet<_> = all.iter().map(|model| model["digest"].to_string()).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn show_says_what_is_known_of_that_model() {
        let all = models(LIST.as_bytes()).unwrap();
        let table = ModelTable::default();
        let shown = |n: usize| value(&show(&all[n], &table, false));
        let gpt = shown(0);
        for field in ["license", "modelfile", "parameters", "template", "system", "modified_at"] {
            assert!(gpt[field].is_string(), "{field}");
        }
        assert_eq!(gpt["capabilities"], json!(["completion", "tools", "vision"]));
        assert_eq!(gpt["model_info"]["general.basename"], "GPT-4o");
        assert_eq!(gpt["model_info"]["general.architecture"], "gpt");
        assert_eq!(gpt["model_info"]["gpt.context_length"], 128_000);
        assert_eq!(gpt["model_info"]["gpt.embedding_length"], 0);
        assert_eq!(gpt["model_info"]["general.parameter_count"], 0);
        assert!(gpt["parameters"].as_str().unwrap().starts_with("num_ctx "));
        assert!(gpt.get("tensors").is_none());
        let llama = shown(1);
        assert_eq!(llama["model_info"]["llama.context_length"], 16_384);
        assert_eq!(llama["model_info"]["general.parameter_count"], 8_000_000_000_u64);
        assert_eq!(llama["model_info"]["llama.embedding_length"], 4_096);
        // Continue completes in the middle only with models that can.
        assert!(shown(2)["template"].as_str().unwrap().contains(".Suffix"));
        assert!(!gpt["template"].as_str().unwrap().contains(".Suffix"));
        let house = shown(3);
        assert_eq!(house["model_info"]["general.basename"], "House model");
        assert_eq!(house["model_info"]["unknown.context_length"], 64_000);
        assert_eq!(shown(4)["capabilities"], json!(["embedding"]));
        assert_eq!(value(&show(&all[0], &table, true))["tensors"], json!([]));
    }

    #[test]
    fn the_file_has_the_last_word() {
        let entry = Entry {
            glob: "house-*".into(),
            context: Some(9_000),
            display: Some("Ours".into()),
            quantization: Some("Q4_K_M".into()),
            parameter_size: Some("8B".into()),
            ..Entry::default()
        };
        let table = ModelTable::new(vec![entry]);
        let all = models(LIST.as_bytes()).unwrap();
        let shown = value(&show(&all[3], &table, false));
        assert_eq!(shown["model_info"]["general.basename"], "Ours");
        assert_eq!(shown["model_info"]["unknown.context_length"], 9_000);
        let loaded = value(&ps(&all, &table, UNIX_EPOCH));
        let house = &loaded["models"][3];
        assert_eq!((&house["size"], &house["size_vram"]), (&json!(4_000_000_000_u64), &json!(4_000_000_000_u64)));
        assert_eq!(house["expires_at"], "1970-01-01T00:05:00.000000000Z");
        assert_eq!(house["context_length"], 9_000);
    }

    #[test]
    fn show_is_asked_by_either_name() {
        let read = |body: &str| asked(body.as_bytes());
        assert_eq!(read(r#"{"name":"a:latest"}"#).unwrap(), Asked { model: "a:latest".into(), verbose: false });
        let both = read(r#"{"model":"a","name":"b","verbose":true}"#).unwrap();
        assert!(both.is("a") && both.is("a:latest") && !both.is("b") && both.verbose);
        assert_eq!(read("{}").unwrap_err().text, "model is required");
        assert_eq!(read("").unwrap_err().text, "missing request body");
        assert_eq!(read(r#"{"model":7}"#).unwrap_err().status, 400);
    }

    #[test]
    fn odd_times_are_no_panic() {
        for created in [i64::MIN, -1, 0, i64::MAX] {
            let model = Listed { created: Some(created), ..Listed::new("m") };
            let tags = value(&tags(&[model], &ModelTable::default()));
            assert_eq!(tags["models"][0]["modified_at"].as_str().unwrap().len(), 30);
        }
        for time in ["", "2025", "2025-13-01T00:00:00Z", "2025-02-30T00:00:00Z", "äääääääääääääää"] {
            assert_eq!(rfc3339(time), None, "{time}");
        }
    }
}
