//! Compresses answers for clients that accept it. `encode` alone offers zstd and gzip; named are offered only those, and of
//! what a client likes equally the one named first is taken. `br` is offered where it is named.
//!
//! Compressed are answers of more than `minimum_length` bytes (512) whose type is text, JSON, XML, JavaScript, WebAssembly, a font
//! or alike; `match` puts conditions of your own in place of the types. An answer that does not tell its length is
//! compressed when its first piece is long enough; **a stream of events always is, and each event still leaves at
//! once**. Left alone are answers that are encoded already, parts of an answer (206), those with `Cache-Control:
//! no-transform` in request or answer, those without a type, and WebSockets.
//!
//! `Vary: Accept-Encoding` is added, ranges are not offered, and a strong `ETag` gets the coding as an ending (`"x"`
//! becomes `"x-gzip"`), which is taken off again when the client sends it back. A whole answer has the length of what it
//! became; a stream has none.
//!
//! | | levels | the default |
//! |---|---|---|
//! | `gzip` | 1 (fast) to 9 (small) | 5 |
//! | `zstd` | `fastest`, `default`, `better`, `best`; window of 128 KiB, with a checksum unless `disable_checksum` | `default` |
//! | `br` | 0 (fast) to 11 (small, very slow) | 4 |
//!
//! A compressed stream holds its encoder for as long as it lasts: gzip about 300 KiB, zstd about 1 MiB, br several. For an API in
//! front of which clients open thousands of streams, say for which paths answers are compressed. What a compressed
//! answer says can be guessed from its length where strangers can make requests that reflect their own text beside a
//! secret (BREACH): do not compress those.

mod accept;
mod coding;
mod stage;

use std::sync::Arc;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::coding::Coding;
use self::stage::Compression;
use crate::config::compile_cx::{CompileCx, CompileError, read, read_value};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_zero};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::response_matcher::{CompiledResponseMatcher, ResponseMatcher};
use crate::http::route::Handler;
use crate::http::stage::Stage;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "encode",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Compresses answers.",
        syntax: "encode [matcher] [gzip] [zstd] [br] { gzip [<level>]  zstd [<level>]  br [<quality>]  minimum_length <bytes>  match <response matcher> }",
        examples: &[
            "encode",
            "encode zstd gzip",
            "encode br gzip",
            "encode {\n\tbr 6\n\tgzip\n}",
            "encode {\n\tgzip 5\n\tzstd better\n\tminimum_length 100\n\tmatch status 200\n}",
        ],
        rejected: &[
            ("encode deflate", "unknown-encoding"),
            ("encode {\n\tgzip fast\n}", "invalid-number"),
            ("encode {\n\tzstd quick\n}", "unknown-level"),
            ("encode {\n\tminimum_length\n}", "wrong-argument-count"),
            ("encode {\n\tgzip 10\n}", "unknown-level"),
            ("encode {\n\tbr 12\n}", "unknown-level"),
            ("encode gzip gzip", "duplicate-option"),
        ],
        adapt_only: false,
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

const ENCODINGS: [&str; 3] = ["gzip", "zstd", "br"];
/// Those of an `encode` that names none, by preference.
const DEFAULT_ENCODINGS: [&str; 2] = ["zstd", "gzip"];
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
                let options = match name {
                    "zstd" => zstd(cx, line)?,
                    "br" => number(cx, line, "quality")?,
                    _ => number(cx, line, "level")?,
                };
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
        out.encodings = DEFAULT_ENCODINGS.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        out.prefer = DEFAULT_ENCODINGS.map(str::to_owned).into();
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn known(cx: &DirectiveCx<'_, '_>, format: &Token) -> Parsed<()> {
    if ENCODINGS.contains(&format.text()) {
        return Ok(());
    }
    let d = cx.err(format.span, "unknown-encoding", format!("there is no encoding `{}`", format.shown()));
    Err(Box::new(d.help("one of `gzip`, `zstd` and `br`")))
}

fn integer(cx: &DirectiveCx<'_, '_>, token: &Token) -> Parsed<i64> {
    let message = || format!("`{}` is not a whole number", token.shown());
    token.text().parse().map_err(|_| cx.err(token.span, "invalid-number", message()))
}

/// A single number, kept under this name; 0 and none are the default.
fn number(cx: &DirectiveCx<'_, '_>, line: &Node, name: &str) -> Parsed<Value> {
    Ok(match line.args.first().map(|level| integer(cx, level)).transpose()? {
        None | Some(0) => json!({}),
        Some(level) => json!({ name: level }),
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
    let config: Encode = read(module, "handler")?;
    Ok(Handler::Step(Box::new(Arc::new(Rules::of(&config)?))))
}

/// One `encode`, compiled.
struct Rules {
    /// What is offered, by preference: names, and codings in the same places.
    names: Box<[Box<str>]>,
    codings: Box<[Coding]>,
    /// Answers must be longer.
    minimum: u64,
    only: CompiledResponseMatcher,
}

/// Caddy's.
const MINIMUM: u64 = 512;

impl Rules {
    fn of(config: &Encode) -> Result<Self, CompileError> {
        let mut names: Vec<Box<str>> = Vec::new();
        for name in &config.prefer {
            if !config.encodings.contains_key(name) {
                let message = format!("`{name}` is preferred and not among the encodings");
                return Err(CompileError::new("unknown-encoding", message).within("prefer"));
            }
            if names.iter().any(|known| **known == **name) {
                return Err(CompileError::new("duplicate-option", format!("`{name}` is named twice")).within("prefer"));
            }
            names.push(name.as_str().into());
        }
        // What is offered and not preferred comes last.
        for name in config.encodings.keys() {
            if !names.iter().any(|known| **known == **name) {
                names.push(name.as_str().into());
            }
        }
        let coding = |name: &str| {
            let options = config.encodings.get(name).unwrap_or(&Value::Null);
            Coding::of(name, options).map_err(|error| error.within(name).within("encodings"))
        };
        let codings = names.iter().map(|name| coding(name)).collect::<Result<_, _>>()?;
        let only = match &config.matcher {
            Some(matcher) => matcher.compile(),
            None => of_types(TYPES).compile(),
        };
        let only =
            only.map_err(|error| CompileError::new("invalid-header-field", error.to_string()).within("match"))?;
        let minimum = u64::try_from(config.minimum_length).unwrap_or(0);
        Ok(Self { names: names.into(), codings, minimum: if minimum == 0 { MINIMUM } else { minimum }, only })
    }

    #[cfg(test)]
    fn with_defaults() -> Self {
        Self::of(&Encode::default()).unwrap()
    }
}

impl Coding {
    fn of(name: &str, options: &Value) -> Result<Self, CompileError> {
        let options = options.clone();
        Ok(match name {
            "gzip" => {
                let Gzip { level } = read_value(&options)?;
                Self::Gzip(within(level, 1, 9, "gzip")?.unwrap_or(5))
            }
            "zstd" => {
                let Zstd { level, checksum } = read_value(&options)?;
                Self::Zstd(zstd_number(level.as_deref().unwrap_or("default"))?, checksum.unwrap_or(true))
            }
            "br" => {
                let Brotli { quality } = read_value(&options)?;
                Self::Brotli(within(quality, 0, 11, "br")?.unwrap_or(4))
            }
            _ => return Err(CompileError::new("unknown-encoding", format!("there is no encoding `{name}`"))),
        })
    }
}

/// 0 is none said.
fn within(level: Option<i64>, least: i64, most: i64, name: &str) -> Result<Option<u32>, CompileError> {
    let Some(level) = level.filter(|level| *level != 0) else { return Ok(None) };
    let level = u32::try_from(level).ok().filter(|_| (least..=most).contains(&level));
    level.map(Some).ok_or_else(|| {
        CompileError::new("unknown-level", format!("the level of `{name}` is not within {least} and {most}"))
    })
}

/// The levels of the reference implementation that come nearest to those of Caddy's.
fn zstd_number(level: &str) -> Result<i32, CompileError> {
    match level {
        "fastest" => Ok(1),
        "default" => Ok(3),
        "better" => Ok(7),
        "best" => Ok(11),
        _ => Err(CompileError::new("unknown-level", format!("zstd has no level `{level}`"))),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Gzip {
    level: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Zstd {
    level: Option<String>,
    checksum: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Brotli {
    quality: Option<i64>,
}

/// Content types that are worth it, as Caddy lists them.
const TYPES: &[&str] = &[
    "application/atom+xml*",
    "application/eot*",
    "application/font*",
    "application/geo+json*",
    "application/graphql+json*",
    "application/graphql-response+json*",
    "application/javascript*",
    "application/json*",
    "application/ld+json*",
    "application/manifest+json*",
    "application/opentype*",
    "application/otf*",
    "application/rss+xml*",
    "application/truetype*",
    "application/ttf*",
    "application/vnd.api+json*",
    "application/vnd.ms-fontobject*",
    "application/wasm*",
    "application/x-httpd-cgi*",
    "application/x-javascript*",
    "application/x-opentype*",
    "application/x-otf*",
    "application/x-perl*",
    "application/x-protobuf*",
    "application/x-ttf*",
    "application/xhtml+xml*",
    "application/xml*",
    "font/*",
    "image/svg+xml*",
    "image/vnd.microsoft.icon*",
    "image/x-icon*",
    "multipart/bag*",
    "multipart/mixed*",
    "text/*",
];

fn of_types(types: &[&str]) -> ResponseMatcher {
    let values = types.iter().map(|&value| value.to_owned()).collect();
    ResponseMatcher {
        status_code: None,
        headers: Some(std::iter::once(("Content-Type".to_owned(), Some(values))).collect()),
    }
}

impl Step for Arc<Rules> {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if !stage::forbidden(&ex.headers)
            && let Some((place, name)) = accept::accepted(&ex.headers, &self.names).first().copied()
            && let (Some(coding), Ok(value)) = (self.codings.get(place), HeaderValue::from_str(name))
        {
            stage::forget_ending(&mut ex.headers, name);
            let compression = Compression { rules: Arc::clone(self), coding: *coding, name: value };
            ex.stages.push(Stage::Async(Box::new(compression)));
        }
        Flow::Next
    }
}
