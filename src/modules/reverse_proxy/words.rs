//! Reads the values of option lines, with a diagnostic under the wrong word.

use crate::base::diagnostic::Diagnostic;
use crate::base::units;
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::nanos::Nanos;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

/// A word that is not what the option wants; `wanted` says what it wants.
pub fn invalid(token: &Token, wanted: &str) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error("invalid-value", format!("`{}` is not {wanted}", token.shown()))
            .at(token.span, "")
            .help(format!("write {wanted}")),
    )
}

/// A module that Caddy without plugins, and so this program, does not have.
pub fn unknown_module(token: &Token, kind: &str, known: &[&str]) -> Box<Diagnostic> {
    let mut d =
        Diagnostic::error("unknown-module", format!("there is no {kind} `{}`", token.shown())).at(token.span, "");
    d = match crate::base::diagnostic::nearest(token.text(), known.iter().copied()) {
        Some(near) => d.help(format!("did you mean `{near}`?")).replace(token.span, near),
        None => d.help(format!("known: {}", known.join(", "))),
    };
    Box::new(d)
}

pub fn duration(token: &Token) -> Parsed<Nanos> {
    units::parse_duration(token.text()).map(Nanos).ok_or_else(|| invalid(token, "a duration such as `30s` or `1h30m`"))
}

/// A duration, or a bare count of nanoseconds (`flush_interval -1`).
pub fn duration_or_number(token: &Token) -> Parsed<Nanos> {
    match token.text().parse::<i64>() {
        Ok(n) => Ok(Nanos(n)),
        Err(_) => duration(token),
    }
}

pub fn integer(token: &Token) -> Parsed<i64> {
    token.text().parse().map_err(|_| invalid(token, "a whole number"))
}

pub fn size(token: &Token) -> Parsed<i64> {
    units::parse_size(token.text())
        .and_then(|n| i64::try_from(n).ok())
        .ok_or_else(|| invalid(token, "a size such as `4KiB` or `10MB`"))
}

/// A size, or `unlimited` as -1.
pub fn size_or_unlimited(token: &Token) -> Parsed<i64> {
    if token.text() == "unlimited" { Ok(-1) } else { size(token) }
}

/// A status code, or a class such as `5xx` as its first digit.
pub fn status(token: &Token) -> Parsed<u16> {
    let text = token.text();
    let digits = if text.len() == 3 && text.ends_with("xx") { &text[..1] } else { text };
    digits.parse().map_err(|_| invalid(token, "a status such as `503` or `5xx`"))
}

pub fn texts(tokens: &[Token]) -> Vec<String> {
    tokens.iter().map(|t| t.text().to_owned()).collect()
}

impl DirectiveCx<'_, '_> {
    /// The one argument of an option line without a block.
    pub(super) fn value<'n>(&self, node: &'n Node) -> Parsed<&'n Token> {
        self.no_block(node)?;
        self.one(node)
    }

    /// At least one argument and no block.
    pub(super) fn values<'n>(&self, node: &'n Node) -> Parsed<&'n [Token]> {
        self.no_block(node)?;
        if node.args.is_empty() { Err(self.arg_err(node)) } else { Ok(&node.args) }
    }

    /// An option line that is its name alone.
    pub(super) fn flag(&self, node: &Node) -> Parsed<bool> {
        self.no_block(node)?;
        if node.args.is_empty() { Ok(true) } else { Err(self.arg_err(node)) }
    }
}

/// Reads every line, so that all wrong ones are reported; fails with the first message when one was wrong.
pub fn each_line<'n>(
    cx: &mut DirectiveCx<'_, '_>,
    nodes: impl Iterator<Item = &'n Node>,
    mut read: impl FnMut(&mut DirectiveCx<'_, '_>, &'n Node) -> Parsed<()>,
) -> Parsed<()> {
    let mut first: Option<Box<Diagnostic>> = None;
    for node in nodes {
        if let Err(d) = read(cx, node) {
            match first {
                None => first = Some(d),
                Some(_) => cx.file.diagnostics.push(*d),
            }
        }
    }
    first.map_or(Ok(()), Err)
}
