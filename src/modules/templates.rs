//! `templates`: runs responses as Go templates. Read and adapted as Caddy does; not run by this version.

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::route::Handler;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "templates",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Runs responses as templates.",
        syntax: "templates [matcher] { mime <types…>  between <open> <close>  root <path> }",
        examples: &["templates", "templates {\n\tmime text/html\n\tbetween [[ ]]\n\troot /srv\n}"],
        rejected: &[
            ("templates {\n\tmime\n}", "wrong-argument-count"),
            ("templates {\n\tbetween [[\n}", "wrong-argument-count"),
            ("templates {\n\textensions {\n\t\tfoo\n\t}\n}", "unknown-subdirective"),
        ],
        adapt_only: true,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "templates", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Templates {
    #[serde(skip_serializing_if = "String::is_empty")]
    file_root: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mime_types: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    delimiters: Vec<String>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut out = Templates::default();
    if let Some(extra) = cx.args.first() {
        cx.warn_ignored(extra.span);
    }
    let words = |line: &Node| -> Vec<String> { line.args.iter().map(|t| t.text().to_owned()).collect() };
    for line in cx.node.lines() {
        match line.name() {
            "mime" if line.args.is_empty() => return Err(cx.arg_err(line)),
            "mime" => out.mime_types = words(line),
            "between" if line.args.len() != 2 => return Err(cx.arg_err(line)),
            "between" => out.delimiters = words(line),
            "root" => match line.args.first() {
                None => return Err(cx.arg_err(line)),
                Some(root) => root.text().clone_into(&mut out.file_root),
            },
            // Extensions are plugins of Caddy's, of which there is none here.
            "extensions" => {
                if let Some(extension) = line.lines().next() {
                    return Err(cx.unknown(extension, &[]));
                }
            }
            // Caddy passes over unknown lines here.
            _ => cx.warn_ignored(line.span()),
        }
    }
    Ok(cx.route(types::handler(HANDLER.id, &out)))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    read::<Templates>(module, "handler")?;
    Err(CompileError::not_supported("`templates`"))
}
