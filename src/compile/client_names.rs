//! Names that handlers want client certificates for (`tls_client_auth NAME`): they are obtained and renewed as those of
//! sites are. Certificates are planned before handlers are compiled, so the names are looked for in the configuration.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::types::Config;

const FIELD: &str = "client_certificate_automate";

/// In lower case, each once.
pub fn of(config: &Config) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for server in config.apps.http.iter().flat_map(|http| http.servers.values()) {
        let errors = server.errors.iter().flat_map(|errors| &errors.routes);
        for route in server.routes.iter().chain(errors).chain(server.named_routes.values()) {
            for handler in &route.handlers {
                handler.values().for_each(|value| look(value, &mut names));
            }
        }
    }
    names
}

fn look(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|name| key == FIELD && !name.is_empty()) {
                    Some(name) => drop(names.insert(name.to_ascii_lowercase())),
                    None => look(value, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| look(item, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_found_however_deep() {
        let transport = |name: &str| json!({"protocol": "http", "tls": {FIELD: name}});
        let proxy = |name: &str| json!({"handler": "reverse_proxy", "transport": transport(name)});
        let routes = json!([
            {"handle": [proxy("One.test"), {"handler": "subroute", "routes": [{"handle": [proxy("two.test")]}]}]},
            {"handle": [proxy("one.test"), proxy("")]},
        ]);
        let config = json!({"apps": {"http": {"servers": {"s": {"routes": routes}}}}});
        let found = of(&serde_json::from_value(config).unwrap());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["one.test", "two.test"]);
    }
}
