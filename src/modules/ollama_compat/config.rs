//! The typed forms of the two handlers that the directive writes.

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::CompileError;
use crate::llm::model_table::{Capabilities, Entry, ModelTable};

/// `{"handler": "ollama_mount"}`: runs before anything looks at the path.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MountConfig {
    /// Number by which the two halves of one directive know each other.
    pub mount: u32,
    /// Without a slash at its end; empty = the root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretConfig>,
}

/// No `Debug`: the path is a credential.
#[derive(Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretConfig {
    /// The token of `auth_token` that the path stands for.
    pub name: String,
    /// One segment of a path.
    pub path: String,
}

/// `{"handler": "ollama_compat"}`: runs after access control, and translates.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompatConfig {
    /// Only requests that came in by this mount; `None` = every request for Ollama's routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelConfig>,
    /// Globs; empty = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
}

/// What is known of the models that a glob names; what is not said comes from the table of models.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    #[serde(rename = "match")]
    pub glob: String,
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// As pickers show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The table of models with what the file says before it.
pub fn table(models: &[ModelConfig]) -> Result<ModelTable, CompileError> {
    let entries = models.iter().enumerate().map(|(i, model)| entry(model).map_err(|e| e.within(i).within("models")));
    Ok(ModelTable::new(entries.collect::<Result<_, _>>()?))
}

fn entry(model: &ModelConfig) -> Result<Entry, CompileError> {
    if model.glob.is_empty() {
        return Err(CompileError::new("invalid-value", "a model needs its name, or a glob of names").within("match"));
    }
    let capability = |word: &String| {
        let unknown = || CompileError::new("invalid-value", format!("there is no capability `{word}`"));
        Capabilities::named(word).ok_or_else(unknown).map_err(|e| e.within("capabilities"))
    };
    let all = |words: &Vec<String>| {
        words.iter().try_fold(Capabilities::default(), |all, word| Ok::<_, CompileError>(all.with(capability(word)?)))
    };
    Ok(Entry {
        glob: model.glob.clone(),
        context: model.context,
        output: model.output,
        capabilities: model.capabilities.as_ref().map(all).transpose()?,
        family: model.family.clone(),
        parameter_size: model.parameters.clone(),
        quantization: model.quantization.clone(),
        embedding_length: model.embedding_length,
        display: model.name.clone(),
    })
}
