//! `auth_token`: lets through requests that show one of the given tokens, and takes the token off before they go up.
//!
//! `auth_token {$PROXY_TOKEN}` is enough for one team. A block gives tokens names, rights and labels:
//!
//! ```text
//! auth_token [matcher] [TOKEN…] {
//!     token NAME VALUE {
//!         models gpt-4o* text-embedding-*   # only these; * any run of characters, ? one
//!         paths /v1/*                       # only these, as in the `path` matcher
//!         ips 10.0.0.0/8 192.0.2.7          # only from there; `private_ranges` too
//!         expires 2027-01-01T18:00:00Z      # or 2027-01-01, from its first moment on; UTC
//!         team core
//!         app ide
//!         tag KEY VALUE                     # free, as many as you like
//!     }
//!     file /etc/llmproxy/tokens             # may come several times
//!     header X-My-Key                       # a further header that may carry the token
//! }
//! ```
//!
//! A **value** is the token itself, its hash, `{$VAR}`, `{env.VAR}` or `{file./path}`. `llmproxy new-token NAME` makes a token
//! and prints the line to keep; `llmproxy hash-token` hashes one that you have. `sha256:…` is right for tokens that were
//! made at random: nobody can search for those, and looking one up costs nothing. `$argon2id$…` is for tokens that people chose;
//! such a token must look like `llmp_NAME_SECRET`, so that a stranger's guess costs one slow hash at most, and none without a name
//! that exists. Checked slow hashes are remembered, and only some are worked out at a time: when too many wait, the
//! answer is 503. An empty token, as from a variable that is not set, is an error, never an open door.
//!
//! A **token file** has a token a line, with the same settings; lists have commas:
//!
//! ```text
//! # NAME VALUE [key=value …]
//! ide    sha256:9f86d081884c7d65…  models=gpt-4o*,o3 team=core tag.cost=42
//! ci     sha256:60303ae22b998861…  paths=/v1/* ips=10.0.0.0/8 expires=2027-01-01 app=ci
//! ```
//!
//! It is watched: a saved change counts at once, without a reload of anything else being noticed. A file with a wrong line
//! changes nothing (the tokens that were loaded go on), and the log says which line; `llmproxy validate` says it before. Two tokens
//! with one name or one value are such a mistake.
//!
//! **Where clients may put it**: `Authorization: Bearer TOKEN`, `Authorization: TOKEN`, `x-api-key`, `api-key`, `x-goog-api-key`, the
//! query parameter `key` (Google's), the websocket subprotocol `openai-insecure-api-key.TOKEN`, and the headers you name. All of
//! these are taken off, also when the request is refused or the token was in another of them; a query parameter `key`
//! only when it holds a token. The first known token counts.
//!
//! **Answers**: no token or a wrong one 401, an expired one 401 (`token_expired`), a model, a path or an address that
//! the token is not for 403 (`model_not_allowed`, `path_not_allowed`, `ip_not_allowed`), all in the shape that the client's API
//! uses. A token with `models` lets `GET` and `HEAD` pass without a model; anything else must tell a model that is allowed, in
//! its path, its body (read up to 64 MiB) or, for a realtime websocket, `?model=`. The model is the one that the client
//! names, before `model_alias` changes it; models to fall back on (`models`, `fallbacks`) must be allowed too. What an upstream
//! keeps may have models of its own (batches, assistants, realtime sessions made by `POST`): where it does, give such a
//! token `paths` as well. A CORS preflight cannot show a token: it is answered here with 204 and no
//! permission, and never goes up; `cors` in front gives the permission.
//!
//! **Who it is** stands in the access log as `user_id` and in placeholders: `{http.auth.user.id}` or `{auth.id}` is the
//! name, then `{auth.team}`, `{auth.app}` and `{auth.tag.KEY}`, empty when not given. Tokens without a name are `token1`, `token2`, …
//! A matcher may come first: `auth_token /v1/* {$PROXY_TOKEN}`; write `*` before a token that begins with `/` or `@`.

mod file;
mod gate;
mod parse;
mod set;
mod token;

use http::{HeaderName, header};
use serde::{Deserialize, Serialize};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::Module;
use crate::http::credentials;
use crate::http::placeholder::{Key, Template};
use crate::http::route::Handler;

use self::gate::Gate;
use self::set::{Origin, TokenSet};
use self::token::Written;

pub use self::file::line as file_line;
pub use self::set::{PREFIX, name_in};
pub use self::token::{LONGEST, check_name, digest};

pub const DIRECTIVE: Directive = Directive {
    name: "auth_token",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse::parse,
    doc: &Doc {
        summary: "Requires one of the given tokens, and takes it off the request.",
        syntax: "auth_token [matcher] [<tokens…>] { token <name> <value> { … } | file <path> | header <name> }",
        examples: &[
            "auth_token s3cret-for-the-example",
            "auth_token /v1/* first-token-of-the-example second-token-of-the-example",
            "auth_token * @starts-with-an-at",
            "auth_token {\n\ttoken ide sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 {\n\t\tmodels gpt-4o* o3\n\t\tpaths /v1/*\n\t\tips 10.0.0.0/8 private_ranges\n\t\texpires 2027-01-01T00:00:00Z\n\t\tteam core\n\t\tapp ide\n\t\ttag cost-centre 42\n\t}\n\ttoken ci token-of-the-ci-jobs\n\theader X-My-Key\n}",
        ],
        rejected: &[
            ("auth_token", "empty-token"),
            ("auth_token \"\"", "empty-token"),
            ("auth_token \" \"", "empty-token"),
            ("auth_token {\n}", "empty-token"),
            ("auth_token {header.X-Token}", "token-not-fixed"),
            ("auth_token a-good-token \"\"", "empty-token"),
            ("auth_token sha256:9f86d081", "invalid-token-hash"),
            ("auth_token {\n\ttoken ide\n}", "wrong-argument-count"),
            ("auth_token {\n\ttoken a/b the-token-of-the-example\n}", "invalid-token-name"),
            ("auth_token {\n\ttoken a the-first-token\n\ttoken a the-second-token\n}", "duplicate-token"),
            ("auth_token {\n\ttoken a the-first-token\n\ttoken b the-first-token\n}", "duplicate-token"),
            ("auth_token {\n\ttoken a the-first-token {\n\t\texpires soon\n\t}\n}", "invalid-expiry"),
            ("auth_token {\n\ttoken a the-first-token {\n\t\tips 10.0.0.0/33\n\t}\n}", "invalid-ip-range"),
            ("auth_token {\n\ttoken a the-first-token {\n\t\tmodel gpt-4o\n\t}\n}", "unknown-subdirective"),
            ("auth_token {\n\tfile /nonexistent/tokens\n}", "unreadable-file"),
            ("auth_token {\n\ttokens a b\n}", "unknown-subdirective"),
            ("auth_token a-good-token {\n\theader Host\n}", "bad-value"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "auth_token", compile };

/// The JSON form. No `Debug`: the tokens are secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuthToken {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    named: Vec<Written>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
}

impl AuthToken {
    /// Those without a name are called by their number.
    fn unnamed(&self) -> impl Iterator<Item = Written> {
        let name = |number| format!("token{number}");
        self.tokens.iter().zip(1..).map(move |(value, n)| Written {
            name: name(n),
            value: value.clone(),
            ..Written::default()
        })
    }
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: AuthToken = read(module, "handler").map_err(without_values)?;
    if config.tokens.is_empty() && config.named.is_empty() && config.files.is_empty() {
        return Err(CompileError::new("empty-token", "`auth_token` has no token"));
    }
    let mut set = TokenSet::new()?;
    let mut errors = Vec::new();
    for (i, written) in config.unnamed().enumerate() {
        errors.extend(add(&written, &mut set, cx).map_err(|e| e.within(i).within("tokens")).err());
    }
    for (i, written) in config.named.iter().enumerate() {
        errors.extend(add(written, &mut set, cx).map_err(|e| e.within(i).within("named")).err());
    }
    for (i, path) in config.files.iter().enumerate() {
        errors.extend(file::read(path, &mut set, cx).into_iter().map(|e| e.within(i).within("files")));
    }
    let headers = headers(&config.headers);
    let mut errors = errors.into_iter();
    if let Some(first) = errors.next() {
        errors.for_each(|error| cx.report(error));
        return Err(first);
    }
    let gate = Gate { headers: headers?, set };
    Ok(if gate.set.waits() { Handler::Async(Box::new(gate)) } else { Handler::Step(Box::new(gate)) })
}

fn add(written: &Written, set: &mut TokenSet, cx: &mut CompileCx<'_>) -> Result<(), CompileError> {
    let token = written.settle(&value_of(&written.value, cx)?)?;
    if token.weak {
        let message = format!("the token {} is shorter than 16 bytes", token.name);
        cx.advise(
            CompileError::new("weak-token", message).help("`llmproxy new-token` makes one that cannot be guessed"),
        );
    }
    set.add(token, Origin::Config)
}

/// A token or a hash, or the content of the file that it stands in, which is read now and watched.
fn value_of(text: &str, cx: &mut CompileCx<'_>) -> Result<String, CompileError> {
    let template = Template::parse(text);
    match (template.as_static(), template.as_key()) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(Key::File(path))) => {
            cx.watched.push(path.clone());
            std::fs::read_to_string(path)
                .map_err(|e| CompileError::new("unreadable-file", format!("{}: {e}", path.display())))
        }
        (None, _) => Err(CompileError::new("token-not-fixed", "a token cannot be made from the request")),
    }
}

fn headers(names: &[String]) -> Result<Box<[HeaderName]>, CompileError> {
    let mut out = credentials::HEADERS.to_vec();
    for (i, name) in names.iter().enumerate() {
        let name = header_name(name).map_err(|e| e.within(i).within("headers"))?;
        if !out.contains(&name) {
            out.push(name);
        }
    }
    Ok(out.into())
}

/// A header that may be taken off without the request becoming another one.
fn header_name(text: &str) -> Result<HeaderName, CompileError> {
    const NEEDED: [HeaderName; 8] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::COOKIE,
    ];
    let name = text.parse().ok().filter(|name| !NEEDED.contains(name));
    name.ok_or_else(|| CompileError::new("bad-value", format!("`{text}` is not a header that can carry a token")))
}

/// What serde says of a field that is there in the wrong form shows what is in it.
fn without_values(error: CompileError) -> CompileError {
    if error.message.starts_with("unknown field") {
        return error;
    }
    CompileError { message: "a field of `auth_token` has the wrong form".to_owned(), ..error }.help(
        "`tokens`, `files` and `headers` are lists of texts; `named` is a list of objects with `name` and `value`",
    )
}

#[cfg(test)]
mod tests;
