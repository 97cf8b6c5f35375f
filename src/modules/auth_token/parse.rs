//! The words of `auth_token` into its JSON form.

use super::token::{self, Written};
use super::{AuthToken, HANDLER, header_name};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;
use crate::config::compile_cx::CompileError;
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::types;
use crate::http::placeholder::{Key, Template};
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: &[&str] = &["token", "file", "header"];
const SETTINGS: &[&str] = &["models", "paths", "ips", "expires", "team", "app", "tag"];

pub fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    // Wherever a message shows these lines, now or when compiling, the tokens on them are not to be seen.
    let secrets: Vec<Span> = secrets(cx).collect();
    cx.file.secrets.extend(&secrets);
    let config = read(cx).map_err(|d| Box::new(secrets.iter().fold(*d, |d, span| d.secret(*span))))?;
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn secrets(cx: &DirectiveCx<'_, '_>) -> impl Iterator<Item = Span> {
    let values = cx.node.lines().flat_map(|line| match line.name() {
        // Of `token VALUE` it is the name that was forgotten.
        "token" => &line.args[usize::from(line.args.len() > 1)..],
        "file" | "header" => &[],
        _ => &line.args[..],
    });
    cx.args.iter().chain(values).map(|token| token.span)
}

fn read(cx: &mut DirectiveCx<'_, '_>) -> Parsed<AuthToken> {
    let mut config = AuthToken::default();
    for token in cx.args {
        check_value(cx, token)?;
        config.tokens.push(token.text().to_owned());
    }
    let mut names: Vec<&Token> = Vec::new();
    for line in cx.node.lines() {
        match line.name() {
            "token" => {
                let [name, value] = line.args.as_slice() else {
                    return Err(cx.arg_err(line));
                };
                // What is no name may be the token.
                checked(cx, name, token::check_name(name.text())).map_err(|d| Box::new(d.secret(name.span)))?;
                if let Some(first) = names.iter().find(|first| first.text() == name.text()) {
                    let message = format!("there are two tokens named `{}`", name.shown());
                    let d =
                        Diagnostic::error("duplicate-token", message).at(name.span, "").also(first.span, "the first");
                    return Err(Box::new(d));
                }
                names.push(name);
                check_value(cx, value)?;
                let (name, value) = (name.text().to_owned(), value.text().to_owned());
                config.named.push(settings(cx, line, Written { name, value, ..Written::default() })?);
            }
            "file" => {
                cx.no_block(line)?;
                config.files.push(cx.one(line)?.text().to_owned());
            }
            "header" => {
                cx.no_block(line)?;
                let name = cx.one(line)?;
                checked(cx, name, header_name(name.text()))?;
                config.headers.push(name.text().to_owned());
            }
            _ => return Err(cx.unknown(line, OPTIONS)),
        }
    }
    if config.tokens.is_empty() && config.named.is_empty() && config.files.is_empty() {
        return Err(Box::new(cx.err(cx.node.span(), "empty-token", "`auth_token` has no token").help(EMPTY_HELP)));
    }
    Ok(config)
}

fn settings(cx: &DirectiveCx<'_, '_>, token: &Node, mut written: Written) -> Parsed<Written> {
    let words = |line: &Node| line.args.iter().map(|a| a.text().to_owned()).collect::<Vec<_>>();
    for line in token.lines() {
        cx.no_block(line)?;
        let name = line.name();
        if !SETTINGS.contains(&name) {
            return Err(unknown_setting(line));
        }
        if line.args.is_empty() {
            return Err(cx.arg_err(line));
        }
        match name {
            "models" => written.models.get_or_insert_default().extend(words(line)),
            "paths" => {
                for path in &line.args {
                    checked(cx, path, token::read_path(path.text()))?;
                }
                written.paths.get_or_insert_default().extend(words(line));
            }
            "ips" => {
                for range in &line.args {
                    checked(cx, range, token::read_ranges(&[range.text().to_owned()]))?;
                }
                written.ips.get_or_insert_default().extend(words(line));
            }
            "tag" => {
                let [key, value] = line.args.as_slice() else {
                    return Err(cx.arg_err(line));
                };
                checked(cx, key, token::check_tag(key.text()))?;
                checked(cx, value, token::check_text(value.text()))?;
                if written.tags.insert(key.text().to_owned(), value.text().to_owned()).is_some() {
                    return Err(cx.duplicate(line));
                }
            }
            _ => {
                let word = cx.one(line)?;
                let place = match name {
                    "expires" => {
                        checked(cx, word, token::read_expiry(word.text()))?;
                        &mut written.expires
                    }
                    "team" => &mut written.team,
                    _ => &mut written.app,
                };
                checked(cx, word, token::check_text(word.text()))?;
                if place.replace(word.text().to_owned()).is_some() {
                    return Err(cx.duplicate(line));
                }
            }
        }
    }
    Ok(written)
}

fn unknown_setting(line: &Node) -> Box<Diagnostic> {
    let message = format!("a token has no setting `{}`", line.name.shown());
    let d = Diagnostic::error("unknown-subdirective", message).at(line.name.span, "");
    // It may be the token that was put there.
    let d = line.args.iter().fold(d, |d, word| d.secret(word.span));
    Box::new(match crate::base::diagnostic::nearest(line.name(), SETTINGS.iter().copied()) {
        Some(near) => d.help(format!("did you mean `{near}`?")).replace(line.name.span, near),
        None => d.help(format!("a token may have {}", SETTINGS.join(", "))),
    })
}

const EMPTY: &str = "`auth_token` with an empty token would let everybody in or nobody";
const EMPTY_HELP: &str = "is the environment variable set where llmproxy runs?";

/// A value is settled when the file is loaded.
fn check_value(cx: &DirectiveCx<'_, '_>, token: &Token) -> Parsed<()> {
    let template = Template::parse(token.text());
    match template.as_static() {
        Some(text) if text.trim().is_empty() => {
            Err(Box::new(cx.err(token.span, "empty-token", EMPTY).help(EMPTY_HELP)))
        }
        Some(text) => checked(cx, token, token::read_value(text)).map(drop),
        // A file's text is read when the configuration is compiled. What else is not settled by now would come from
        // the request itself.
        None if matches!(template.as_key(), Some(Key::File(_))) => Ok(()),
        None => {
            let d = cx.err(token.span, "token-not-fixed", "a token cannot be made from the request");
            Err(Box::new(d.help("use a text, a hash, `{$VAR}`, `{env.VAR}` or `{file./path}`")))
        }
    }
}

/// A mistake that compiling would find too, told at its word.
fn checked<T>(cx: &DirectiveCx<'_, '_>, word: &Token, result: Result<T, CompileError>) -> Parsed<T> {
    result.map_err(|error| {
        let message = if word.from_env { "the value from the environment is not usable here" } else { &error.message };
        let mut d = cx.err(word.span, error.code, message);
        d.help = error.help;
        d
    })
}
