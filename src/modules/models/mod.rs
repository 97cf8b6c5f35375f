//! `models`: answers which models there are, over all upstreams, and refuses others.
//!
//! `GET /v1/models` and `/models` list them; `/v1/models/ID` shows one. Clients of Anthropic's API (those that send
//! `anthropic-version`) get its form of list, all others OpenAI's, whatever the sources speak. Everybody sees only the
//! models that their token allows; one that they do not see is answered 404 `model_not_found`, as if it did not exist.
//! Where clients have a path in their base URL, put `models` into the `handle_path` of it.
//!
//! Each `from` is a source: directives that answer `GET /v1/models`, or upstreams as after `reverse_proxy`. A source is
//! asked without the client's headers, at most 5 seconds and 8 MiB; the first that has an id counts. One that fails is
//! logged and keeps the models it last told. The merged list is kept for `cache` (`5m` unless said otherwise, `off` asks
//! every time) and served while a new one is fetched. Without `from`, the list is what the directives after this one
//! answer, byte for byte, but for what is left out or added.
//!
//! `model` adds one of your own, which counts before a source's of the same id. `allow` and `deny` take patterns with `*` and `?`: other models are
//! neither listed nor may they be asked for, and a body that could hide one (compressed, or of a type that is not JSON) is
//! answered 415 on paths of LLM APIs. `strict` refuses every model that is not in the list before an upstream is
//! asked (without `from`, the list is that of the `model` lines); while no source has answered yet, requests pass.
//!
//! Names of `model_alias` are listed where the model they stand for is, and go by the rights to their own name.

mod answer;
mod catalogue;
mod config;
mod list;
mod source;

use std::sync::Arc;

use self::answer::{Models, Rules};
use self::catalogue::Catalogue;
use self::config::Config;
use self::list::List;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::route::Handler;
use crate::llm::model_glob::ModelGlobs;

pub const DIRECTIVE: Directive = Directive {
    name: "models",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Lists the models of all upstreams, as far as the caller may use them.",
        syntax: "models [matcher] { from [<upstreams…>] { … }  model <id> { owned_by <name>  display_name <name>  created <date> }  allow <patterns…>  deny <patterns…>  cache <duration>|off  strict }",
        examples: &[
            "models",
            "models {\n\tfrom https://api.openai.com {\n\t\theader_up Authorization \"Bearer {env.OPENAI_API_KEY}\"\n\t}\n\tfrom 127.0.0.1:11434\n\tdeny *-preview\n\tcache 10m\n\tstrict\n}",
            "models {\n\tfrom {\n\t\trewrite /openai/v1/models\n\t\treverse_proxy https://api.example.com\n\t}\n\tmodel my-model {\n\t\towned_by me\n\t\tcreated 2026-01-01\n\t}\n}",
        ],
        rejected: &[
            ("models x", "wrong-argument-count"),
            ("models {\n\tfrom\n}", "wrong-argument-count"),
            ("models {\n\tallow\n}", "wrong-argument-count"),
            ("models {\n\tcache soon\n}", "invalid-duration"),
            ("models {\n\tmodel a {\n\t\tcreated yesterday\n\t}\n}", "invalid-value"),
            ("models {\n\tmodel a\n\tmodel a\n}", "duplicate-option"),
            ("models {\n\tstrict\n}", "missing-option"),
            ("models {\n\tfrm 127.0.0.1:1\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "models", compile };

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let config = config::parse(cx)?;
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    config.check()?;
    let source = |cx: &mut CompileCx<'_>, i, from: &config::Source| {
        cx.at("from", |cx| cx.at(i, |cx| cx.at("routes", |cx| cx.compile_routes(&from.routes))))
    };
    let sources: Vec<_> = config.from.iter().enumerate().map(|(i, from)| source(cx, i, from)).collect();
    let own = List::of(config.entries()?);
    let has_list = config.strict || !sources.is_empty();
    Ok(Handler::Async(Box::new(Models::new(Rules {
        catalogue: has_list.then(|| Arc::new(Catalogue::new(sources, own.clone(), config.cache()))),
        own,
        allow: (!config.allow.is_empty()).then(|| ModelGlobs::new(&config.allow)),
        deny: ModelGlobs::new(&config.deny),
        strict: config.strict,
    }))))
}

#[cfg(test)]
mod tests;
