//! Advice about a configuration that is valid but probably not what was meant.
//!
//! Every warning has a code, so that it can be explained and found; none changes what the configuration does.

mod keys_in_clear;
mod ollama;
mod upstreams;

use serde_json::Value;

use super::address::ListenAddr;
use crate::base::diagnostic::Diagnostic;
use crate::base::span::{SourceMap, Span};
use crate::config::types::{Config, Server};

/// Finds the line of a JSON pointer.
pub type Place<'a> = &'a dyn Fn(&str) -> Option<Span>;

/// All warnings for a configuration that compiles.
pub fn check(config: &Config, sources: &SourceMap, place: Place<'_>) -> Vec<Diagnostic> {
    let mut found = keys_in_clear::check(sources);
    let Some(http) = &config.apps.http else { return found };
    for (name, server) in &http.servers {
        let Ok(value) = serde_json::to_value(&server.routes) else { continue };
        let pointer = format!("/apps/http/servers/{name}/routes");
        found.extend(ollama::secrets(&value, &pointer, place));
        let mut walk = Walk { place, found: &mut found, outside: reachable_from_outside(server), partly: false };
        walk.list(&value, &pointer, mutual_tls(server));
    }
    found
}

/// Whether any address of the server is more than loopback or a unix socket.
fn reachable_from_outside(server: &Server) -> bool {
    server.listen.iter().any(|text| {
        ListenAddr::parse(text).is_ok_and(|all| {
            all.iter().any(|a| match a {
                ListenAddr::Tcp { ip, .. } => ip.is_none_or(|ip| !ip.is_loopback()),
                ListenAddr::Unix { .. } => false,
                ListenAddr::Fd(_) => true,
            })
        })
    })
}

fn mutual_tls(server: &Server) -> bool {
    server.tls_connection_policies.iter().any(|p| p.get("client_authentication").is_some())
}

/// Goes through the routes in running order, knowing whether access was controlled by then.
struct Walk<'a, 'f> {
    place: Place<'a>,
    found: &'f mut Vec<Diagnostic>,
    outside: bool,
    /// Access control that is bound to some paths stands before.
    partly: bool,
}

impl Walk<'_, '_> {
    /// A list of routes; says whether what comes after it is guarded.
    fn list(&mut self, routes: &Value, pointer: &str, mut guarded: bool) -> bool {
        let partly = self.partly;
        let mut guards: Vec<&Value> = Vec::new();
        for (i, route) in routes.as_array().into_iter().flatten().enumerate() {
            let matched = route.get("match").is_some();
            let inside = guarded || route.get("match").is_some_and(limits_callers);
            let after = self.handlers(route, &format!("{pointer}/{i}"), inside);
            // A guard behind a matcher guards only its own route, unless it is a refusal: `respond @bad 401`.
            guarded |= if matched { refuses(route) } else { after };
            // Two guards for the two halves of all requests: `jwt_auth @person` and `auth_token @program`.
            if let Some(sets) = route.get("match").filter(|_| has_guard(route)) {
                guarded |= guards.iter().any(|other| is_not(sets, other) || is_not(other, sets));
                guards.push(sets);
            }
            self.partly |= matched && after && !inside && by_path(route);
        }
        self.partly = partly;
        guarded
    }

    fn handlers(&mut self, route: &Value, pointer: &str, mut guarded: bool) -> bool {
        for (i, handler) in route.get("handle").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let pointer = format!("{pointer}/handle/{i}");
            match handler.get("handler").and_then(Value::as_str).unwrap_or("") {
                "subroute" => {
                    let routes = handler.get("routes").unwrap_or(&Value::Null);
                    guarded = self.list(routes, &format!("{pointer}/routes"), guarded);
                }
                "auth_token" | "jwt_auth" | "authentication" => guarded = true,
                "ollama_compat" if self.partly && !guarded => {
                    self.found.push(ollama::past_guard(&pointer, self.place));
                }
                "reverse_proxy" => {
                    // With a rewritten GET and response routes it is a `forward_auth`.
                    if handler.get("handle_response").is_some() && handler.get("rewrite").is_some() {
                        guarded = true;
                    } else {
                        self.found.extend(upstreams::check(handler, self.outside && !guarded, (self.place)(&pointer)));
                    }
                }
                _ => {}
            }
        }
        guarded
    }
}

fn has_guard(route: &Value) -> bool {
    let kinds = route.get("handle").and_then(Value::as_array).into_iter().flatten().filter_map(|h| h.get("handler"));
    kinds.filter_map(Value::as_str).any(|kind| matches!(kind, "auth_token" | "jwt_auth" | "authentication"))
}

/// The sets of one matcher are `not` all of those of the other, and nothing else.
fn is_not(sets: &Value, others: &Value) -> bool {
    let only = sets.as_array().filter(|sets| sets.len() == 1).and_then(|sets| sets[0].as_object());
    only.is_some_and(|m| m.len() == 1 && m.get("not") == Some(others))
}

/// Whether the route is bound to some paths.
fn by_path(route: &Value) -> bool {
    let sets = route.get("match").and_then(Value::as_array);
    sets.is_some_and(|sets| sets.iter().all(|set| set.get("path").is_some() || set.get("path_regexp").is_some()))
}

/// Matchers that let only some callers through: addresses, or a credential compared by hand.
fn limits_callers(sets: &Value) -> bool {
    let credential = |v: &Value| {
        v.as_object()
            .is_some_and(|m| m.keys().any(|k| upstreams::KEY_HEADERS.contains(&k.to_ascii_lowercase().as_str())))
    };
    sets.as_array().into_iter().flatten().all(|set| {
        set.as_object().is_some_and(|m| {
            m.iter().any(|(kind, value)| match kind.as_str() {
                "remote_ip" | "client_ip" | "expression" => true,
                "header" | "header_regexp" => credential(value),
                _ => false,
            })
        })
    })
}

/// A route that answers 401 or 403, raises an error or closes: what its matcher names does not get further.
fn refuses(route: &Value) -> bool {
    fn handler_refuses(handler: &Value) -> bool {
        let status = handler.get("status_code").map(|s| s.to_string().trim_matches('"').to_owned());
        match handler.get("handler").and_then(Value::as_str) {
            Some("static_response") => {
                handler.get("abort").is_some() || status.is_some_and(|s| matches!(s.as_str(), "401" | "403" | "404"))
            }
            Some("error") => true,
            Some("subroute") => {
                handler.get("routes").and_then(Value::as_array).is_some_and(|routes| routes.iter().any(refuses))
            }
            _ => false,
        }
    }
    route.get("handle").and_then(Value::as_array).is_some_and(|handlers| handlers.iter().any(handler_refuses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Codes of the warnings for one server with these routes.
    pub(super) fn codes(listen: &str, routes: Value) -> Vec<&'static str> {
        let config = json!({"apps": {"http": {"servers": {"s": {"listen": [listen], "routes": routes}}}}});
        let config: Config = serde_json::from_value(config).unwrap();
        check(&config, &SourceMap::new(), &|_| None).iter().map(|d| d.code).collect()
    }

    fn keyed() -> Value {
        json!({"handler": "reverse_proxy", "upstreams": [{"dial": "10.0.0.1:80"}],
               "headers": {"request": {"set": {"Authorization": ["Bearer x"]}}}})
    }

    #[test]
    fn a_key_given_to_everybody_is_warned_of_only_where_everybody_comes() {
        let open = json!([{"handle": [keyed()]}]);
        assert_eq!(codes(":80", open.clone()), ["open-upstream-key"]);
        assert!(codes("127.0.0.1:80", open).is_empty());
    }

    #[test]
    fn each_way_of_controlling_access_counts() {
        for guard in ["auth_token", "authentication"] {
            let routes = json!([{"handle": [{"handler": guard}]}, {"handle": [keyed()]}]);
            assert!(codes(":80", routes).is_empty(), "{guard}");
        }
        let by_hand = json!([
            {"match": [{"not": [{"header": {"Authorization": ["Bearer t"]}}]}], "handle": [{"handler": "static_response", "status_code": 401}]},
            {"handle": [keyed()]},
        ]);
        assert!(codes(":80", by_hand).is_empty());
        let by_address = json!([{"match": [{"remote_ip": {"ranges": ["10.0.0.0/8"]}}], "handle": [keyed()]}]);
        assert!(codes(":80", by_address).is_empty());
        let nested = json!([{"match": [{"host": ["a"]}], "handle": [{"handler": "subroute", "routes": [
            {"handle": [{"handler": "auth_token"}]}, {"handle": [keyed()]}]}]}]);
        assert!(codes(":80", nested).is_empty());
    }

    #[test]
    fn guards_for_both_halves_guard_everything() {
        let person = json!([{"header": {"Authorization": ["Bearer ey*"]}}]);
        let routes = |other: Value| {
            json!([
                {"match": person, "handle": [{"handler": "jwt_auth"}]},
                {"match": other, "handle": [{"handler": "auth_token"}]},
                {"handle": [keyed()]},
            ])
        };
        assert!(codes(":80", routes(json!([{"not": person}]))).is_empty());
        for gap in [
            json!([{"not": [{"header": {"X-Kind": ["a"]}}]}]),
            json!([{"not": person, "path": ["/a"]}]),
            json!([{"not": [person[0], {"path": ["/a"]}]}]),
        ] {
            assert_eq!(codes(":80", routes(gap.clone())), ["open-upstream-key"], "{gap}");
        }
        let mut unguarded = routes(json!([{"not": person}]));
        unguarded[0]["handle"][0]["handler"] = json!("vars");
        assert_eq!(codes(":80", unguarded), ["open-upstream-key"]);
    }

    #[test]
    fn a_guard_of_one_route_does_not_guard_another() {
        let routes = json!([
            {"match": [{"path": ["/a"]}], "handle": [{"handler": "auth_token"}]},
            {"handle": [keyed()]},
        ]);
        assert_eq!(codes(":80", routes), ["open-upstream-key"]);
    }
}
