//! How `models` is written: in the Proxyfile and in JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::units::parse_duration;
use crate::config::compile_cx::CompileError;
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::types::{Route, is_false};
use crate::llm::date;
use crate::llm::model_list::Entry;
use crate::syntax::token::{Quote, Token};
use crate::syntax::tree::Node;

/// How long a list is kept, unless said otherwise.
const CACHE: Duration = Duration::from_mins(5);

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<Model>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Nanoseconds; zero = a list is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<i64>,
    #[serde(skip_serializing_if = "is_false")]
    pub strict: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    pub routes: Vec<Route>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owned_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// `2026-01-31`, or a time of RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
}

impl Config {
    pub fn check(&self) -> Result<(), CompileError> {
        if self.strict && self.from.is_empty() && self.models.is_empty() {
            let e = CompileError::new("missing-option", "`strict` needs a list: a `from` or a `model`");
            return Err(e.within("strict"));
        }
        Ok(())
    }

    pub fn cache(&self) -> Duration {
        self.cache.map_or(CACHE, |nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    /// The models of the file.
    pub fn entries(&self) -> Result<Vec<Entry>, CompileError> {
        let entry = |(i, model): (usize, &Model)| {
            let invalid = |field: &str, why: &str| {
                CompileError::new("invalid-value", why).within(field).within(i).within("models")
            };
            let created = match model.created.as_str() {
                "" => 0,
                text => date::unix_seconds(text).ok_or_else(|| invalid("created", DATE))?,
            };
            if model.id.is_empty() {
                return Err(invalid("id", NAMELESS));
            }
            let owner = if model.owned_by.is_empty() { "llmproxy" } else { &model.owned_by };
            let name = Some(model.display_name.as_str()).filter(|name| !name.is_empty());
            Ok(Entry::made(&model.id, owner, name, created))
        };
        self.models.iter().enumerate().map(entry).collect()
    }
}

const DATE: &str = "a date is `2026-01-31` or `2026-01-31T12:00:00Z`";
const NAMELESS: &str = "a model needs a name";

pub fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Config> {
    let node = cx.node;
    if !cx.args.is_empty() {
        return Err(cx.arg_err(node));
    }
    let mut out = Config::default();
    for line in node.lines() {
        match line.name() {
            "from" => out.from.push(source(cx, line)?),
            "model" => {
                let model = model(cx, line)?;
                if out.models.iter().any(|known| known.id == model.id) {
                    return Err(cx.duplicate(line));
                }
                out.models.push(model);
            }
            "allow" | "deny" => {
                cx.no_block(line)?;
                if line.args.is_empty() {
                    return Err(cx.arg_err(line));
                }
                let patterns = if line.name() == "allow" { &mut out.allow } else { &mut out.deny };
                patterns.extend(line.args.iter().map(|word| word.text().to_owned()));
            }
            "cache" if out.cache.is_some() => return Err(cx.duplicate(line)),
            "cache" => out.cache = Some(duration(cx, line)?),
            "strict" if line.args.is_empty() => {
                cx.no_block(line)?;
                out.strict = true;
            }
            "strict" => return Err(cx.arg_err(line)),
            _ => return Err(cx.unknown(line, &["from", "model", "allow", "deny", "cache", "strict"])),
        }
    }
    let cache = node.lines().find(|line| line.name() == "cache" && out.from.is_empty());
    if let Some(line) = cache {
        cx.warn_ignored(line.span());
    }
    Ok(out)
}

/// `from { directives }`, or `from upstreams… { options }` for one `reverse_proxy`.
fn source(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<Source> {
    let subroute = if line.args.is_empty() {
        match &line.block {
            Some(block) if !block.nodes.is_empty() => cx.subroute(&block.nodes, true)?,
            _ => return Err(cx.arg_err(line)),
        }
    } else {
        let name = Token { text: "reverse_proxy".into(), quote: Quote::None, ..line.name.clone() };
        cx.subroute(&[Node { name, ..line.clone() }], true)?
    };
    Ok(Source { routes: subroute.routes })
}

fn model(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Model> {
    let id = cx.one(line)?;
    if id.text().is_empty() {
        return Err(cx.err(id.span, "invalid-value", NAMELESS));
    }
    let mut model = Model { id: id.text().to_owned(), ..Model::default() };
    for line in line.lines() {
        let slot = match line.name() {
            "owned_by" => &mut model.owned_by,
            "display_name" => &mut model.display_name,
            "created" => &mut model.created,
            _ => return Err(cx.unknown(line, &["owned_by", "display_name", "created"])),
        };
        let word = cx.one(line)?;
        cx.no_block(line)?;
        if !slot.is_empty() {
            return Err(cx.duplicate(line));
        }
        if line.name() == "created" && date::unix_seconds(word.text()).is_none() {
            return Err(cx.err(word.span, "invalid-value", DATE));
        }
        word.text().clone_into(slot);
    }
    Ok(model)
}

fn duration(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<i64> {
    cx.no_block(line)?;
    let word = cx.one(line)?;
    match word.text() {
        "off" => Ok(0),
        text => parse_duration(text).filter(|nanos| *nanos >= 0).ok_or_else(|| {
            cx.err(word.span, "invalid-duration", format!("`{}` is not a duration such as `5m`", word.shown()))
        }),
    }
}
