//! `encode`: compresses responses. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_zero};
use crate::http::response_matcher::ResponseMatcher;
use crate::http::route::Handler;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "encode",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Compresses responses.",
        syntax: "encode [matcher] [gzip] [zstd] { gzip [<level>]  zstd [<level>]  minimum_length <bytes>  match <response matcher> }",
        examples: &[
            "encode",
            "encode zstd gzip",
            "encode {\n\tgzip 5\n\tzstd better\n\tminimum_length 100\n\tmatch status 200\n}",
        ],
        rejected: &[
            ("encode br", "unknown-encoding"),
            ("encode {\n\tgzip fast\n}", "invalid-number"),
            ("encode {\n\tzstd quick\n}", "unknown-level"),
            ("encode {\n\tminimum_length\n}", "wrong-argument-count"),
        ],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "encode", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Encode {
    #[serde(skip_serializing_if = "Map::is_empty")]
    encodings: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prefer: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    minimum_length: i64,
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    matcher: Option<ResponseMatcher>,
}

const ENCODINGS: [&str; 2] = ["gzip", "zstd"];
const ZSTD_LEVELS: [&str; 4] = ["fastest", "default", "better", "best"];

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Encode::default();
    let mut on_line = Vec::new();
    for format in cx.args {
        known(cx, format)?;
        out.encodings.insert(format.text().to_owned(), json!({}));
        on_line.push(format.text().to_owned());
    }
    for line in cx.node.lines() {
        match line.name() {
            "minimum_length" => out.minimum_length = integer(cx, cx.one(line)?)?,
            "match" if out.matcher.is_some() => return Err(cx.duplicate(line)),
            "match" => out.matcher = Some(ResponseMatcher::parse(line)?),
            name => {
                known(cx, &line.name)?;
                let options = if name == "gzip" { gzip(cx, line)? } else { zstd(cx, line)? };
                out.encodings.insert(name.to_owned(), options);
                out.prefer.push(name.to_owned());
            }
        }
    }
    // Caddy makes the formats of the line again after those of the block, and puts them behind in preference.
    for format in on_line {
        out.encodings.insert(format.clone(), json!({}));
        out.prefer.push(format);
    }
    if out.encodings.is_empty() {
        out.encodings = ENCODINGS.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        out.prefer = vec!["zstd".into(), "gzip".into()];
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn known(cx: &DirectiveCx<'_, '_>, format: &Token) -> Parsed<()> {
    if ENCODINGS.contains(&format.text()) {
        return Ok(());
    }
    let d = cx.err(format.span, "unknown-encoding", format!("there is no encoding `{}`", format.shown()));
    Err(Box::new(d.help("`gzip` and `zstd` are built in")))
}

fn integer(cx: &DirectiveCx<'_, '_>, token: &Token) -> Parsed<i64> {
    let message = || format!("`{}` is not a whole number", token.shown());
    token.text().parse().map_err(|_| cx.err(token.span, "invalid-number", message()))
}

fn gzip(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Value> {
    Ok(match line.args.first().map(|level| integer(cx, level)).transpose()? {
        None | Some(0) => json!({}),
        Some(level) => json!({ "level": level }),
    })
}

fn zstd(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Value> {
    let mut options = Map::new();
    let level = match line.args.as_slice() {
        [] => None,
        [level] => Some(level),
        _ => return Err(cx.arg_err(line)),
    };
    if let Some(level) = level {
        zstd_level(cx, &mut options, level)?;
    }
    for option in line.lines() {
        match option.name() {
            "level" => zstd_level(cx, &mut options, cx.one(option)?)?,
            "disable_checksum" => {
                options.insert("checksum".into(), Value::Bool(false));
            }
            _ => return Err(cx.unknown(option, &["level", "disable_checksum"])),
        }
    }
    Ok(Value::Object(options))
}

fn zstd_level(cx: &DirectiveCx<'_, '_>, options: &mut Map<String, Value>, level: &Token) -> Parsed<()> {
    if !ZSTD_LEVELS.contains(&level.text()) {
        let d = cx.err(level.span, "unknown-level", format!("zstd has no level `{}`", level.shown()));
        return Err(Box::new(d.help(format!("one of {}", ZSTD_LEVELS.join(", ")))));
    }
    options.insert("level".into(), level.text().into());
    Ok(())
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<Encode>(module, "handler")?;
    Err(CompileError::not_supported("`encode`"))
}
