//! `model_alias`: names that stand for other models, so that clients need not change when a model does.
//!
//! `model_alias fast gpt-4o-mini` lets clients ask for `fast`; what goes up says `gpt-4o-mini`, and every other byte of
//! the request is as it came. The name may be a pattern (`gpt-3.5*`); several pairs stand in a block, the first that fits
//! counts. A request is renamed once: what an alias gave is not looked up again, in whatever `model_alias` that comes later.
//!
//! Names are read and replaced where the matcher `model` reads them: path, query of a realtime connection, JSON body, form.
//! The answer is not edited: its `model` is the real one. A token's rights are rights to the name that the client uses.
//! Aliases without `*` or `?` are in the lists of [`models`](#models) of the same site.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::hold::hold_body;
use crate::http::requested_model::{DEFAULT_LIMIT, ModelOf};
use crate::http::route::Handler;
use crate::llm::model_alias::Aliases;
use crate::syntax::token::Token;

pub const DIRECTIVE: Directive = Directive {
    name: "model_alias",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Lets a name stand for another model.",
        syntax: "model_alias [matcher] [<name> <model>] { <name> <model> }",
        examples: &["model_alias fast gpt-4o-mini", "model_alias {\n\tfast gpt-4o-mini\n\tgpt-3.5* gpt-4o-mini\n}"],
        rejected: &[
            ("model_alias", "wrong-argument-count"),
            ("model_alias fast", "wrong-argument-count"),
            ("model_alias {\n\tfast\n}", "wrong-argument-count"),
            ("model_alias fast gpt-*", "invalid-value"),
            ("model_alias \"\" gpt-4o", "invalid-value"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "model_alias", compile };

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    aliases: Vec<Alias>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Alias {
    from: String,
    to: String,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let mut config = Config::default();
    let mut add = |cx: &DirectiveCx<'_, '_>, from: &Token, to: &Token| {
        let alias = Alias { from: from.text().to_owned(), to: to.text().to_owned() };
        if let Err(why) = check(&alias) {
            return Err(cx.err(if alias.from.is_empty() { from.span } else { to.span }, "invalid-value", why));
        }
        config.aliases.push(alias);
        Ok(())
    };
    match cx.args {
        [from, to] => add(cx, from, to)?,
        [] if cx.node.block.is_some() => {}
        _ => return Err(cx.arg_err(cx.node)),
    }
    for line in cx.node.lines() {
        cx.no_block(line)?;
        add(cx, &line.name, cx.one(line)?)?;
    }
    if config.aliases.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn check(alias: &Alias) -> Result<(), &'static str> {
    if alias.from.is_empty() || alias.to.is_empty() {
        return Err("a model needs a name");
    }
    if alias.to.contains(['*', '?']) || alias.to.chars().any(char::is_control) {
        return Err("what an alias stands for is one model, without `*` or `?`");
    }
    Ok(())
}

fn compile(module: &Module, _: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler")?;
    for (i, alias) in config.aliases.iter().enumerate() {
        check(alias).map_err(|why| CompileError::new("invalid-value", why).within(i).within("aliases"))?;
    }
    let aliases = Aliases::new(config.aliases.iter().map(|a| (&a.from, &a.to)));
    Ok(Handler::Async(Box::new(ModelAlias(Arc::new(aliases)))))
}

struct ModelAlias(Arc<Aliases>);

impl AsyncHandler for ModelAlias {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            ex.aliases.push(Arc::clone(&self.0));
            match self.rename(ex).await {
                Ok(()) => Flow::Next,
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

impl ModelAlias {
    async fn rename(&self, ex: &mut Exchange) -> Result<(), HandlerError> {
        if ex.aliased.is_some() {
            return Ok(());
        }
        let asked = loop {
            match ex.requested_model(DEFAULT_LIMIT) {
                ModelOf::Named(model) => break model,
                ModelOf::NotTold => return Ok(()),
                ModelOf::NeedBody(limit) => hold_body(ex, limit).await?,
                ModelOf::Bad(error) => return Err(error),
            }
        };
        if let Some(model) = self.0.find(&asked)
            && ex.rename_model(model)
        {
            ex.aliased = Some(asked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::body::Body;
    use crate::http::walker::run_nested;
    use crate::modules::testing::{block_on, exchange, handlers};
    use bytes::Bytes;
    use serde_json::{Value, json};

    fn alias(from: &str, to: &str) -> Value {
        json!({"handler":"model_alias","aliases":[{"from":from,"to":to}]})
    }

    fn renamed(configs: Vec<Value>, body: &'static str) -> Exchange {
        let mut ex = exchange("POST", "/v1/chat/completions");
        ex.headers.insert("content-type", "application/json".parse().unwrap());
        ex.body = Body::stream(Body::from(body));
        assert!(matches!(block_on(run_nested(&handlers(configs), &mut ex)), Flow::Next));
        ex
    }

    fn body(ex: &Exchange) -> &Bytes {
        match &ex.body {
            Body::Full(bytes) => bytes,
            _ => panic!("not held"),
        }
    }

    #[test]
    fn the_name_is_replaced_once_and_remembered() {
        let ex = renamed(vec![alias("a", "b"), alias("b", "c")], r#"{ "model" : "a" }"#);
        assert_eq!(body(&ex), r#"{ "model" : "b" }"#);
        assert_eq!(ex.aliased.as_deref(), Some("a"));
        assert_eq!(ex.aliases.len(), 2);
        let ex = renamed(vec![alias("a", "b"), alias("b", "c")], r#"{"model":"b"}"#);
        assert_eq!(body(&ex), r#"{"model":"c"}"#);
    }

    #[test]
    fn other_requests_stay() {
        let ex = renamed(vec![alias("a", "b")], r#"{"model":"x", "a": 1.0}"#);
        assert_eq!((&**body(&ex), ex.aliased.as_deref()), (&br#"{"model":"x", "a": 1.0}"#[..], None));
    }
}
