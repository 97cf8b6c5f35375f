//! The directive from words to answers.

use std::time::Instant;

use http::HeaderMap;
use serde_json::{Value, json};

use crate::base::body::Body;
use crate::base::env::Env;
use crate::config::compile_cx::CompileCx;
use crate::config::expand::load_text;
use crate::config::resolve::resolve;
use crate::http::exchange::{Exchange, Response};
use crate::http::handler::Flow;
use crate::http::route::Handler;
use crate::http::walker::{Outcome, run};
use crate::modules::REGISTRY;
use crate::modules::testing::{block_on, compile, exchange, handlers};

fn limit(zones: Value) -> Value {
    json!({"handler": "rate_limit", "rate_limits": zones})
}

/// What the handler says to a request: `None` to go on.
fn ask(handler: &Handler, ex: &mut Exchange) -> Option<u16> {
    let flow = match handler {
        Handler::Step(step) => step.run(ex),
        Handler::Async(handler) => block_on(handler.call(ex)),
        _ => panic!("neither"),
    };
    match flow {
        Flow::Next => None,
        Flow::Fail(error) => Some(error.status),
        _ => panic!("answers"),
    }
}

/// The answer of a list of handlers to a request.
fn answer(configs: Vec<Value>, ex: &mut Exchange) -> Response {
    match block_on(run(&handlers(configs), None, ex)) {
        Outcome::Response(response) => response,
        Outcome::Abort => panic!("aborts"),
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn post(path: &str, body: &'static str) -> Exchange {
    let mut ex = exchange("POST", path);
    ex.headers.insert("content-type", "application/json".parse().unwrap());
    ex.body = Body::from(body);
    ex
}

#[test]
fn plain_zones_answer_as_the_plugin_does() {
    let zones = json!({"plain": {"key": "static", "window": "1m", "max_events": 1}});
    let first = answer(vec![limit(zones.clone())], &mut exchange("GET", "/"));
    assert_eq!((first.status().as_u16(), field(first.headers(), "x-ratelimit-limit-requests")), (200, None));
    // A handler that takes the other's place finds its count.
    let kept = compile(limit(zones.clone())).unwrap();
    assert_eq!(ask(&kept, &mut exchange("GET", "/")), None, "nobody held the first zone");
    let mut ex = exchange("GET", "/");
    let refused = answer(vec![limit(zones)], &mut ex);
    assert_eq!(refused.status(), 429);
    assert_eq!(field(refused.headers(), "retry-after"), Some("60"));
    assert_eq!((field(refused.headers(), "retry-after-ms"), refused.body().is_empty()), (None, true));
    let zone = crate::http::placeholder::lookup("http.rate_limit.exceeded.name", &ex).unwrap();
    assert_eq!(zone, "plain");
}

#[test]
fn the_caller_is_told_in_its_dialect() {
    let zones = json!({"told": {"window": "1h", "max_events": 2, "headers": true}});
    let config = limit(zones);
    let _kept = compile(config.clone()).unwrap();
    let response = answer(vec![config.clone()], &mut post("/v1/chat/completions", "{}"));
    let headers = response.headers();
    assert_eq!(field(headers, "x-ratelimit-limit-requests"), Some("2"));
    assert_eq!(field(headers, "x-ratelimit-remaining-requests"), Some("1"));
    assert_eq!(field(headers, "x-ratelimit-reset-requests"), Some("1h0m0s"));
    answer(vec![config.clone()], &mut post("/v1/chat/completions", "{}"));
    let refused = answer(vec![config], &mut post("/v1/chat/completions", "{}"));
    let headers = refused.headers();
    assert_eq!((refused.status().as_u16(), field(headers, "retry-after")), (429, Some("3600")));
    assert_eq!(field(headers, "x-should-retry"), Some("false"), "nobody waits an hour");
    assert!(field(headers, "retry-after-ms").unwrap().parse::<u64>().unwrap() > 3_599_000);
    let Body::Full(body) = refused.body() else { panic!("no body") };
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!("requests"), &json!("rate_limit_exceeded")));
    assert!(body["error"]["message"].as_str().unwrap().starts_with("Rate limit reached: 2 requests per 1h0m0s."));
}

#[test]
fn all_zones_must_let_it_pass_and_the_fastest_is_asked_first() {
    let zones = json!({
        "a-slow": {"key": "x", "window": "1h", "max_events": 3},
        "b-fast": {"key": "x", "window": "1m", "max_events": 2},
        "c-posts": {"key": "x", "window": "1m", "max_events": 1, "match": [{"method": ["POST"]}]},
    });
    let handler = compile(limit(zones)).unwrap();
    assert_eq!(ask(&handler, &mut exchange("POST", "/")), None);
    let mut second = exchange("POST", "/");
    assert_eq!(ask(&handler, &mut second), Some(429));
    // It was counted by the zone that came before the one that refused it.
    let mut third = exchange("GET", "/");
    assert_eq!(ask(&handler, &mut third), Some(429));
    let named =
        |ex: &Exchange| crate::http::placeholder::lookup("http.rate_limit.exceeded.name", ex).unwrap().into_owned();
    assert_eq!((named(&second), named(&third)), ("c-posts".to_owned(), "b-fast".to_owned()));
}

#[test]
fn addresses_of_one_network_are_one_key() {
    let zones = json!({"nets": {"key": "{http.request.header.X-Ip}", "window": "1h", "max_events": 1,
        "ipv4_prefix": 24, "ipv6_prefix": 64}});
    let handler = compile(limit(zones)).unwrap();
    let from = |ip: &str| {
        let mut ex = exchange("GET", "/");
        ex.headers.insert("x-ip", ip.parse().unwrap());
        ask(&handler, &mut ex)
    };
    assert_eq!((from("10.0.0.1"), from("10.0.0.99"), from("10.0.1.1")), (None, Some(429), None));
    assert_eq!((from("2001:db8::1"), from("2001:db8::ffff:1"), from("2001:db8:0:1::1")), (None, Some(429), None));
    assert_eq!((from("no address"), from("no address"), from("another")), (None, Some(429), None));
    let long = "k".repeat(1 << 20);
    assert_eq!((from(&long), from(&long), from(&long[1..])), (None, Some(429), None));
}

#[test]
fn open_requests_count_until_their_answer_has_ended() {
    let handler = compile(limit(json!({"open": {"key": "x", "max_concurrent": 2}}))).unwrap();
    let (mut first, mut second, mut third) = (exchange("GET", "/"), exchange("GET", "/"), exchange("GET", "/"));
    assert_eq!((ask(&handler, &mut first), ask(&handler, &mut second)), (None, None));
    assert_eq!(ask(&handler, &mut third), Some(429));
    // The client of the first leaves before there is an answer.
    drop(first);
    assert_eq!(ask(&handler, &mut third), None);
    // The second is answered, and its body goes on.
    let mut response = Response::new(Body::from("text"));
    while let Some(stage) = second.stages.pop() {
        if let crate::http::stage::Stage::Sync(stage) = stage {
            stage.apply(&mut second, &mut response);
        }
    }
    drop(second);
    assert_eq!(ask(&handler, &mut exchange("GET", "/")), Some(429));
    let body = block_on(http_body_util::BodyExt::collect(response.into_body())).unwrap().to_bytes();
    assert_eq!(body, "text");
    assert_eq!(ask(&handler, &mut exchange("GET", "/")), None);
}

#[test]
fn a_zone_that_refuses_gives_back_what_others_took() {
    let zones = json!({
        "give-open": {"key": "x", "window": "1h", "max_events": 1000, "max_concurrent": 1, "max_tokens": 100_000},
        "give-events": {"key": "x", "window": "1h", "max_events": 1},
    });
    let handler = compile(limit(zones)).unwrap();
    let call = || post("/v1/chat/completions", r#"{"model":"m","max_tokens":60000,"messages":[]}"#);
    let mut first = call();
    assert_eq!(ask(&handler, &mut first), None);
    drop(first);
    for _ in 0..3 {
        let mut ex = call();
        assert_eq!(ask(&handler, &mut ex), Some(429));
        let zone = crate::http::placeholder::lookup("http.rate_limit.exceeded.name", &ex).unwrap();
        assert_eq!(zone, "give-events", "its place and its tokens were given back");
    }
}

#[test]
fn tokens_are_set_aside_before_the_call() {
    let zones = json!({"budgeted": {"key": "x", "window": "1h", "max_tokens": 5000}});
    let handler = compile(limit(zones)).unwrap();
    let call = |body| post("/v1/chat/completions", body);
    let mut first = call(r#"{"model":"m","max_tokens":4000,"messages":[]}"#);
    assert_eq!(ask(&handler, &mut first), None);
    assert_eq!(ask(&handler, &mut call(r#"{"model":"m","max_tokens":4000,"messages":[]}"#)), Some(429));
    // Lists of models take none.
    assert_eq!(ask(&handler, &mut exchange("GET", "/v1/models")), None);
    drop(first);
    // One whose answer might be longer than all that is allowed goes when nothing else does.
    let mut long = call(r#"{"model":"m","max_tokens":400000,"messages":[]}"#);
    assert_eq!(ask(&handler, &mut long), None);
    assert_eq!(ask(&handler, &mut call(r#"{"model":"m","max_tokens":1,"messages":[]}"#)), Some(429));
}

#[test]
fn the_model_is_a_key() {
    let zones = json!({"models": {"key": "{llm.model}", "window": "1h", "max_events": 1}});
    let handler = compile(limit(zones)).unwrap();
    let asking = |body| {
        let mut ex = post("/v1/chat/completions", body);
        ex.body = Body::stream(ex.body.take());
        ask(&handler, &mut ex)
    };
    let answers = (asking(r#"{"model":"a"}"#), asking(r#"{"model":"b"}"#), asking(r#"{"model":"a"}"#));
    assert_eq!(answers, (None, None, Some(429)));
}

#[test]
fn a_burst_waits_for_its_turn() {
    let handler = compile(limit(json!({"rate": {"key": "x", "rate": "20r/s", "burst": 2}}))).unwrap();
    let begun = Instant::now();
    let times: Vec<_> = (0..3)
        .map(|_| {
            assert_eq!(ask(&handler, &mut exchange("GET", "/")), None);
            begun.elapsed().as_millis()
        })
        .collect();
    assert!(times[1] >= 50 && times[2] >= 100, "{times:?}");
    let handler =
        compile(limit(json!({"at-once": {"key": "x", "rate": "1r/h", "burst": 2, "nodelay": true}}))).unwrap();
    assert!(matches!(handler, Handler::Step(_)), "nothing to wait for");
    let answers: Vec<_> = (0..4).map(|_| ask(&handler, &mut exchange("GET", "/"))).collect();
    assert_eq!(answers, [None, None, None, Some(429)]);
}

/// The JSON of a site's routes.
fn adapted(body: &str) -> Vec<String> {
    let text = format!("http://a.test {{\n{body}\n}}\n");
    let loaded = load_text("example", &text, &Env::empty(), &|name| REGISTRY.directive(name).is_some());
    let resolved = resolve(&loaded.file, &loaded.sources, &REGISTRY);
    assert!(resolved.diagnostics.iter().all(|d| !d.is_error()), "{:?}", resolved.diagnostics);
    let routes = &resolved.config.apps.http.as_ref().unwrap().servers["srv0"].routes;
    let site = &routes[0].handlers[0]["routes"];
    let handlers = site.as_array().unwrap().iter().flat_map(|route| route["handle"].as_array().unwrap());
    handlers.map(ToString::to_string).collect()
}

#[test]
fn the_json_is_the_plugins() {
    let body = "rate_limit {\n\tzone z {\n\t\tmatch {\n\t\t\tmethod GET\n\t\t}\n\t\tkey {remote_host}\n\t\twindow 5s\n\t\tevents 2\n\t\tipv6_prefix 64\n\t}\n\tjitter 0.5\n\tsweep_interval 2m\n\tlog_key\n\tdistributed {\n\t\tread_interval 1s\n\t}\n}";
    let expected = json!({"handler": "rate_limit", "jitter": 0.5, "log_key": true, "sweep_interval": 120_000_000_000_i64,
        "distributed": {"read_interval": 1_000_000_000},
        "rate_limits": {"z": {"key": "{http.request.remote.host}", "match": [{"method": ["GET"]}], "max_events": 2,
        "window": 5_000_000_000_i64, "ipv6_prefix": 64}}});
    let [only] = adapted(body).try_into().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&only).unwrap(), expected);
}

#[test]
fn zones_that_ask_who_run_behind_access_control() {
    let zones = "rate_limit {\n\tzone ip {\n\t\tkey {client_ip}\n\t\tconcurrent 1\n\t}\n\tzone who {\n\t\tkey {auth.id}\n\t\tconcurrent 1\n\t}\n}\nrespond ok\nauth_token a-good-token-for-tests\nmodel_alias a b";
    let order: Vec<String> = adapted(zones)
        .iter()
        .map(|text| {
            let handler: Value = serde_json::from_str(text).unwrap();
            let zones = handler["rate_limits"].as_object().map(|zones| zones.keys().cloned().collect::<String>());
            zones.unwrap_or_else(|| handler["handler"].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(order, ["ip", "auth_token", "who", "model_alias", "static_response"]);
}

#[test]
fn json_with_limits_that_make_no_sense_is_refused() {
    for (zones, code) in [
        (json!({}), "incomplete-zone"),
        (json!({"a": {"window": "1m", "max_events": 0}}), "invalid-limit"),
        (json!({"a": {"window": -1, "max_events": 1}}), "invalid-limit"),
        (json!({"a": {"max_events": 1}}), "incomplete-zone"),
        (json!({"a": {"window": "1m"}}), "incomplete-zone"),
        (json!({"a": {"max_concurrent": 1, "burst": 5}}), "invalid-rate"),
        (json!({"a": {"rate": "1r/s", "burst": 5, "nodelay": true, "delay": 2}}), "invalid-rate"),
        (json!({"a": {"rate": "1r/s", "max_keys": 0}}), "invalid-limit"),
        (json!({"a": {"window": "1m", "events": 1}}), "invalid-json-config"),
    ] {
        let error = compile(limit(zones.clone())).err().unwrap();
        assert_eq!(error.code, code, "{zones}");
    }
    let mut cx = CompileCx::new(&REGISTRY);
    let both = json!([{"handle": [limit(json!({"a": {"max_events": 1}, "b": {"max_concurrent": -1}}))]}]);
    cx.compile_routes(&serde_json::from_value::<Vec<crate::config::types::Route>>(both).unwrap());
    let told: Vec<_> = cx.errors.iter().map(|error| (error.code, error.pointer.as_str())).collect();
    assert_eq!(
        told,
        [
            ("incomplete-zone", "/0/handle/0/rate_limits/a"),
            ("invalid-limit", "/0/handle/0/rate_limits/b/max_concurrent")
        ]
    );
}
