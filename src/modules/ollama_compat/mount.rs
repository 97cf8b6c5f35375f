//! The half that runs before anything looks at the path: takes off the mount's path or the secret.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderName, Uri, header};

use super::MOUNT_HANDLER;
use super::config::MountConfig;
use super::endpoint::{Endpoint, is_inference, is_served};
use super::secret::Secrets;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::types::Module;
use crate::http::error::{HandlerError, Refusal};
use crate::http::exchange::Exchange;
use crate::http::handler::{Flow, Step};
use crate::http::route::Handler;
use crate::llm::dialect::Dialect;
use crate::telemetry::query::REDACTED;

pub fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: MountConfig = read(module, "handler")?;
    if !config.path.is_empty() && !config.path.starts_with('/') || config.path.ends_with('/') {
        let why = "a path to mount an API under begins with a slash and does not end with one";
        return Err(CompileError::new("invalid-mount-path", why).within("path"));
    }
    let secrets = Secrets::compile(&config.secrets, &mut cx.watched).map_err(|e| e.within("secrets"))?;
    Ok(Handler::Step(Box::new(Mount { number: config.mount, path: config.path, secrets })))
}

struct Mount {
    number: u32,
    path: String,
    secrets: Secrets,
}

/// Fields that some servers let change a request's method or target: behind a secret, only what was judged may be done.
const OVERRIDES: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// What a client sends beside a secret path is not looked at, and is nobody's key upstream.
const CREDENTIALS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    // Of a page behind the secret path: it would show the path in logs and upstream.
    header::REFERER,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

impl Step for Mount {
    fn run(&self, ex: &mut Exchange) -> Flow {
        if ex.mounted.is_some() {
            return Flow::Next;
        }
        let path = ex.uri.path();
        if !self.secrets.is_empty()
            && let Some((name, secret, rest)) = self.secrets.find(path)
        {
            let (name, secret, rest) = (Arc::clone(name), secret.to_owned(), single_slash(rest).to_owned());
            return self.open(ex, name, &secret, &rest);
        }
        let Some(rest) = path.strip_prefix(self.path.as_str()) else { return Flow::Next };
        if !(rest.is_empty() || rest.starts_with('/')) {
            return Flow::Next;
        }
        let rest = single_slash(rest);
        if is_served(rest) {
            let rest = rest.to_owned();
            return self.enter(ex, &rest);
        }
        Flow::Next
    }
}

impl Mount {
    /// A request by a secret path. The secret is gone when this returns, from the request line as it came too: logs, errors
    /// and placeholders show the masked one.
    fn open(&self, ex: &mut Exchange, name: Arc<str>, secret: &str, rest: &str) -> Flow {
        ex.original.uri = masked(&ex.original.uri, secret);
        ex.vouched = Some(name);
        for field in CREDENTIALS.iter().chain(&OVERRIDES) {
            ex.headers.remove(field);
        }
        // The log has its own copy of what came.
        ex.log.secret_headers.push(header::REFERER);
        let flow = self.enter(ex, rest);
        if is_inference(&ex.method, rest) {
            return flow;
        }
        let refusal = Refusal { message: "404 page not found".into(), ..Refusal::default() };
        Flow::Fail(HandlerError::refusal(404, MOUNT_HANDLER.id, refusal))
    }

    fn enter(&self, ex: &mut Exchange, rest: &str) -> Flow {
        ex.mounted = Some(self.number);
        if Endpoint::of(rest).is_some() || rest.starts_with("/api/") {
            ex.dialect = Some(Dialect::Ollama);
        }
        match with_path(&ex.uri, rest) {
            Some(uri) => {
                ex.uri = uri;
                Flow::Next
            }
            // Part of a valid target is valid: not reached.
            None => Flow::Fail(HandlerError::new(400, MOUNT_HANDLER.id, "the path cannot be read")),
        }
    }
}

/// The path with one slash in front: clients join a base that ends in a slash with a path that begins with one.
fn single_slash(rest: &str) -> &str {
    let bare = rest.trim_start_matches('/');
    if bare.is_empty() { "/" } else { &rest[rest.len() - bare.len() - 1..] }
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.ok().map(Uri::from)
}

/// The target with the secret's part of the path replaced.
fn masked(uri: &Uri, secret: &str) -> Uri {
    let part = |part| if part == secret { REDACTED } else { part };
    let path = uri.path().split('/').map(part).collect::<Vec<_>>().join("/");
    with_path(uri, &path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::testing::{compile, exchange, step};
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn run(method: &str, target: &str) -> (Flow, Exchange) {
        let mut ex = exchange(method, target);
        for name in CREDENTIALS.iter().chain(&OVERRIDES) {
            ex.headers.insert(name, http::HeaderValue::from_static("from-the-client"));
        }
        let mount = json!({"handler": "ollama_mount", "mount": 3, "path": "/ollama",
            "secrets": [{"name": "copilot", "path": SECRET}]});
        let flow = step(mount).run(&mut ex);
        (flow, ex)
    }

    #[test]
    fn the_mounts_path_is_taken_off() {
        for (target, inside) in [
            ("/ollama", "/"),
            ("/ollama/", "/"),
            ("/ollama/api/tags?x=1", "/api/tags?x=1"),
            ("/ollama//api/tags", "/api/tags"),
            ("/ollama/v1/models/a%2Fb", "/v1/models/a%2Fb"),
        ] {
            let (flow, ex) = run("GET", target);
            assert!(matches!(flow, Flow::Next), "{target}");
            assert_eq!((ex.uri.to_string().as_str(), ex.mounted), (inside, Some(3)), "{target}");
            assert_eq!(ex.original.uri, target);
            assert!(ex.vouched.is_none());
            assert!(ex.headers.contains_key("authorization"));
        }
    }

    #[test]
    fn other_paths_stay_as_they_are() {
        for target in ["/", "/api/tags", "/v1/models", "/ollamax/api/tags", "/ollama/metrics", "/ollama/api/users"] {
            let (flow, ex) = run("GET", target);
            assert!(matches!(flow, Flow::Next));
            assert_eq!((ex.uri.to_string().as_str(), ex.mounted), (target, None));
            assert!(ex.dialect.is_none());
        }
    }

    #[test]
    fn a_secret_stands_for_its_token_and_is_gone() {
        let (flow, ex) = run("POST", &format!("/{SECRET}/v1/chat/completions?a=b"));
        assert!(matches!(flow, Flow::Next));
        assert_eq!(ex.vouched.as_deref(), Some("copilot"));
        assert_eq!(ex.uri, "/v1/chat/completions?a=b");
        assert!(ex.log.secret_headers.contains(&header::REFERER));
        assert_eq!(ex.original.uri, "/REDACTED/v1/chat/completions?a=b");
        assert!(ex.dialect.is_none());
        for name in CREDENTIALS.iter().chain(&OVERRIDES) {
            assert!(!ex.headers.contains_key(name), "{name}");
        }
        let escaped = SECRET.replace('f', "%66");
        for target in [format!("//{SECRET}/api/tags"), format!("/{escaped}/api/tags")] {
            let (_, ex) = run("GET", &target);
            assert_eq!((ex.vouched.as_deref(), ex.uri.path()), (Some("copilot"), "/api/tags"), "{target}");
            assert!(ex.original.uri.path().ends_with("/REDACTED/api/tags"), "{}", ex.original.uri);
        }
        let (_, ex) = run("GET", &format!("/{SECRET}"));
        assert_eq!((ex.uri.path(), ex.dialect), ("/", Some(Dialect::Ollama)));
    }

    #[test]
    fn a_secret_opens_only_inference() {
        for target in ["/v1/files", "/v1/models/..%2ffiles", "/metrics", "/api/pull", "/v1/models/../../metrics"] {
            let (flow, ex) = run("GET", &format!("/{SECRET}{target}"));
            let Flow::Fail(error) = flow else { panic!("{target} passed") };
            assert_eq!(error.status, 404, "{target}");
            assert!(!format!("{error:?} {:?} {:?}", ex.uri, ex.original).contains(SECRET));
        }
    }

    #[test]
    fn a_secret_within_a_longer_path_is_masked_in_the_original_too() {
        let uri: Uri = format!("/team/{SECRET}/api/tags").parse().unwrap();
        assert_eq!(masked(&uri, SECRET), "/team/REDACTED/api/tags");
    }

    #[test]
    fn a_mount_that_cannot_be_is_refused() {
        for (path, code) in [("ollama", "invalid-mount-path"), ("/", "invalid-mount-path")] {
            let mount = json!({"handler": "ollama_mount", "path": path});
            assert_eq!(compile(mount).err().map(|e| e.code), Some(code), "{path}");
        }
    }
}
