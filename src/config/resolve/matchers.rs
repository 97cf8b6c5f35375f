//! Named matcher definitions: `@name { … }`, `@name kind args…` and `@name "CEL"`.

use std::collections::BTreeMap;

use super::lines::Scope;
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::{DirectiveCx, FileCx, Parsed};
use crate::config::registry::{Directive, Doc};
use crate::config::types::MatcherSet;
use crate::syntax::token::{Quote, Token};
use crate::syntax::tree::Node;

#[must_use]
pub fn is_definition(node: &Node) -> bool {
    node.name().starts_with('@')
}

/// Adds the definitions among `nodes` to those of the scope. All wrong ones are reported; a wrong definition still
/// defines its name, so that its uses are not reported too.
pub fn define(
    nodes: &[Node],
    outer: &BTreeMap<String, MatcherSet>,
    file: &mut FileCx<'_>,
    scope: &Scope<'_>,
) -> BTreeMap<String, MatcherSet> {
    let mut matchers = outer.clone();
    for node in nodes.iter().filter(|node| is_definition(node)) {
        if matchers.contains_key(node.name()) {
            file.diagnostics.push(
                Diagnostic::error(
                    "duplicate-matcher",
                    format!("matcher `{}` is defined more than once", node.name.shown()),
                )
                .at(node.name.span, "defined again here")
                .help("give it another name, or put both conditions in one definition"),
            );
            continue;
        }
        let set = match read(node, &matchers, file, scope) {
            Ok(set) => set,
            Err(diagnostic) => {
                file.diagnostics.push(*diagnostic);
                MatcherSet::new()
            }
        };
        matchers.insert(node.name().to_owned(), set);
    }
    matchers
}

fn read(
    node: &Node,
    matchers: &BTreeMap<String, MatcherSet>,
    file: &mut FileCx<'_>,
    scope: &Scope<'_>,
) -> Parsed<MatcherSet> {
    let mut cx = DirectiveCx {
        file,
        directive: &DEFINITION,
        node,
        args: &node.args,
        matcher: None,
        has_matcher_token: false,
        matchers,
        parent: scope.parent,
        matcher_name: &node.name()[1..],
        site_keys: scope.site_keys,
        site_files: scope.site_files,
    };
    match node.args.split_first() {
        // `@name "expression"`: a quoted word is not a kind.
        Some((quoted, rest)) if quoted.quoted() => {
            if let Some(extra) = rest.first() {
                return Err(cx.err(
                    extra.span,
                    "wrong-argument-count",
                    "a matcher given as a quoted expression takes nothing after it",
                ));
            }
            let name = Token { text: "expression".into(), quote: Quote::None, ..quoted.clone() };
            let line = Node { name, args: vec![quoted.clone()], block: node.block.clone() };
            cx.matcher_set(std::slice::from_ref(&line))
        }
        Some((kind, args)) => {
            let line = Node { name: kind.clone(), args: args.to_vec(), block: node.block.clone() };
            cx.matcher_set(std::slice::from_ref(&line))
        }
        None => cx.matcher_set(node.block.as_ref().map_or(&[], |block| &block.nodes)),
    }
}

/// Stands for the directive while a definition is read.
static DEFINITION: Directive = Directive {
    name: "@name",
    renamed_to: None,
    ordered: false,
    matcher: false,
    parse: |_| Ok(Vec::new()),
    doc: &Doc {
        summary: "a named matcher",
        syntax: "@name kind args… | @name { kind args… } | @name \"expression\"",
        examples: &[],
        rejected: &[],
        adapt_only: false,
    },
};
