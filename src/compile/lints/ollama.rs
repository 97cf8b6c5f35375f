//! Advice about `ollama_compat`: secret paths whose token is not there, and an API that is reached past the access control.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Place;
use crate::base::diagnostic::Diagnostic;

/// Secret paths of the routes of one server that stand for a token that no `auth_token` of their site has.
pub fn secrets(routes: &Value, pointer: &str, place: Place<'_>) -> Vec<Diagnostic> {
    // A site that is not alone is one final route; what is not final belongs together.
    let is_site = |route: &Value| route.get("terminal").and_then(Value::as_bool).unwrap_or(false);
    let mut together = Site::default();
    let mut found = Vec::new();
    for (i, route) in routes.as_array().into_iter().flatten().enumerate() {
        let pointer = format!("{pointer}/{i}");
        if is_site(route) {
            let mut site = Site::default();
            site.route(route, &pointer);
            found.extend(site.advice(place));
        } else {
            together.route(route, &pointer);
        }
    }
    found.extend(together.advice(place));
    found
}

/// Requests for Ollama's paths go past access control that is bound to other paths, and are then what it would have
/// guarded.
pub fn past_guard(pointer: &str, place: Place<'_>) -> Diagnostic {
    let message = "`ollama_compat` is reached without the access control before it, which is bound to other paths";
    let d = Diagnostic::warning("ollama-past-guard", message);
    let d = d.help("let the access control stand without a path, or give it Ollama's paths as well: `/`, `/api/*`");
    match place(pointer) {
        Some(span) => d.at(span, ""),
        None => d,
    }
}

#[derive(Default)]
struct Site {
    /// Names of tokens; `None` when there is no `auth_token`.
    tokens: Option<BTreeSet<String>>,
    /// Tokens in files, whose names are not known here.
    files: bool,
    /// The names that secret paths stand for, with the place of their directive.
    secrets: Vec<(String, String)>,
}

impl Site {
    fn route(&mut self, route: &Value, pointer: &str) {
        for (i, handler) in list(route, "handle").enumerate() {
            self.handler(handler, &format!("{pointer}/handle/{i}"));
        }
    }

    fn handler(&mut self, handler: &Value, pointer: &str) {
        let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
        match handler.get("handler").and_then(Value::as_str) {
            Some("subroute") => {
                for (i, route) in list(handler, "routes").enumerate() {
                    self.route(route, &format!("{pointer}/routes/{i}"));
                }
            }
            Some("auth_token") => {
                let tokens = self.tokens.get_or_insert_default();
                // Those without a name are called by their number.
                tokens.extend((1..=list(handler, "tokens").count()).map(|n| format!("token{n}")));
                tokens.extend(list(handler, "named").filter_map(name));
                self.files |= list(handler, "files").next().is_some();
            }
            Some("ollama_mount") => {
                self.secrets.extend(list(handler, "secrets").filter_map(name).map(|n| (n, pointer.to_owned())));
            }
            _ => {}
        }
    }

    fn advice(self, place: Place<'_>) -> Vec<Diagnostic> {
        let Some(tokens) = self.tokens.filter(|_| !self.files) else { return Vec::new() };
        let absent = self.secrets.into_iter().filter(|(name, _)| !tokens.contains(name));
        let advice = absent.map(|(name, pointer)| {
            let message =
                format!("a secret path stands for the token `{name}`, which no `auth_token` of this site has");
            let d = Diagnostic::warning("secret-without-token", message).help("every request by it is answered 401");
            match place(&pointer) {
                Some(span) => d.at(span, ""),
                None => d,
            }
        });
        advice.collect()
    }
}

fn list<'v>(of: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    of.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::super::tests::codes;
    use serde_json::{Value, json};

    fn mount(name: &str) -> Value {
        json!({"handler": "ollama_mount", "secrets": [{"name": name, "path": "5ecre7-0f-7he-7es7"}]})
    }

    fn routes(handlers: Vec<Value>) -> Value {
        handlers.into_iter().map(|h| json!({"handle": [h]})).collect()
    }

    #[test]
    fn a_secret_path_needs_its_token_where_there_are_tokens() {
        let auth = json!({"handler": "auth_token", "tokens": ["a"], "named": [{"name": "zed", "value": "b"}]});
        for (name, expected) in [("zed", &[][..]), ("token1", &[]), ("token2", &["secret-without-token"])] {
            assert_eq!(codes("127.0.0.1:80", routes(vec![mount(name), auth.clone()])), expected, "{name}");
        }
        let in_files = json!({"handler": "auth_token", "files": ["/f"]});
        assert!(codes("127.0.0.1:80", routes(vec![mount("x"), in_files])).is_empty());
        assert!(codes("127.0.0.1:80", routes(vec![mount("x")])).is_empty());
    }

    #[test]
    fn the_tokens_of_one_site_are_not_those_of_another() {
        let site = |host: &str, handlers: Vec<Value>| json!({"match": [{"host": [host]}], "handle": [{"handler": "subroute", "routes": routes(handlers)}], "terminal": true});
        let auth = json!({"handler": "auth_token", "named": [{"name": "zed", "value": "b"}]});
        let other = json!({"handler": "auth_token", "named": [{"name": "other", "value": "b"}]});
        let two = json!([site("a", vec![auth]), site("b", vec![mount("zed"), other])]);
        assert_eq!(codes("127.0.0.1:80", two), ["secret-without-token"]);
    }

    #[test]
    fn access_control_of_other_paths_does_not_guard_the_translation() {
        let auth = json!({"handler": "auth_token", "tokens": ["a"]});
        let compat = json!({"handle": [{"handler": "ollama_compat"}]});
        let bound = json!([{"match": [{"path": ["/v1/*"]}], "handle": [auth]}, compat]);
        assert_eq!(codes("127.0.0.1:80", bound), ["ollama-past-guard"]);
        let whole = json!([{"handle": [auth]}, compat]);
        assert!(codes("127.0.0.1:80", whole).is_empty());
        assert!(codes("127.0.0.1:80", json!([compat])).is_empty());
    }
}
