//! The directive's words.

use serde_json::{Value, json};

use super::config::{CompatConfig, ModelConfig, MountConfig, SecretConfig};
use super::{HANDLER, MOUNT_BEFORE, MOUNT_HANDLER, check_version, secret};
use crate::base::diagnostic::{Diagnostic, nearest};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::types::{self, MatcherSet};
use crate::http::placeholder::{Key, Template};
use crate::llm::model_table::Capabilities;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

const OPTIONS: [&str; 4] = ["secret", "version", "model", "expose"];
const FACTS: [&str; 8] =
    ["context", "output", "capabilities", "family", "parameters", "quantization", "embedding_length", "name"];

pub fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let (matcher, path) = arguments(cx)?;
    let mut mount = MountConfig { path, ..MountConfig::default() };
    let mut out = CompatConfig::default();
    let mut secrets: Vec<&Token> = Vec::new();
    for line in cx.node.lines() {
        match line.name() {
            "secret" => {
                mount.secrets.push(read_secret(cx, line, &secrets)?);
                secrets.extend(line.args.get(1));
            }
            "version" if !out.version.is_empty() => return Err(cx.duplicate(line)),
            "version" => out.version = version(cx, line)?,
            "model" => out.models.push(model(cx, line)?),
            "expose" if line.args.is_empty() => return Err(cx.arg_err(line)),
            "expose" => {
                cx.no_block(line)?;
                out.expose.extend(line.args.iter().map(|a| a.text().to_owned()));
            }
            _ => return Err(cx.unknown(line, &OPTIONS)),
        }
    }
    if mount.path.is_empty() && mount.secrets.is_empty() {
        let handler = types::handler(HANDLER.id, &out);
        return Ok(cx.route_with(matcher, handler));
    }
    mount.mount = next_mount(cx);
    out.mount = Some(mount.mount);
    let route = |matcher: Option<MatcherSet>, handler| types::Route {
        matcher_sets: matcher.into_iter().collect(),
        handlers: vec![handler],
        ..types::Route::default()
    };
    Ok(vec![
        ConfigValue::RouteBefore(MOUNT_BEFORE, route(matcher, types::handler(MOUNT_HANDLER.id, &mount))),
        // The mount has looked at the matcher, while the request was as the client sent it.
        ConfigValue::Route(route(None, types::handler(HANDLER.id, &out))),
    ])
}

/// A matcher (`*` or `@name`; a path here is where the API is mounted) and the mount's path.
fn arguments(cx: &DirectiveCx<'_, '_>) -> Parsed<(Option<MatcherSet>, String)> {
    let is_matcher = |t: &&Token| t.text() == "*" || t.text().starts_with('@');
    let (matcher, rest) = match cx.args.split_first() {
        Some((first, rest)) if is_matcher(&first) => (cx.matcher_token(first).transpose()?.flatten(), rest),
        _ => (None, cx.args),
    };
    let path = match rest {
        [] => String::new(),
        [path] => mount_path(cx, path)?,
        _ => return Err(cx.arg_err(cx.node)),
    };
    Ok((matcher, path))
}

fn mount_path(cx: &DirectiveCx<'_, '_>, token: &Token) -> Parsed<String> {
    let path = token.text().trim_end_matches('/');
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(is_path_byte);
    if path.is_empty() && !token.text().is_empty() {
        return Ok(String::new());
    }
    if path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
        return Ok(path.to_owned());
    }
    let d =
        cx.err(token.span, "invalid-mount-path", format!("`{}` is not a path to mount an API under", token.shown()));
    let text = path.trim_end_matches('*').trim_end_matches('/');
    if token.text().ends_with('*') && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment)) {
        let help =
            "everything below the path is meant anyway; to bound the directive to some requests, use a named matcher";
        return Err(Box::new(d.help(help).replace(token.span, text)));
    }
    Err(Box::new(d.help("write it like `/ollama`, with letters, digits and `-._~` in each part")))
}

fn is_path_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// A number of its own for each directive of the file.
fn next_mount(cx: &mut DirectiveCx<'_, '_>) -> u32 {
    let count = cx.file.state.entry(MOUNT_HANDLER.id).or_insert(json!(0));
    let number = count.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    *count = Value::from(number + 1);
    number
}

fn read_secret(cx: &mut DirectiveCx<'_, '_>, line: &Node, before: &[&Token]) -> Parsed<SecretConfig> {
    let masked = |d: Box<Diagnostic>| -> Box<Diagnostic> {
        Box::new(line.args.iter().skip(1).fold(*d, |d, token| d.secret(token.span)))
    };
    let (name, path) = match line.args.as_slice() {
        [name, path] => (name, path),
        [_] => {
            let d = cx.err(line.span(), "invalid-secret-path", "a secret path is empty, which would let everybody in");
            return Err(Box::new(d.help("is the environment variable set where llmproxy runs?")));
        }
        _ => return Err(masked(cx.arg_err(line))),
    };
    cx.no_block(line).map_err(masked)?;
    if name.text().trim().is_empty() {
        return Err(masked(cx.err(
            name.span,
            "invalid-value",
            "a secret path needs the name of the token it stands for",
        )));
    }
    let template = Template::parse(path.text());
    match (template.as_static(), template.as_key()) {
        (Some(text), _) => {
            let segment = secret::segment(text);
            if let Err(why) = secret::check(segment) {
                return Err(masked(Box::new(cx.err(path.span, "invalid-secret-path", why).help(secret::HELP))));
            }
            if let Some(same) = before.iter().find(|other| secret::segment(other.text()) == segment) {
                let d = cx.err(path.span, "duplicate-secret", "two secret paths are the same");
                return Err(masked(Box::new(d.also(same.span, "here too").secret(same.span))));
            }
            if segment.len() < secret::LONG_ENOUGH {
                let message = format!("a secret path of fewer than {} characters can be guessed", secret::LONG_ENOUGH);
                let d = Diagnostic::warning("short-secret-path", message).at(path.span, "").secret(path.span);
                cx.warn(d.help("`openssl rand -hex 16` makes a good one"));
            }
        }
        // Read when the configuration is compiled.
        (None, Some(Key::File(_))) => {}
        (None, _) => {
            let d = cx.err(path.span, "token-not-fixed", "a secret path cannot be made from the request");
            return Err(masked(Box::new(d.help("use a text, `{$VAR}`, `{env.VAR}` or `{file./path}`"))));
        }
    }
    Ok(SecretConfig { name: name.text().to_owned(), path: path.text().to_owned() })
}

fn version(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<String> {
    let token = cx.one(line)?;
    check_version(token.text()).map_err(|why| cx.err(token.span, "invalid-value", why))?;
    Ok(token.text().to_owned())
}

fn model(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<ModelConfig> {
    let mut out = ModelConfig { glob: cx.one(line)?.text().to_owned(), ..ModelConfig::default() };
    for fact in line.lines() {
        cx.no_block(fact)?;
        let twice = match fact.name() {
            "context" => out.context.replace(tokens(cx, fact)?).is_some(),
            "output" => out.output.replace(tokens(cx, fact)?).is_some(),
            "embedding_length" => out.embedding_length.replace(tokens(cx, fact)?).is_some(),
            "capabilities" => out.capabilities.replace(capabilities(cx, fact)?).is_some(),
            "family" => out.family.replace(text(cx, fact)?).is_some(),
            "parameters" => out.parameters.replace(text(cx, fact)?).is_some(),
            "quantization" => out.quantization.replace(text(cx, fact)?).is_some(),
            "name" => out.name.replace(text(cx, fact)?).is_some(),
            _ => return Err(cx.unknown(fact, &FACTS)),
        };
        if twice {
            return Err(cx.duplicate(fact));
        }
    }
    Ok(out)
}

fn text(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<String> {
    let token = cx.one(line)?;
    if token.text().is_empty() {
        return Err(cx.err(token.span, "invalid-value", format!("`{}` is empty", line.name())));
    }
    Ok(token.text().to_owned())
}

fn tokens(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<u64> {
    let token = cx.one(line)?;
    let number = token.text().parse::<u64>().ok().filter(|n| *n > 0 && *n <= 1 << 40);
    number.ok_or_else(|| cx.err(token.span, "invalid-number", format!("`{}` is not a count", token.shown())))
}

fn capabilities(cx: &DirectiveCx<'_, '_>, line: &Node) -> Parsed<Vec<String>> {
    if line.args.is_empty() {
        return Err(cx.arg_err(line));
    }
    for token in &line.args {
        if Capabilities::named(token.text()).is_some() {
            continue;
        }
        let d = cx.err(token.span, "invalid-value", format!("there is no capability `{}`", token.shown()));
        return Err(Box::new(match nearest(token.text(), Capabilities::all_names()) {
            Some(near) => d.help(format!("did you mean `{near}`?")).replace(token.span, near),
            None => d.help(format!("it is one of: {}", Capabilities::all_names().collect::<Vec<_>>().join(", "))),
        }));
    }
    Ok(line.args.iter().map(|t| t.text().to_owned()).collect())
}
