//! `jwt_auth`: lets through requests that carry a valid JSON Web Token, such as those of an OpenID Connect provider.
//!
//! ```text
//! jwt_auth /v1/* {
//!     jwks https://login.example.com/.well-known/jwks.json
//!     issuer https://login.example.com
//!     audience llm
//!     require roles llm-user llm-admin
//!     models_claim llm_models
//! }
//! ```
//!
//! The token comes as `Authorization: Bearer TOKEN`, or in any other place where clients of LLM APIs put their keys
//! (`x-api-key`, `api-key`, `x-goog-api-key`, the subprotocol of a realtime session), or in those named with `header NAME`
//! and `cookie NAME`. All credentials are taken off the request, whatever becomes of it. Who gets in is
//! `{http.auth.user.id}`: the claim `sub`, or that of `user_claim`. Every claim is a placeholder, `{http.auth.user.NAME}`
//! and `{auth.claim.NAME}`; claims within others go by their path (`realm_access.roles`), lists are joined by commas.
//! Others get 401 with `WWW-Authenticate: Bearer`, and 403 where the token is right but lacks what `require` asks for.
//!
//! Signatures are checked with any of
//!
//! - `jwks URL`: the issuer's published keys. They are fetched when a token first needs them, renewed beside the requests
//!   every 15 minutes (`jwks URL { refresh 5m }`), and at once when a token names a key that is not among them, but not
//!   more often than every 30 seconds. While the URL is down the known keys serve on.
//! - `key FILE`, repeatable: a public key (RSA from 2048 bits, EC P-256 or P-384, Ed25519) or certificate in PEM, or a JSON
//!   Web Key (set). The file is watched.
//! - `secret TEXT`, repeatable: a secret of at least 32 characters shared with the issuer, best as `{$VAR}` or
//!   `{file./path}`.
//!
//! `algorithms` names those that are accepted; by default they are all that the keys can do (HS256, HS384, HS512 with a
//! secret; RS…, PS…, ES256, ES384 and EdDSA with public keys). A token never chooses how a key is used, and `none` is not
//! an algorithm.
//!
//! The token must have an expiry unless `allow_no_expiry` stands there; `exp`, `nbf` and `iat` are held to the clock give
//! or take `leeway` (30 s). `issuer` and `audience` may name several. `require CLAIM VALUE…` asks that a claim has one of
//! these values, or that a list or a `scope` contains one; without a value, that it is there. With `models_claim` the
//! caller may use only the models that the claim lists (patterns, as a list or parted by blanks), without the claim none; other
//! models get 403.
//!
//! Where a browser sends the token as a cookie, mind that it does so for requests of other pages too: give the cookie
//! `SameSite=Strict`.
//!
//! Tokens of people beside fixed keys of programs, told apart by a matcher:
//!
//! ```text
//! @jwt header Authorization "Bearer ey*"
//! @key not header Authorization "Bearer ey*"
//! jwt_auth @jwt {
//!     jwks https://login.example.com/.well-known/jwks.json
//!     audience llm
//! }
//! auth_token @key {$PROXY_TOKEN}
//! ```

mod claims;
mod fault;
mod gate;
mod jwks;
mod key;
#[cfg(test)]
mod testing;
mod token;
mod verified;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use self::claims::{Required, Rules};
use self::gate::Gate;
use self::jwks::Jwks;
use self::key::{Algorithm, Key, KeySet, MIN_SECRET};
use self::verified::Verified;
use crate::base::diagnostic::Diagnostic;
use crate::base::units::parse_duration;
use crate::client::{Scheme, ServiceUrl};
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::nanos::Nanos;
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::credentials;
use crate::http::placeholder::{Key as Placeholder, Template};
use crate::http::route::Handler;
use crate::syntax::token::Token;
use crate::syntax::tree::Node;

pub const DIRECTIVE: Directive = Directive {
    name: "jwt_auth",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Requires a valid JSON Web Token, and takes it off the request.",
        syntax: "jwt_auth [matcher] { jwks <url> { refresh <duration> }  key <file>  secret <text>  algorithms <names…>  issuer <names…>  audience <names…>  require <claim> [<values…>]  leeway <duration>  user_claim <claim>  models_claim <claim>  allow_no_expiry  header <field>  cookie <name> }",
        examples: &[
            "jwt_auth {\n\tjwks https://login.example.com/.well-known/jwks.json\n\tissuer https://login.example.com\n\taudience llm\n}",
            "jwt_auth /v1/* {\n\tjwks https://login.example.com/keys {\n\t\trefresh 5m\n\t}\n\talgorithms RS256 ES256\n\taudience llm\n\trequire roles llm-user llm-admin\n\tuser_claim email\n\tmodels_claim llm_models\n\tleeway 1m\n}",
            "jwt_auth {\n\tsecret a-secret-shared-with-the-issuer-alone\n\tallow_no_expiry\n\theader X-Api-Key\n\tcookie session\n}",
            "@jwt header Authorization \"Bearer ey*\"\n@key not header Authorization \"Bearer ey*\"\njwt_auth @jwt {\n\tjwks https://login.example.com/.well-known/jwks.json\n\taudience llm\n}\nauth_token @key a-token-of-a-program",
        ],
        rejected: &[
            ("jwt_auth", "no-jwt-key"),
            ("jwt_auth {\n\tissuer https://a.example\n}", "no-jwt-key"),
            ("jwt_auth https://a.example/jwks", "wrong-argument-count"),
            ("jwt_auth {\n\tsecret short\n}", "weak-secret"),
            ("jwt_auth {\n\tsecret {header.X-Secret}\n}", "token-not-fixed"),
            ("jwt_auth {\n\tkey /nonexistent/issuer.pem\n}", "unreadable-file"),
            ("jwt_auth {\n\tjwks login.example.com/keys\n}", "invalid-jwks-url"),
            ("jwt_auth {\n\tjwks https://a.example\n\tjwks https://b.example\n}", "duplicate-option"),
            ("jwt_auth {\n\tjwks https://a.example {\n\t\trefresh 0s\n\t}\n}", "invalid-duration"),
            ("jwt_auth {\n\tjwks https://a.example\n\talgorithms none\n}", "unknown-algorithm"),
            ("jwt_auth {\n\tjwks https://a.example\n\talgorithms HS256\n}", "algorithm-without-key"),
            (
                "jwt_auth {\n\tsecret a-secret-shared-with-the-issuer-alone\n\talgorithms RS256\n}",
                "algorithm-without-key",
            ),
            ("jwt_auth {\n\tjwks https://a.example\n\tlee_way 1m\n}", "unknown-subdirective"),
            ("jwt_auth {\n\tjwks https://a.example\n\trequire\n}", "wrong-argument-count"),
            ("jwt_auth {\n\tjwks https://a.example\n\theader \"X A\"\n}", "invalid-header-field"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "jwt_auth", compile };

/// No `Debug`: it holds secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JwtAuth {
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<JwksConfig>,
    /// Files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<String>,
    /// Empty = all that the keys can do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    algorithms: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issuers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audiences: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    require: Vec<RequireConfig>,
    /// Absent = 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    leeway: Option<Nanos>,
    /// Empty = `sub`.
    #[serde(skip_serializing_if = "String::is_empty")]
    user_claim: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    models_claim: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_no_expiry: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JwksConfig {
    url: String,
    /// Zero = 15 min.
    #[serde(skip_serializing_if = "Nanos::is_zero")]
    refresh: Nanos,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequireConfig {
    claim: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

const DEFAULT_LEEWAY: Nanos = Nanos(30_000_000_000);
const DEFAULT_REFRESH: Duration = Duration::from_mins(15);
const MIN_REFRESH: i64 = 1_000_000_000;

const OPTIONS: [&str; 13] = [
    "jwks",
    "key",
    "secret",
    "algorithms",
    "issuer",
    "audience",
    "require",
    "leeway",
    "user_claim",
    "models_claim",
    "allow_no_expiry",
    "header",
    "cookie",
];

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let node = cx.node;
    // Whatever is wrong: secrets are not shown with it.
    let masked = |d: Box<Diagnostic>| {
        let secrets = node.lines().filter(|line| line.name() == "secret").flat_map(|line| &line.args);
        Box::new(secrets.fold(*d, |d, token| d.secret(token.span)))
    };
    let config = parse_block(cx).map_err(masked)?;
    Ok(cx.route(types::handler(HANDLER.id, &config)))
}

fn parse_block(cx: &mut DirectiveCx<'_, '_>) -> Parsed<JwtAuth> {
    if !cx.args.is_empty() {
        return Err(cx.arg_err(cx.node));
    }
    let mut out = JwtAuth::default();
    for line in cx.node.lines() {
        if line.name() != "jwks" {
            cx.no_block(line)?;
        }
        match line.name() {
            "jwks" if out.jwks.is_some() => return Err(cx.duplicate(line)),
            "jwks" => out.jwks = Some(parse_jwks(cx, line)?),
            "key" => out.keys.push(cx.one(line)?.text().to_owned()),
            "secret" => {
                let secret = cx.one(line)?;
                check_secret(secret).map_err(|e| told(cx, secret, e))?;
                out.secrets.push(secret.text().to_owned());
            }
            "algorithms" => {
                for token in several(cx, line)? {
                    algorithm(token.text()).map_err(|e| told(cx, token, e))?;
                    out.algorithms.push(token.text().to_owned());
                }
            }
            "issuer" => out.issuers.extend(several(cx, line)?.iter().map(|t| t.text().to_owned())),
            "audience" => out.audiences.extend(several(cx, line)?.iter().map(|t| t.text().to_owned())),
            "require" => {
                let Some((claim, values)) = line.args.split_first() else { return Err(cx.arg_err(line)) };
                let values = values.iter().map(|t| t.text().to_owned()).collect();
                out.require.push(RequireConfig { claim: claim.text().to_owned(), values });
            }
            "leeway" if out.leeway.is_some() => return Err(cx.duplicate(line)),
            "leeway" => out.leeway = Some(duration(cx, line, 0)?),
            "user_claim" if !out.user_claim.is_empty() => return Err(cx.duplicate(line)),
            "user_claim" => cx.one(line)?.text().clone_into(&mut out.user_claim),
            "models_claim" if !out.models_claim.is_empty() => return Err(cx.duplicate(line)),
            "models_claim" => cx.one(line)?.text().clone_into(&mut out.models_claim),
            "allow_no_expiry" if !line.args.is_empty() => return Err(cx.arg_err(line)),
            "allow_no_expiry" => out.allow_no_expiry = true,
            "header" => {
                let field = cx.one(line)?;
                header(field.text()).map_err(|e| told(cx, field, e))?;
                out.headers.push(field.text().to_owned());
            }
            "cookie" => out.cookies.push(cx.one(line)?.text().to_owned()),
            _ => return Err(cx.unknown(line, &OPTIONS)),
        }
    }
    if out.jwks.is_none() && out.keys.is_empty() && out.secrets.is_empty() {
        let d = cx.err(cx.node.span(), NO_KEY.0, NO_KEY.1);
        return Err(Box::new(d.help("add `jwks URL`, `key FILE` or `secret TEXT`")));
    }
    Ok(out)
}

const NO_KEY: (&str, &str) = ("no-jwt-key", "`jwt_auth` has no key to check signatures with");

/// What compiling would say, at the word.
fn told(cx: &DirectiveCx<'_, '_>, token: &Token, error: CompileError) -> Box<Diagnostic> {
    let d = cx.err(token.span, error.code, error.message);
    match error.help {
        Some(help) => Box::new(d.help(help)),
        None => d,
    }
}

fn several<'n>(cx: &DirectiveCx<'_, '_>, line: &'n Node) -> Parsed<&'n [Token]> {
    if line.args.is_empty() { Err(cx.arg_err(line)) } else { Ok(&line.args) }
}

fn duration(cx: &DirectiveCx<'_, '_>, line: &Node, least: i64) -> Parsed<Nanos> {
    let token = cx.one(line)?;
    parse_duration(token.text()).filter(|n| *n >= least).map(Nanos).ok_or_else(|| {
        let d = cx.err(token.span, "invalid-duration", format!("`{}` is not a duration here", token.shown()));
        Box::new(d.help("for example `30s` or `15m`"))
    })
}

fn parse_jwks(cx: &mut DirectiveCx<'_, '_>, line: &Node) -> Parsed<JwksConfig> {
    let token = cx.one(line)?;
    let url = ServiceUrl::parse(token.text()).map_err(|why| {
        let message = format!("`{}` is not the URL of a key set: {why}", token.shown());
        Box::new(
            cx.err(token.span, "invalid-jwks-url", message).help("for example `https://issuer/.well-known/jwks.json`"),
        )
    })?;
    if url.scheme == Scheme::Http && !is_local(&url.host) {
        let d =
            Diagnostic::warning("jwks-without-tls", "the issuer's keys come over a connection that anybody may change");
        cx.warn(d.at(token.span, "").help("use `https://`: who can change the keys can make tokens"));
    }
    let mut out = JwksConfig { url: token.text().to_owned(), refresh: Nanos::default() };
    for option in line.lines() {
        match option.name() {
            "refresh" if !out.refresh.is_zero() => return Err(cx.duplicate(option)),
            "refresh" => out.refresh = duration(cx, option, MIN_REFRESH)?,
            _ => return Err(cx.unknown(option, &["refresh"])),
        }
    }
    Ok(out)
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_secret(token: &Token) -> Result<(), CompileError> {
    let template = Template::parse(token.text());
    match (template.as_static(), template.as_key()) {
        (Some(text), _) if text.trim().len() < MIN_SECRET => Err(weak_secret()),
        (Some(_), _) | (None, Some(Placeholder::File(_))) => Ok(()),
        (None, _) => Err(secret_not_fixed()),
    }
}

fn weak_secret() -> CompileError {
    CompileError::new("weak-secret", "a secret for HS256 needs at least 32 characters: shorter ones can be guessed")
        .help("make one with `openssl rand -base64 48`; is the variable set where llmproxy runs?")
}

fn secret_not_fixed() -> CompileError {
    CompileError::new("token-not-fixed", "a secret cannot be made from the request")
}

fn algorithm(name: &str) -> Result<Algorithm, CompileError> {
    Algorithm::named(name).ok_or_else(|| {
        let names: Vec<_> = Algorithm::NAMES.iter().map(|(name, _)| *name).collect();
        CompileError::new("unknown-algorithm", "there is no such signature algorithm")
            .help(format!("one of {}", names.join(", ")))
    })
}

fn header(name: &str) -> Result<HeaderName, CompileError> {
    name.parse().map_err(|_| CompileError::new("invalid-header-field", "not the name of a header"))
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: JwtAuth = read(module, "handler")?;
    let keys = compile_keys(&config, cx)?;
    let jwks = config.jwks.as_ref().map(compile_jwks).transpose().map_err(|e| e.within("jwks"))?;
    if jwks.is_none() && keys.is_empty() {
        return Err(CompileError::new(NO_KEY.0, NO_KEY.1));
    }
    let mut headers = credentials::HEADERS.to_vec();
    for (i, name) in config.headers.iter().enumerate() {
        headers.push(header(name).map_err(|e| e.within(i).within("headers"))?);
    }
    let second = 1_000_000_000;
    let rules = Rules {
        issuers: config.issuers,
        audiences: config.audiences,
        required: config.require.into_iter().map(|r| Required { claim: r.claim, values: r.values }).collect(),
        leeway: config.leeway.unwrap_or(DEFAULT_LEEWAY).0.max(0) / second,
        user_claim: if config.user_claim.is_empty() { "sub".to_owned() } else { config.user_claim },
        models_claim: Some(config.models_claim).filter(|name| !name.is_empty()),
        may_lack_expiry: config.allow_no_expiry,
    };
    let gate = Gate {
        algorithms: accepted(&config.algorithms, &keys, jwks.is_some())?,
        keys: Arc::new(KeySet(keys)),
        rules,
        headers: headers.into(),
        cookies: config.cookies.into(),
        verified: Verified::new()
            .ok_or_else(|| CompileError::new("no-randomness", "the system gives no random bytes"))?,
        jwks,
    };
    Ok(if gate.waits() { Handler::Async(Box::new(gate)) } else { Handler::Step(Box::new(gate)) })
}

/// The keys of files and the secrets; files are watched.
fn compile_keys(config: &JwtAuth, cx: &mut CompileCx<'_>) -> Result<Vec<Key>, CompileError> {
    let mut keys = Vec::new();
    for (i, path) in config.keys.iter().enumerate() {
        let wrong = |code, message: String| CompileError::new(code, message).within(i).within("keys");
        cx.watched.push(path.into());
        let text = std::fs::read(path).map_err(|e| wrong("unreadable-file", format!("{path}: {e}")))?;
        keys.extend(Key::read_file(&text).map_err(|why| wrong("invalid-jwt-key", format!("{path}: {why}")))?);
    }
    for (i, secret) in config.secrets.iter().enumerate() {
        keys.push(compile_secret(secret, cx).map_err(|e| e.within(i).within("secrets"))?);
    }
    Ok(keys)
}

fn compile_secret(secret: &str, cx: &mut CompileCx<'_>) -> Result<Key, CompileError> {
    let template = Template::parse(secret);
    let text = match (template.as_static(), template.as_key()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(Placeholder::File(path))) => {
            cx.watched.push(path.clone());
            std::fs::read_to_string(path)
                .map_err(|e| CompileError::new("unreadable-file", format!("{}: {e}", path.display())))?
        }
        (None, _) => return Err(secret_not_fixed()),
    };
    Key::secret(text.trim().as_bytes()).map_err(|_| weak_secret())
}

fn compile_jwks(config: &JwksConfig) -> Result<(Arc<Jwks>, Duration), CompileError> {
    let jwks = Jwks::of(&config.url).map_err(|why| {
        CompileError::new("invalid-jwks-url", format!("not the URL of a key set: {why}")).within("url")
    })?;
    Ok((jwks, config.refresh.positive().unwrap_or(DEFAULT_REFRESH)))
}

/// The algorithms that a token may have. One that no key could verify is a mistake to be told.
fn accepted(names: &[String], keys: &[Key], published: bool) -> Result<Vec<Algorithm>, CompileError> {
    let served =
        |a: Algorithm| (published && !a.is_shared()) || keys.iter().any(|key| key.algorithms().any(|known| known == a));
    let mut out = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let wanted = algorithm(name).map_err(|e| e.within(i).within("algorithms"))?;
        if !served(wanted) {
            let message = format!("no key of this `jwt_auth` can verify `{name}`");
            let help =
                if wanted.is_shared() { "it needs a `secret`" } else { "it needs a public key: `key` or `jwks`" };
            let e = CompileError::new("algorithm-without-key", message).help(help);
            return Err(e.within(i).within("algorithms"));
        }
        out.push(wanted);
    }
    if out.is_empty() {
        out.extend(Algorithm::NAMES.iter().map(|(_, algorithm)| *algorithm).filter(|a| served(*a)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
