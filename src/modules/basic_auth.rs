//! `basic_auth`: asks for a user name and password.
//!
//! ```text
//! basic_auth [bcrypt|argon2id [realm]] {
//!     bob $2a$14$…
//! }
//! ```
//!
//! Passwords are given as hashes (bcrypt unless said otherwise; the older base64 form is read too). Whoever gets in is
//! `{http.auth.user.id}`; others get 401 and are asked. An unknown name costs as much time as a wrong password. Hashing
//! runs beside the workers, a few at a time; a password that was right is remembered, as a keyed digest, in a small cache.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::base::diagnostic::Diagnostic;
use crate::base::password::{Algorithm, Busy, Hashing, Remembered};
use crate::config::compile_cx::{CompileCx, CompileError, read, read_value};
use crate::config::directive_cx::{ConfigValue, DirectiveCx, Parsed};
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::{self, Module};
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, User};
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::headers::safe_value;
use crate::http::placeholder::Template;
use crate::http::route::Handler;

pub const DIRECTIVE: Directive = Directive {
    name: "basic_auth",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse,
    doc: &Doc {
        summary: "Asks for a user name and password.",
        syntax: "basic_auth [matcher] [bcrypt|argon2id [<realm>]] { <user> <hash> }",
        examples: &[
            "basic_auth {\n\tbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}",
            "basic_auth /admin/* bcrypt \"staff only\" {\n\tbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}",
        ],
        rejected: &[
            ("basic_auth scrypt {\n\tbob x\n}", "unknown-hash-algorithm"),
            ("basic_auth {\n\tbob\n}", "wrong-argument-count"),
            ("basic_auth {\n\tbob \"\"\n}", "empty-password"),
            ("basic_auth {\n\tbob secret\n}", "invalid-password-hash"),
            ("basic_auth bcrypt a b {\n}", "wrong-argument-count"),
        ],
        adapt_only: false,
    },
};

pub const OLD_SPELLING: Directive = Directive { name: "basicauth", renamed_to: Some("basic_auth"), ..DIRECTIVE };

pub const HANDLER: HandlerModule = HandlerModule { id: "authentication", compile };

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Authentication {
    providers: Map<String, Value>,
}

/// No `Debug`: hashes stay out of messages.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpBasic {
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<Module>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<Account>,
    #[serde(skip_serializing_if = "String::is_empty")]
    realm: String,
    /// Remember passwords that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_cache: Option<Value>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Account {
    username: String,
    password: String,
}

fn parse(cx: &mut DirectiveCx<'_, '_>) -> Parsed<Vec<ConfigValue>> {
    let (algorithm, realm) = match cx.args {
        [] => (None, ""),
        [algorithm] => (Some(algorithm), ""),
        [algorithm, realm] => (Some(algorithm), realm.text()),
        _ => return Err(cx.arg_err(cx.node)),
    };
    if let Some(token) = algorithm
        && Algorithm::named(token.text()).is_none()
    {
        let message = format!("there is no password hash `{}`", token.shown());
        return Err(Box::new(cx.err(token.span, "unknown-hash-algorithm", message).help("`bcrypt` or `argon2id`")));
    }
    let mut accounts = Vec::new();
    for line in cx.node.lines() {
        // A password that stands where its hash should is not to be shown.
        let masked = |d: Box<Diagnostic>| Box::new(line.args.iter().fold(*d, |d, t| d.secret(t.span)));
        let hash = cx.one(line).map_err(masked)?;
        if line.name().is_empty() || hash.text().is_empty() {
            return Err(cx.err(line.span(), "empty-password", "user name and password hash cannot be empty"));
        }
        accounts.push(Account { username: line.name().to_owned(), password: hash.text().to_owned() });
    }
    let basic = HttpBasic {
        hash: Some(types::module("algorithm", algorithm.map_or("bcrypt", |t| t.text()), &json!({}))),
        accounts,
        realm: realm.to_owned(),
        hash_cache: Some(json!({})),
    };
    let mut providers = Map::new();
    providers.insert("http_basic".into(), serde_json::to_value(&basic).unwrap_or_default());
    Ok(cx.route(types::handler(HANDLER.id, &Authentication { providers })))
}

fn compile(module: &Module, _cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Authentication = read(module, "handler")?;
    if let Some(other) = config.providers.keys().find(|name| *name != "http_basic") {
        return Err(CompileError::not_supported(format_args!("authentication provider `{other}`")).within("providers"));
    }
    let Some(value) = config.providers.get("http_basic") else {
        return Err(CompileError::new("no-authentication-provider", "`authentication` has no provider"));
    };
    compile_basic(value).map_err(|e| e.within("http_basic").within("providers"))
}

fn compile_basic(value: &Value) -> Result<Handler, CompileError> {
    let config: HttpBasic = read_value(value)?;
    let name = config.hash.as_ref().map_or("", |m| types::module_id(m, "algorithm"));
    let algorithm = Algorithm::named(name).ok_or_else(|| {
        CompileError::new("unknown-hash-algorithm", "passwords are hashed with `bcrypt` or `argon2id`").within("hash")
    })?;
    let mut accounts = HashMap::with_capacity(config.accounts.len());
    let mut costly = None;
    for (i, account) in config.accounts.iter().enumerate() {
        let (user, hash) = compile_account(account, algorithm).map_err(|e| e.within(i).within("accounts"))?;
        costly.get_or_insert_with(|| Arc::clone(&hash));
        if accounts.insert(user, hash).is_some() {
            let e = CompileError::new("duplicate-user", "this user name is given twice");
            return Err(e.within(i).within("accounts"));
        }
    }
    let realm = if config.realm.is_empty() { "restricted" } else { &config.realm };
    let cache = config.hash_cache.is_some().then(Remembered::new).transpose();
    let cache = cache.map_err(|_| CompileError::new("no-randomness", "the system gives no random bytes"))?;
    Ok(Handler::Async(Box::new(BasicAuth {
        algorithm,
        accounts,
        costly,
        challenge: safe_value(&format!("Basic realm=\"{realm}\"")),
        cache,
        hashing: Hashing::default(),
    })))
}

fn compile_account(account: &Account, algorithm: Algorithm) -> Result<(String, Arc<str>), CompileError> {
    let settled = |text: &str| Template::parse(text).as_static().map(str::to_owned);
    let bad = || CompileError::new("invalid-password-hash", format!("not a hash of {}", algorithm.name()));
    let (Some(user), Some(hash)) = (settled(&account.username), settled(&account.password)) else {
        return Err(CompileError::new("account-not-fixed", "an account cannot be made from the request"));
    };
    if user.is_empty() || hash.is_empty() {
        return Err(CompileError::new("empty-password", "user name and password hash cannot be empty"));
    }
    let hash = if hash.starts_with('$') {
        hash
    } else {
        let decoded = STANDARD.decode(hash).map_err(|_| bad().within("password"))?;
        String::from_utf8(decoded).map_err(|_| bad().within("password"))?
    };
    if algorithm.accepts(&hash) { Ok((user, hash.into())) } else { Err(bad().within("password")) }
}

struct BasicAuth {
    algorithm: Algorithm,
    accounts: HashMap<String, Arc<str>>,
    /// Compared against for unknown names, so that they take as long; `None` when there is no account at all.
    costly: Option<Arc<str>>,
    challenge: HeaderValue,
    cache: Option<Remembered>,
    hashing: Hashing,
}

impl AsyncHandler for BasicAuth {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            if let Some((user, password)) = credentials(&ex.headers) {
                match self.admits(&user, password).await {
                    Ok(true) => {
                        ex.user = Some(User { id: user, ..User::default() });
                        return Flow::Next;
                    }
                    Ok(false) => {}
                    Err(Busy) => return Flow::Fail(HandlerError::new(503, HANDLER.id, "too many passwords to check")),
                }
            }
            // Set early, so that an answer of `handle_errors` asks for credentials too.
            ex.early_headers.insert(header::WWW_AUTHENTICATE, self.challenge.clone());
            Flow::Fail(HandlerError::new(401, HANDLER.id, "not authenticated"))
        })
    }
}

impl BasicAuth {
    async fn admits(&self, user: &str, password: Vec<u8>) -> Result<bool, Busy> {
        let known = self.accounts.get(user);
        let Some(hash) = known.or(self.costly.as_ref()) else { return Ok(false) };
        let digest = self.cache.as_ref().map(|cache| cache.digest(hash, &password));
        if let (Some(cache), Some(digest), Some(_)) = (&self.cache, &digest, known)
            && cache.knows(digest)
        {
            return Ok(true);
        }
        let right = self.hashing.verify(self.algorithm, password, Arc::clone(hash)).await?;
        let admitted = right && known.is_some();
        if let (true, Some(cache), Some(digest)) = (admitted, &self.cache, digest) {
            cache.remember(digest);
        }
        Ok(admitted)
    }
}

/// User name and password of a `Basic` authorization (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{block_on, compile, exchange};

    /// `secret`, at the lowest cost.
    const BCRYPT: &str = "$2b$04$AAAAAAAAAAAAAAAAAAAAAO";

    fn gate(algorithm: &str, hash: &str) -> Box<dyn AsyncHandler> {
        let config = json!({"handler":"authentication","providers":{"http_basic":{
            "hash":{"algorithm":algorithm},"accounts":[{"username":"bob","password":hash}],"hash_cache":{}}}});
        match compile(config) {
            Ok(Handler::Async(gate)) => gate,
            Ok(_) => panic!("not asynchronous"),
            Err(e) => panic!("{e:?}"),
        }
    }

    fn ask(gate: &dyn AsyncHandler, authorization: Option<&str>) -> (Flow, Exchange) {
        let mut ex = exchange("GET", "/");
        if let Some(value) = authorization {
            ex.headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let flow = block_on(gate.call(&mut ex));
        (flow, ex)
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    fn check(gate: &dyn AsyncHandler) {
        // Twice: hashed, then from the cache.
        for _ in 0..2 {
            let (flow, ex) = ask(gate, Some(&basic("bob:secret")));
            assert!(matches!(flow, Flow::Next));
            assert_eq!(ex.user.unwrap().id, "bob");
        }
        let wrong = [basic("bob:wrong"), basic("eve:secret"), basic("bob"), "Bearer x".into(), "Basic %".into()];
        for value in wrong.iter().map(|w| Some(w.as_str())).chain([None]) {
            let (flow, ex) = ask(gate, value);
            assert!(matches!(flow, Flow::Fail(e) if e.status == 401), "{value:?}");
            assert_eq!(ex.early_headers[header::WWW_AUTHENTICATE], "Basic realm=\"restricted\"");
            assert!(ex.user.is_none());
        }
    }

    #[test]
    fn bcrypt_in_both_spellings() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        check(&*gate("bcrypt", &hash));
        check(&*gate("bcrypt", &STANDARD.encode(&hash)));
    }

    #[test]
    fn argon2id() {
        use argon2::password_hash::PasswordHasher;
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let hasher = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let hash = hasher.hash_password(b"secret").unwrap().to_string();
        check(&*gate("argon2id", &hash));
    }

    #[test]
    fn no_account_admits_nobody() {
        let config = json!({"handler":"authentication","providers":{"http_basic":{"hash":{"algorithm":"bcrypt"}}}});
        let Ok(Handler::Async(gate)) = compile(config) else { panic!("not compiled") };
        assert!(matches!(ask(&*gate, Some(&basic(":"))).0, Flow::Fail(_)));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let code = |hash: &str| {
            compile(json!({"handler":"authentication","providers":{"http_basic":{
                "hash":{"algorithm":"bcrypt"},"accounts":[{"username":"bob","password":hash}]}}}))
            .err()
            .unwrap()
            .code
        };
        assert_eq!(code("secret!"), "invalid-password-hash");
        assert_eq!(code(BCRYPT), "invalid-password-hash");
        assert_eq!(code("{http.request.header.X}"), "account-not-fixed");
    }
}
