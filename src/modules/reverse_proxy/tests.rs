//! What compiles and what is refused by name. The directive's JSON is checked by the golden cases.

use serde_json::{Value, json};

use crate::config::compile_cx::CompileCx;
use crate::modules::REGISTRY;
use crate::modules::testing::compile;

fn with(extra: Value) -> Value {
    let mut config = json!({ "handler": "reverse_proxy", "upstreams": [{ "dial": "127.0.0.1:1" }] });
    for (key, value) in extra.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn what_cannot_run_is_refused_by_name_and_place() {
    for (config, pointer) in [
        (json!({ "dynamic_upstreams": { "source": "consul" } }), "/dynamic_upstreams"),
        (
            json!({ "health_checks": { "active": { "uri": "/h", "upstream": "{http.request.host}:1" } } }),
            "/health_checks/active/upstream",
        ),
        (json!({ "transport": { "protocol": "fastcgi" } }), "/transport"),
        (json!({ "transport": { "protocol": "http", "versions": ["3"] } }), "/transport/versions"),
        (json!({ "transport": { "protocol": "http", "tls": { "ca": { "provider": "http" } } } }), "/transport/tls/ca"),
        (
            json!({ "transport": { "protocol": "http", "tls": { "renegotiation": "once" } } }),
            "/transport/tls/renegotiation",
        ),
        (json!({ "circuit_breaker": { "type": "simple" } }), "/circuit_breaker"),
    ] {
        let error = compile(with(config.clone())).err().unwrap();
        assert_eq!((error.code, error.pointer.as_str()), ("not-supported-yet", pointer), "{config}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (config, code, pointer) in [
        (
            json!({ "upstreams": [{ "dial": "a:1" }, { "dial": "nonsense" }] }),
            "invalid-upstream-address",
            "/upstreams/1/dial",
        ),
        (json!({ "trusted_proxies": ["10.0.0.0/8", "x"] }), "invalid-value", "/trusted_proxies/1"),
        (
            json!({ "load_balancing": { "selection_policy": { "policy": "nonsense" } } }),
            "unknown-module",
            "/load_balancing/selection_policy",
        ),
        (
            json!({ "load_balancing": { "selection_policy": { "policy": "random_choose", "choose": 1 } } }),
            "invalid-value",
            "/load_balancing/selection_policy/choose",
        ),
        (
            json!({ "upstreams": [{ "dial": "a:1", "weight": 2 }], "load_balancing": { "selection_policy": { "policy": "first" } } }),
            "contradicting-options",
            "/upstreams/0/weight",
        ),
        (json!({ "upstreams": [{ "dial": "a:1", "scheme": "ftp" }] }), "invalid-value", "/upstreams/0/scheme"),
        (
            json!({ "upstreams": [{ "dial": "a:1", "headers": { "request": { "set": { "a b": ["x"] } } } }] }),
            "invalid-header-field",
            "/upstreams/0/headers/request",
        ),
        (
            json!({ "transport": { "protocol": "http", "resolver": { "addresses": ["1.1.1.1", "dns.test"] } } }),
            "invalid-value",
            "/transport/resolver/addresses/1",
        ),
        (json!({ "dynamic_upstreams": { "source": "a" } }), "missing-option", "/dynamic_upstreams/name"),
        (
            json!({ "dynamic_upstreams": { "source": "multi", "sources": [
                { "source": "srv", "name": "x", "resolver": { "addresses": ["nonsense"] } }
            ] } }),
            "invalid-value",
            "/dynamic_upstreams/sources/0/resolver/addresses/0",
        ),
        (
            json!({ "dynamic_upstreams": { "source": "a", "name": "x", "port": "http" } }),
            "invalid-value",
            "/dynamic_upstreams/port",
        ),
        (json!({ "nonsense": 1 }), "invalid-json-config", ""),
        (json!({ "circuit_breaker": {} }), "missing-module-id", "/circuit_breaker"),
        (json!({ "circuit_breaker": { "type": "window", "ratio": 2.0 } }), "invalid-value", "/circuit_breaker/ratio"),
        (
            json!({ "transport": { "protocol": "http", "local_address": "here" } }),
            "invalid-value",
            "/transport/local_address",
        ),
        (
            json!({ "transport": { "protocol": "http", "proxy_protocol": "v3" } }),
            "invalid-value",
            "/transport/proxy_protocol",
        ),
        (json!({ "sse_keepalive": "100ms" }), "invalid-value", "/sse_keepalive"),
        (
            json!({ "health_checks": { "active": { "uri": "/h", "expect_body": "(" } } }),
            "invalid-regexp",
            "/health_checks/active/expect_body",
        ),
        (
            json!({ "health_checks": { "active": { "uri": "/h", "headers": { "a b": ["c"] } } } }),
            "invalid-value",
            "/health_checks/active/headers",
        ),
        (
            json!({ "upstreams": [{ "dial": "unix//x.sock" }], "health_checks": { "active": { "port": 9 } } }),
            "invalid-upstream-address",
            "/health_checks/active/port",
        ),
        (
            json!({ "transport": { "protocol": "http", "tls": { "client_certificate_file": "/nowhere/c.pem" } } }),
            "unreadable-file",
            "/transport/tls/client_certificate_file",
        ),
    ] {
        let error = compile(with(config.clone())).err().unwrap();
        assert_eq!((error.code, error.pointer.as_str()), (code, pointer), "{config}");
    }
}

#[test]
fn an_idle_health_option_does_not_stop_a_configuration() {
    assert!(compile(with(json!({ "health_checks": { "active": { "interval": 5 } } }))).is_ok());
    for transport in [
        json!({ "proxy_protocol": "v2", "total_timeout": "10m", "local_address": "127.0.0.9:0" }),
        json!({ "tls": { "server_name": "{http.request.host}", "client_certificate_automate": "a.test" } }),
        json!({ "tls": { "ca": { "provider": "pki_root", "authority": ["local"] } } }),
        json!({ "tls": { "ca": { "provider": "combined", "sources": [{ "provider": "system" }] } } }),
        json!({ "tls": { "renegotiation": "never", "curves": ["x25519"] }, "expect_continue_timeout": "1s" }),
    ] {
        let mut transport = transport;
        transport["protocol"] = "http".into();
        assert!(compile(with(json!({ "transport": transport.clone() }))).is_ok(), "{transport}");
    }
    assert!(compile(with(json!({ "flush_interval": -1, "stream_close_delay": "5m" }))).is_ok());
}

#[test]
fn an_upstream_that_cannot_be_checked_is_told() {
    let advice = |config: Value| {
        let Value::Object(module) = with(config) else { panic!() };
        let mut cx = CompileCx::new(&REGISTRY);
        assert!((super::HANDLER.compile)(&module, &mut cx).is_ok());
        let told: Vec<_> = cx.advice.iter().map(|a| (a.code, a.pointer.clone())).collect();
        (told, cx.background.len())
    };
    let check = json!({ "active": { "uri": "/h" } });
    assert_eq!(advice(json!({ "health_checks": check })), (vec![], 1));
    let idle = advice(json!({ "health_checks": { "active": { "interval": "5s" } } }));
    assert_eq!(idle, (vec![("health-check-not-made", "/health_checks/active".into())], 0));
    let upstreams = json!([{ "dial": "{http.request.host}:80" }, { "dial": "a.test:80" }]);
    let mixed = advice(json!({ "health_checks": check, "upstreams": upstreams }));
    assert_eq!(mixed, (vec![("health-check-not-made", "/upstreams/0".into())], 1));
}

#[test]
fn a_check_is_the_same_work_until_something_of_it_changes() {
    let identity = |active: Value| {
        let Value::Object(module) = with(json!({ "health_checks": { "active": active } })) else { panic!() };
        let mut cx = CompileCx::new(&REGISTRY);
        // The engine holds the state, as it does while it runs.
        let engine = (super::HANDLER.compile)(&module, &mut cx);
        (cx.background[0].identity().to_owned(), engine)
    };
    let (first, _engine) = identity(json!({ "uri": "/h", "headers": { "X-Key": ["one"] } }));
    assert_eq!(identity(json!({ "uri": "/h", "headers": { "X-Key": ["one"] }, "method": "GET" })).0, first);
    for other in [
        json!({ "uri": "/h", "headers": { "X-Key": ["two"] } }),
        json!({ "uri": "/h", "headers": { "X-Key": ["one"] }, "interval": "7s" }),
        json!({ "uri": "/i", "headers": { "X-Key": ["one"] } }),
        json!({ "uri": "/h", "headers": { "X-Key": ["one"] }, "expect_body": "ok" }),
    ] {
        assert_ne!(identity(other.clone()).0, first, "{other}");
    }
}
