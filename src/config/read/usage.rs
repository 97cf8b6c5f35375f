//! `usage` and `price`, which stand among the global options and in sites.

use super::Line;
use crate::base::diagnostic::Diagnostic;
use crate::config::directive_cx::Parsed;
use crate::config::nanos::Nanos;
use crate::config::usage_types::{FLUSH_RANGE, RETENTION_AT_LEAST, Tag, Usage};
use crate::llm::price;
use crate::syntax::token::Token;

const OPTIONS: [&str; 7] = ["ledger", "retention", "flush", "include_usage", "route", "tag", "price"];

/// `usage [off] { … }`; `args` without a matcher.
pub fn read(line: &Line<'_>, diagnostics: &mut Vec<Diagnostic>) -> Parsed<Usage> {
    let mut out = Usage::default();
    if let Some(word) = line.none_or_one()? {
        if word.text() != "off" {
            let message = format!("`usage` takes only `off`, and not `{}`", word.shown());
            return Err(Box::new(Diagnostic::error("invalid-value", message).at(word.span, "")));
        }
        line.no_block()?;
        out.off = true;
    }
    let mut seen: Vec<&str> = Vec::new();
    line.each(diagnostics, |option, _| {
        option.no_block()?;
        let name = option.name();
        if seen.contains(&name) && !["tag", "price"].contains(&name) {
            return Err(option.duplicate());
        }
        seen.push(name);
        match name {
            "ledger" => {
                out.ledger = option.text()?;
                if out.ledger.is_empty() {
                    return Err(option.error("invalid-value", "`ledger` needs a file"));
                }
            }
            "retention" => out.retention = retention(&option)?,
            "flush" => out.flush = flush(&option)?,
            "include_usage" => out.include_usage = Some(switch(&option)?),
            "route" => out.route = option.text()?,
            "tag" => {
                let (name, value) = option.two()?;
                if !is_tag(name.text()) {
                    let message = format!("`{}` is no name of a tag", name.shown());
                    let d = Diagnostic::error("invalid-value", message).at(name.span, "");
                    return Err(Box::new(d.help("1 to 64 letters, digits, `-`, `_` and `.`")));
                }
                out.tags.push(Tag { name: name.text().to_owned(), value: value.text().to_owned() });
            }
            "price" => out.prices.push(price(&option)?),
            _ => return Err(option.unknown("usage", &OPTIONS)),
        }
        Ok(())
    });
    Ok(out)
}

/// `price MODEL in 2.5 cached 1.25 out 10`: the words behind `price`.
pub fn price(line: &Line<'_>) -> Parsed<String> {
    line.no_block()?;
    let words: Vec<&str> = line.args.iter().map(Token::text).collect();
    price::Line::parse(&words).map_err(|error| {
        let span = line.args.get(error.word).map_or(line.name.span, |token| token.span);
        let from_env = line.args.get(error.word).is_some_and(|token| token.from_env);
        let message =
            if from_env { "the value from the environment is not right here".to_owned() } else { error.message };
        let d = Diagnostic::error("invalid-price", message).at(span, "");
        Box::new(d.help("dollars for a million tokens, as in `price gpt-4o in 2.5 cached 1.25 out 10`"))
    })?;
    Ok(words.join(" "))
}

/// Also checked where the JSON is compiled.
#[must_use]
pub fn is_tag(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

fn retention(line: &Line<'_>) -> Parsed<Nanos> {
    if line.one()?.text() == "forever" {
        return Ok(Nanos(-1));
    }
    let time = Nanos(line.duration()?);
    if time.positive().is_none_or(|time| time < RETENTION_AT_LEAST) {
        return Err(line.error("invalid-duration", "calls are kept for 1h or more, or `forever`"));
    }
    Ok(time)
}

fn flush(line: &Line<'_>) -> Parsed<Nanos> {
    let time = Nanos(line.duration()?);
    let (least, most) = FLUSH_RANGE;
    if time.positive().is_none_or(|time| !(least..=most).contains(&time)) {
        return Err(line.error("invalid-duration", "calls are written every 10ms to 1h"));
    }
    Ok(time)
}

fn switch(line: &Line<'_>) -> Parsed<bool> {
    let word = line.one()?;
    match word.text() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => {
            let message = format!("`{}` is neither `on` nor `off`", word.shown());
            Err(Box::new(Diagnostic::error("invalid-value", message).at(word.span, "")))
        }
    }
}
