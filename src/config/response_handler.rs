//! Responses to responses: named response matchers, `handle_response` and `replace_status`, as `reverse_proxy` and
//! `intercept` have them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::compile_cx::{CompileCx, CompileError};
use super::directive_cx::{DirectiveCx, Parsed};
use super::types::Route;
use super::weak_string::WeakString;
use crate::base::diagnostic::Diagnostic;
use crate::http::response_handler;
use crate::http::response_matcher::ResponseMatcher;
use crate::http::status::StatusSource;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// What to do with a response that matches: another status, or routes instead of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseHandler {
    /// Absent = every response.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matcher: Option<ResponseMatcher>,
    #[serde(skip_serializing_if = "WeakString::is_empty")]
    pub status_code: WeakString,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// Gathers the lines `@name …`, `replace_status …` and `handle_response … { }` of one directive.
#[derive(Default)]
pub struct Responses<'n> {
    matchers: BTreeMap<String, ResponseMatcher>,
    handlers: Vec<ResponseHandler>,
    /// Read last: they may use matchers that are defined after them.
    later: Vec<&'n Node>,
}

impl<'n> Responses<'n> {
    /// Takes the line if it is one of these; `None` leaves it to the directive.
    pub fn line(&mut self, cx: &mut DirectiveCx<'_, '_>, node: &'n Node) -> Option<Parsed<()>> {
        match node.name() {
            name if name.starts_with('@') => Some(self.define(cx, node)),
            "handle_response" => {
                self.later.push(node);
                Some(Ok(()))
            }
            "replace_status" => Some(self.replace_status(cx, node)),
            _ => None,
        }
    }

    /// Reads the routes and puts all handlers behind what `out` holds, those without a matcher last.
    pub fn finish(mut self, cx: &mut DirectiveCx<'_, '_>, out: &mut Vec<ResponseHandler>) -> Parsed<()> {
        for node in std::mem::take(&mut self.later) {
            let matcher = match node.args.as_slice() {
                [] => None,
                [name] => Some(self.named(cx, name)?),
                _ => return Err(cx.arg_err(node)),
            };
            let nodes = node.block.as_ref().map_or(&[][..], |b| &b.nodes);
            let routes = cx.subroute(nodes, true)?.routes;
            self.handlers.push(ResponseHandler { matcher, status_code: WeakString::default(), routes });
        }
        out.append(&mut self.handlers);
        // Stable: among those with a matcher, and among those without, the order of the text stays.
        out.sort_by_key(|h| h.matcher.is_none());
        Ok(())
    }

    fn define(&mut self, cx: &DirectiveCx<'_, '_>, node: &Node) -> Parsed<()> {
        if self.matchers.contains_key(node.name()) {
            return Err(cx.err(
                node.name.span,
                "duplicate-matcher",
                format!("response matcher `{}` is defined twice", node.name.shown()),
            ));
        }
        let matcher = ResponseMatcher::parse(node)?;
        self.matchers.insert(node.name().to_owned(), matcher);
        Ok(())
    }

    fn replace_status(&mut self, cx: &DirectiveCx<'_, '_>, node: &Node) -> Parsed<()> {
        let (matcher, status) = match node.args.as_slice() {
            [status] => (None, status),
            [name, status] => (Some(self.named(cx, name)?), status),
            _ => return Err(cx.arg_err(node)),
        };
        cx.no_block(node)?;
        self.handlers.push(ResponseHandler { matcher, status_code: status.text().into(), routes: Vec::new() });
        Ok(())
    }

    fn named(&self, cx: &DirectiveCx<'_, '_>, name: &Token) -> Parsed<ResponseMatcher> {
        if !name.text().starts_with('@') {
            return Err(cx.err(name.span, "undefined-matcher", "a response matcher is named with `@` in front"));
        }
        self.matchers.get(name.text()).cloned().ok_or_else(|| {
            let mut d =
                Diagnostic::error("undefined-matcher", format!("response matcher `{}` is not defined", name.shown()))
                    .at(name.span, "used here");
            if let Some(near) = crate::base::diagnostic::nearest(name.text(), self.matchers.keys().map(String::as_str))
            {
                d = d.help(format!("did you mean `{near}`?")).replace(name.span, near);
            }
            Box::new(d)
        })
    }
}

/// The runtime form, in order. Errors inside routes are reported on `cx`.
pub fn compile(
    handlers: &[ResponseHandler],
    cx: &mut CompileCx<'_>,
) -> Result<Box<[response_handler::ResponseHandler]>, CompileError> {
    let mut out = Vec::with_capacity(handlers.len());
    for (i, handler) in handlers.iter().enumerate() {
        let at = |field: &str, why: &str| {
            CompileError::new("invalid-value", why.to_owned()).within(field).within(i).within("handle_response")
        };
        let matcher = match &handler.matcher {
            Some(matcher) => Some(matcher.compile().map_err(|why| at("match", &why.to_string()))?),
            None => None,
        };
        let status = StatusSource::parse(handler.status_code.as_str()).map_err(|why| at("status_code", why))?;
        let routes =
            cx.at("handle_response", |cx| cx.at(i, |cx| cx.at("routes", |cx| cx.compile_routes(&handler.routes))));
        out.push(response_handler::ResponseHandler { matcher, status, routes });
    }
    Ok(out.into_boxed_slice())
}
