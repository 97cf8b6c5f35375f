//! `auth_token`: lets through requests that carry one of the given tokens, and takes the token off before they go up.
//!
//! `auth_token {$PROXY_TOKEN}` accepts what LLM clients send: `Authorization: Bearer TOKEN`, `Authorization: TOKEN`,
//! `x-api-key: TOKEN` and `api-key: TOKEN`. Any other request is answered 401 in OpenAI's error shape, CORS preflights
//! too. Several tokens may be given; any one of them opens. An empty token, as from a variable that is not set, is an
//! error, never an open door. A matcher may come first: `auth_token /v1/* {$PROXY_TOKEN}`; write `*` before a token that
//! begins with `/` or `@`.
//!
//! Tokens are compared in constant time over their digests, so that neither content nor length can be measured.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::placeholder::{Key, Template};
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "auth_token",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Requires one of the given tokens, and takes it off the request.",
        syntax: "auth_token [matcher] <tokens…>",
        examples: &[
            "auth_token s3cret-for-the-example",
            "auth_token /v1/* first-token second-token",
            "auth_token * @starts-with-an-at",
        ],
        rejected: &[
            ("auth_token", "empty-token"),
            ("auth_token \"\"", "empty-token"),
            ("auth_token \" \"", "empty-token"),
            ("auth_token {header.X-Token}", "token-not-fixed"),
            ("auth_token a-good-token \"\"", "empty-token"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "auth_token", compile };

/// No `Debug`: the tokens are secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AuthToken {
    tokens: Vec<String>,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    const EMPTY: &str = "`auth_token` with an empty token would let everybody in or nobody";
    const HELP: &str = "is the environment variable set where llmproxy runs?";
    cx.no_block(cx.node).map_err(|d| Box::new(cx.args.iter().fold(*d, |d, t| d.secret(t.span))))?;
    if cx.args.is_empty() {
        let d = cx.err(cx.node.span(), "empty-token", "`auth_token` has no token");
        return Err(Box::new(d.help(HELP)));
    }
    for token in cx.args {
        let template = Template::parse(token.text());
        let (code, message, help) = match template.as_static() {
            Some(text) if text.trim().is_empty() => ("empty-token", EMPTY, HELP),
            Some(_) => continue,
            // A file's text is read when the configuration is compiled. What else is not settled by now would come from
            // the request itself.
            None if matches!(template.as_key(), Some(Key::File(_))) => continue,
            None => {
                let help = "use a text, `{$VAR}`, `{env.VAR}` or `{file./path}`";
                ("token-not-fixed", "a token cannot be made from the request", help)
            }
        };
        // The other words of the line are secrets, not to be shown with it.
        let d = cx.err(token.span, code, message).help(help);
        return Err(Box::new(cx.args.iter().filter(|t| t.span != token.span).fold(d, |d, t| d.secret(t.span))));
    }
    let tokens = cx.args.iter().map(|t| t.text().to_owned()).collect();
    Ok(cx.route(types::handler(HANDLER.id, &AuthToken { tokens })))
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: AuthToken = read(module, "handler")?;
    if config.tokens.is_empty() {
        return Err(CompileError::new("empty-token", "`auth_token` has no token").within("tokens"));
    }
    let mut digests = Vec::with_capacity(config.tokens.len());
    for (i, token) in config.tokens.iter().enumerate() {
        digests.push(token_digest(token, cx).map_err(|e| e.within(i).within("tokens"))?);
    }
    Ok(Handler::Step(Box::new(Gate { digests: digests.into() })))
}

/// The digest of a configured token; a token in a file is read now, and the file watched.
fn token_digest(token: &str, cx: &mut CompileCx<'_>) -> Result<[u8; 32], CompileError> {
    let template = Template::parse(token);
    let text = match (template.as_static(), template.as_key()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(Key::File(path))) => {
            cx.watched.push(path.clone());
            std::fs::read_to_string(path)
                .map_err(|e| CompileError::new("unreadable-file", format!("{}: {e}", path.display())))?
        }
        (None, _) => return Err(CompileError::new("token-not-fixed", "a token cannot be made from the request")),
    };
    match text.trim() {
        "" => Err(CompileError::new("empty-token", "a token is empty")),
        text => Ok(digest(text.as_bytes())),
    }
}

const MISSING: &str = "You didn't provide an API key. Send it in an Authorization header using Bearer auth \
                       (Authorization: Bearer YOUR_KEY), or as x-api-key or api-key.";
const INCORRECT: &str = "Incorrect API key provided.";

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");
const CREDENTIAL_HEADERS: [HeaderName; 3] = [header::AUTHORIZATION, X_API_KEY, API_KEY];

struct Gate {
    digests: Box<[[u8; 32]]>,
}

impl Step for Gate {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let mut given = false;
        let mut known = Choice::from(0);
        for credential in credentials(&ex.headers) {
            given = true;
            known |= self.knows(credential);
        }
        // Refused or not, a handler further on must not see or send them.
        for name in &CREDENTIAL_HEADERS {
            ex.headers.remove(name);
        }
        if bool::from(known) {
            return Flow::Next;
        }
        let message = if given { INCORRECT } else { MISSING };
        let refusal = Refusal { message: message.into(), code: Some("invalid_api_key"), ..Refusal::default() };
        let mut error = HandlerError::refusal(401, HANDLER.id, refusal);
        error.message = if given { "incorrect token" } else { "missing token" }.into();
        Flow::Fail(error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
    }
}

impl Gate {
    /// Looks at every token whatever the outcome.
    fn knows(&self, credential: &[u8]) -> Choice {
        let given = digest(credential);
        self.digests.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given))
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// What the request offers, one per header: a header that comes twice counts once.
fn credentials(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    CREDENTIAL_HEADERS
        .into_iter()
        .filter_map(|name| headers.get(&name))
        .map(|value| bearer(value.as_bytes()))
        .filter(|credential| !credential.is_empty())
}

/// Takes off a `Bearer` in front (any case, RFC 6750 with RFC 9110's case rule) and blanks around.
fn bearer(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    match value.split_first_chunk::<7>() {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii(),
        _ if value.eq_ignore_ascii_case(b"Bearer") => &[],
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{compile, exchange, step};
    use serde_json::json;

    fn run(headers: &[(&'static str, &str)]) -> (Flow, Exchange) {
        let mut ex = exchange("POST", "/v1/chat/completions");
        for (name, value) in headers {
            ex.headers.append(*name, value.parse().unwrap());
        }
        let flow = step(json!({"handler":"auth_token","tokens":["first","second"]})).run(&mut ex);
        (flow, ex)
    }

    #[test]
    fn every_way_of_sending_it_is_accepted_and_taken_off() {
        for header in [
            ("authorization", "Bearer second"),
            ("authorization", "bearer  first"),
            ("authorization", "first"),
            ("x-api-key", "first"),
            ("api-key", "second"),
        ] {
            let (flow, ex) = run(&[header]);
            assert!(matches!(flow, Flow::Next), "{header:?}");
            for name in &CREDENTIAL_HEADERS {
                assert!(!ex.headers.contains_key(name), "{header:?} left {name}");
            }
        }
    }

    #[test]
    fn a_credential_beside_the_right_one_does_not_go_up() {
        let (flow, ex) = run(&[("authorization", "Bearer first"), ("x-api-key", "sk-other")]);
        assert!(matches!(flow, Flow::Next));
        assert!(!ex.headers.contains_key("x-api-key"));
    }

    #[test]
    fn refusals_tell_missing_from_incorrect_and_echo_nothing() {
        for (headers, text) in [
            (&[][..], "You didn't provide"),
            (&[("authorization", "Bearer")], "You didn't provide"),
            (&[("authorization", "Bearer firs")], "Incorrect"),
            (&[("authorization", "Bearer firstx")], "Incorrect"),
            (&[("authorization", "Basic first")], "Incorrect"),
        ] {
            let (Flow::Fail(error), ex) = run(headers) else { panic!("{headers:?} passed") };
            assert_eq!(error.status, 401);
            assert_eq!(error.headers, [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))]);
            let refusal = error.refusal.unwrap();
            assert!(refusal.message.starts_with(text), "{headers:?}");
            assert_eq!(refusal.code, Some("invalid_api_key"));
            assert!(!refusal.message.contains("firs"));
            assert!(!ex.headers.contains_key(header::AUTHORIZATION));
        }
    }

    #[test]
    fn a_token_may_stand_in_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"from-file\n").unwrap();
        let token = format!("{{file.{}}}", file.path().display());
        let gate = step(json!({"handler":"auth_token","tokens":[token]}));
        let mut ex = exchange("GET", "/");
        ex.headers.insert("x-api-key", HeaderValue::from_static("from-file"));
        assert!(matches!(gate.run(&mut ex), Flow::Next));
        let gone = json!({"handler":"auth_token","tokens":["{file./nonexistent/token}"]});
        assert_eq!(compile(gone).err().unwrap().code, "unreadable-file");
    }

    #[test]
    fn no_configuration_opens_the_door() {
        for tokens in [json!([]), json!([""]), json!(["a", " "]), json!(["{env.LLMPROXY_TEST_IS_NOT_SET}"])] {
            let error = compile(json!({"handler":"auth_token","tokens":tokens})).err().unwrap();
            assert_eq!(error.code, "empty-token", "{tokens}");
        }
        let echo = json!({"handler":"auth_token","tokens":["{http.request.header.X-Api-Key}"]});
        assert_eq!(compile(echo).err().unwrap().code, "token-not-fixed");
    }
}
