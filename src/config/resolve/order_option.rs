//! The global option `order`: gives a directive another place in the running order.

use crate::base::diagnostic::{Diagnostic, nearest};
use crate::config::directive_cx::{FileCx, Parsed};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// `order <directive> first|last|before <other>|after <other>`; changes the order at once.
pub fn apply(node: &Node, cx: &mut FileCx<'_>) -> Parsed<()> {
    let (name, position, other) = match node.args.as_slice() {
        [name, position] => (name, position, None),
        [name, position, other] => (name, position, Some(other)),
        _ => return Err(wrong_count(node)),
    };
    if cx.registry.directive(name.text()).is_none() {
        return Err(unknown_directive(name, cx));
    }
    let places = cx.order.iter().filter(|known| *known != name.text());
    let mut order: Vec<String> = places.cloned().collect();
    let at = match (position.text(), other) {
        ("first", None) => 0,
        ("last", None) => order.len(),
        ("before" | "after", Some(other)) => {
            let found = order.iter().position(|known| known == other.text());
            let index = found.ok_or_else(|| not_ordered(other, &order))?;
            if position.text() == "after" { index + 1 } else { index }
        }
        ("first" | "last" | "before" | "after", _) => return Err(wrong_count(node)),
        _ => {
            let message = format!("`{}` is not a position", position.shown());
            return Err(Box::new(
                Diagnostic::error("invalid-value", message)
                    .at(position.span, "")
                    .help("a position is one of: first, last, before, after"),
            ));
        }
    };
    order.insert(at, name.text().to_owned());
    cx.order = order;
    Ok(())
}

fn wrong_count(node: &Node) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("wrong-argument-count", "wrong number of arguments for `order`")
            .at(node.span(), "")
            .help("shape: order <directive> first|last|before <directive>|after <directive>"),
    )
}

fn unknown_directive(name: &Token, cx: &FileCx<'_>) -> Box<Diagnostic> {
    let mut d =
        Diagnostic::error("unknown-directive", format!("there is no directive `{}`", name.shown())).at(name.span, "");
    if let Some(near) = nearest(name.text(), cx.registry.directives.iter().map(|known| known.name)) {
        d = d.help(format!("did you mean `{near}`?")).replace(name.span, near);
    }
    Box::new(d)
}

fn not_ordered(name: &Token, order: &[String]) -> Box<Diagnostic> {
    let message = format!("`{}` has no place in the order itself", name.shown());
    let mut d = Diagnostic::error("unordered-directive", message).at(name.span, "");
    if let Some(near) = nearest(name.text(), order.iter().map(String::as_str)) {
        d = d.help(format!("did you mean `{near}`?")).replace(name.span, near);
    }
    Box::new(d)
}
