//! `file_server`: serves files from the `root`. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module, is_false, is_zero};
use crate::config::weak_string::WeakString;
use crate::http::path;
use crate::http::route::Handler;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "file_server",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Serves files.",
        syntax: "file_server [matcher] [browse] { fs <name>  root <path>  hide <files…>  index <files…>  browse [<template>] { … }  precompressed [<formats…>]  status <status>  disable_canonical_uris  pass_thru  etag_file_extensions <extensions…> }",
        examples: &[
            "file_server",
            "file_server /static/* browse",
            "file_server {\n\troot /srv\n\thide .git\n\tindex home.html\n\tprecompressed zstd gzip\n}",
        ],
        rejected: &[
            ("file_server browser", "wrong-argument-count"),
            ("file_server {\n\thide\n}", "wrong-argument-count"),
            ("file_server {\n\tprecompressed lzma\n}", "unknown-encoding"),
            ("file_server {\n\thidden .git\n}", "unknown-subdirective"),
            ("file_server browse {\n\tbrowse\n}", "duplicate-option"),
        ],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "file_server", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileServer {
    #[serde(skip_serializing_if = "String::is_empty")]
    fs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hide: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    index_names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    browse: Option<Browse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canonical_uris: Option<bool>,
    #[serde(skip_serializing_if = "WeakString::is_empty")]
    status_code: WeakString,
    #[serde(skip_serializing_if = "is_false")]
    pass_thru: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    precompressed: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    precompressed_order: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    etag_file_extensions: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Browse {
    #[serde(skip_serializing_if = "String::is_empty")]
    template_file: String,
    #[serde(skip_serializing_if = "is_false")]
    reveal_symlinks: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sort: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    file_limit: i64,
}

const OPTIONS: [&str; 10] = [
    "fs",
    "root",
    "hide",
    "index",
    "browse",
    "precompressed",
    "status",
    "disable_canonical_uris",
    "pass_thru",
    "etag_file_extensions",
];
const FORMATS: [&str; 3] = ["br", "zstd", "gzip"];
const SORT_OPTIONS: [&str; 6] = ["name", "namedirfirst", "size", "time", "asc", "desc"];

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = FileServer::default();
    match cx.args {
        [] => {}
        [browse] if browse.text() == "browse" => out.browse = Some(Browse::default()),
        _ => return Err(cx.arg_err(cx.node)),
    }
    for line in cx.node.lines() {
        option(cx, &mut out, line)?;
    }
    hide_configuration(cx, &mut out.hide);
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn option(cx: &DirectiveCx<'_, '_>, out: &mut FileServer, line: &Node) -> Parsed<()> {
    match line.name() {
        "fs" if !out.fs.is_empty() => return Err(cx.duplicate(line)),
        "fs" => cx.one(line)?.text().clone_into(&mut out.fs),
        "root" => cx.one(line)?.text().clone_into(&mut out.root),
        "hide" => out.hide.extend(some(cx, line)?),
        "index" => out.index_names = some(cx, line)?,
        "browse" if out.browse.is_some() => return Err(cx.duplicate(line)),
        "browse" => out.browse = Some(browse(cx, line)?),
        "precompressed" => {
            out.precompressed_order = words(line);
            if line.args.is_empty() {
                out.precompressed_order = FORMATS.map(str::to_owned).to_vec();
            }
            if let Some(unknown) = line.args.iter().find(|t| !FORMATS.contains(&t.text())) {
                let d = cx.err(unknown.span, "unknown-encoding", format!("there is no format `{}`", unknown.shown()));
                return Err(Box::new(d.help(format!("one of {}", FORMATS.join(", ")))));
            }
            out.precompressed.extend(out.precompressed_order.iter().map(|f| (f.clone(), json!({}))));
        }
        "status" => out.status_code = cx.one(line)?.text().into(),
        "disable_canonical_uris" => {
            none(cx, line)?;
            out.canonical_uris = Some(false);
        }
        "pass_thru" => {
            none(cx, line)?;
            out.pass_thru = true;
        }
        "etag_file_extensions" => out.etag_file_extensions = some(cx, line)?,
        _ => return Err(cx.unknown(line, &OPTIONS)),
    }
    Ok(())
}

fn browse(cx: &DirectiveCx<'_, '_>, node: &Node) -> Parsed<Browse> {
    let mut out = Browse::default();
    match node.args.as_slice() {
        [] => {}
        [template] => template.text().clone_into(&mut out.template_file),
        _ => return Err(cx.arg_err(node)),
    }
    for line in node.lines() {
        match line.name() {
            "reveal_symlinks" if out.reveal_symlinks => return Err(cx.duplicate(line)),
            "reveal_symlinks" => out.reveal_symlinks = true,
            "sort" => {
                if let Some(unknown) = line.args.iter().find(|t| !SORT_OPTIONS.contains(&t.text())) {
                    let message = format!("`{}` is no way to sort", unknown.shown());
                    let d = cx.err(unknown.span, "unknown-sort-option", message);
                    return Err(Box::new(d.help(format!("one of {}", SORT_OPTIONS.join(", ")))));
                }
                out.sort.extend(words(line));
            }
            "file_limit" if out.file_limit != 0 => return Err(cx.duplicate(line)),
            "file_limit" => {
                let limit = cx.one(line)?;
                out.file_limit = limit
                    .text()
                    .parse()
                    .map_err(|_| cx.err(limit.span, "invalid-number", "`file_limit` is a whole number"))?;
            }
            _ => return Err(cx.unknown(line, &["reveal_symlinks", "sort", "file_limit"])),
        }
    }
    Ok(out)
}

/// The files of the configuration itself are never served.
fn hide_configuration(cx: &DirectiveCx<'_, '_>, hide: &mut Vec<String>) {
    for file in cx.site_files {
        let file = path::clean(file);
        if !hide.iter().any(|h| *h == *file) {
            // A name without a slash would hide every file of that name.
            hide.push(if file.contains('/') { file.into_owned() } else { format!("./{file}") });
        }
    }
}

fn words(line: &Node) -> Vec<String> {
    line.args.iter().map(|t| t.text().to_owned()).collect()
}

fn some(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Vec<String>> {
    if line.args.is_empty() { Err(cx.arg_err(line)) } else { Ok(words(line)) }
}

fn none(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<()> {
    if line.args.is_empty() { Ok(()) } else { Err(cx.arg_err(line)) }
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<FileServer>(module, "handler")?;
    Err(CompileError::not_supported("`file_server`"))
}
