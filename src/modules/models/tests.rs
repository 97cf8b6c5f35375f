//! `models` without a network: sources are handlers that answer at once.

use std::sync::Arc;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::base::body::Body;
use crate::http::exchange::{Exchange, User};
use crate::http::handler::Flow;
use crate::http::walker::{Outcome, run, run_nested};
use crate::llm::model_glob::ModelGlobs;
use crate::modules::testing::{exchange, handlers};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::LocalRuntime::new().unwrap().block_on(future)
}

/// A source that lists these ids; `owner` tells it apart.
fn source(owner: &str, ids: &[&str]) -> Value {
    let data: Vec<Value> = ids.iter().map(|id| json!({"id": id, "object": "model", "owned_by": owner})).collect();
    answering(200, &json!({"object": "list", "data": data}).to_string())
}

fn answering(status: u16, body: &str) -> Value {
    json!({"routes": [{"handle": [{"handler": "static_response", "status_code": status, "body": body}]}]})
}

fn models(mut config: Value) -> Value {
    config["handler"] = json!("models");
    config
}

fn alias(from: &str, to: &str) -> Value {
    json!({"handler": "model_alias", "aliases": [{"from": from, "to": to}]})
}

fn upstream(body: &str) -> Value {
    json!({"handler": "static_response", "body": body})
}

/// A caller whose token allows some models.
fn with_rights(ex: &mut Exchange, globs: &[&str]) {
    ex.user = Some(User { models: Some(Arc::new(ModelGlobs::new(globs))), ..User::default() });
}

fn asking(model: &str) -> Exchange {
    let mut ex = exchange("POST", "/v1/chat/completions");
    ex.body = Body::from(json!({"model": model}).to_string());
    ex
}

/// The answer as status and text.
fn answer(configs: Vec<Value>, mut ex: Exchange) -> (u16, String) {
    block_on(async move {
        let Outcome::Response(response) = run(&handlers(configs), None, &mut ex).await else { panic!("aborted") };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    })
}

fn ids((status, text): (u16, String)) -> Vec<String> {
    assert_eq!(status, 200, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

fn code((status, text): (u16, String)) -> (u16, String) {
    let error: Value = serde_json::from_str(&text).unwrap();
    (status, error["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn not_found() -> (u16, String) {
    (404, "model_not_found".to_owned())
}

#[test]
fn sources_are_merged_in_order_and_the_first_of_an_id_counts() {
    let config = models(json!({
        "from": [source("one", &["a", "b"]), source("two", &["b", "c/d:e"])], "models": [{"id": "mine"}],
    }));
    assert_eq!(ids(answer(vec![config.clone()], exchange("GET", "/v1/models"))), ["mine", "a", "b", "c/d:e"]);
    assert_eq!(ids(answer(vec![config.clone()], exchange("GET", "/models/"))), ["mine", "a", "b", "c/d:e"]);
    let (status, one) = answer(vec![config.clone()], exchange("GET", "/v1/models/b"));
    assert_eq!((status, &one[..]), (200, r#"{"id":"b","object":"model","owned_by":"one"}"#));
    assert_eq!(answer(vec![config.clone()], exchange("GET", "/v1/models/c%2Fd:e")).0, 200);
    assert_eq!(answer(vec![config.clone()], exchange("GET", "/v1/models/c/d:e")).0, 200);
    assert_eq!(code(answer(vec![config], exchange("GET", "/v1/models/x"))), not_found());
}

#[test]
fn anthropics_clients_get_their_shape() {
    let mut ex = exchange("GET", "/v1/models");
    ex.headers.insert("anthropic-version", "2023-06-01".parse().unwrap());
    let (_, text) = answer(vec![models(json!({"from": [source("one", &["a"])]}))], ex);
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&list["data"][0]["type"], &list["first_id"]), (&json!("model"), &json!("a")));
}

#[test]
fn a_source_that_fails_is_left_out_and_all_failing_is_an_error() {
    let bad = || [answering(401, "{}"), answering(200, "<html>"), answering(200, "{}")];
    for bad in bad() {
        let config = models(json!({"from": [bad, source("two", &["c"])]}));
        assert_eq!(ids(answer(vec![config], exchange("GET", "/v1/models"))), ["c"]);
    }
    let (status, text) = answer(vec![models(json!({"from": bad()}))], exchange("GET", "/v1/models"));
    assert_eq!(status, 502, "{text}");
    let nothing = json!({"routes": []});
    assert_eq!(answer(vec![models(json!({"from": [nothing]}))], exchange("GET", "/v1/models")).0, 502);
}

#[test]
fn everybody_sees_what_they_may_use() {
    let config = models(json!({"from": [source("one", &["a-1", "a-2", "b"])], "deny": ["*-2"]}));
    assert_eq!(ids(answer(vec![config.clone()], exchange("GET", "/v1/models"))), ["a-1", "b"]);
    let one = |id: &str| {
        let mut ex = exchange("GET", &format!("/v1/models/{id}"));
        with_rights(&mut ex, &["a-*"]);
        answer(vec![config.clone()], ex)
    };
    let mut ex = exchange("GET", "/v1/models");
    with_rights(&mut ex, &["a-*"]);
    assert_eq!(ids(answer(vec![config.clone()], ex)), ["a-1"]);
    assert_eq!(one("a-1").0, 200);
    let unknown = one("zz");
    for hidden in ["a-2", "b"] {
        assert_eq!(code(one(hidden)), not_found());
        assert_eq!(one(hidden).1.len() - hidden.len(), unknown.1.len() - 2, "told apart from an unknown one");
    }
}

#[test]
fn models_that_are_not_offered_may_not_be_asked_for() {
    let ask = |config: Value, model: &str| answer(vec![models(config), upstream("{}")], asking(model));
    let strict = json!({"from": [source("one", &["a", "b"])], "deny": ["b"], "strict": true});
    assert_eq!(ask(strict.clone(), "a").0, 200);
    assert_eq!(ask(strict.clone(), "a:latest").0, 200);
    assert_eq!(code(ask(strict.clone(), "b")), not_found());
    assert_eq!(code(ask(strict, "c")), not_found());
    assert_eq!(code(ask(json!({"allow": ["a*"]}), "c")), not_found());
    assert_eq!(ask(json!({"allow": ["a*"]}), "ab").0, 200);
    assert_eq!(ask(json!({"models": [{"id": "a"}], "strict": true}), "a").0, 200);
    assert_eq!(code(ask(json!({"models": [{"id": "a"}], "strict": true}), "b")), not_found());
    // Nobody knows what there is.
    assert_eq!(ask(json!({"from": [answering(500, "")], "strict": true}), "c").0, 200);
    // Where nobody can look a model may hide.
    let mut packed = asking("c");
    packed.headers.insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(answer(vec![models(json!({"allow": ["a"]})), upstream("")], packed).0, 415);
    // Names no model.
    let files = answer(vec![models(json!({"allow": ["a"]})), upstream("ok")], exchange("GET", "/v1/files"));
    assert_eq!(files, (200, "ok".to_owned()));
}

#[test]
fn models_to_fall_back_on_must_be_offered_too() {
    let ask = |body: &'static str| {
        let mut ex = asking("x");
        ex.body = Body::from(body);
        answer(vec![models(json!({"deny": ["secret-*"]})), upstream("up")], ex).0
    };
    assert_eq!(ask(r#"{"model":"a","models":["b"]}"#), 200);
    assert_eq!(ask(r#"{"model":"a","models":["b","secret-1"]}"#), 404);
}

#[test]
fn aliases_are_listed_with_the_model_they_stand_for() {
    let config = || models(json!({"from": [source("one", &["a", "b"])], "deny": ["never"]}));
    let routes = || vec![alias("fast", "a"), alias("never", "a"), alias("gone", "x"), alias("p*", "a"), config()];
    assert_eq!(ids(answer(routes(), exchange("GET", "/v1/models"))), ["a", "b", "fast"]);
    let (_, one) = answer(routes(), exchange("GET", "/v1/models/fast"));
    assert_eq!(one, r#"{"id":"fast","object":"model","owned_by":"one"}"#);
    let (_, one) = answer(routes(), exchange("GET", "/v1/models/pattern"));
    assert_eq!(one, r#"{"id":"pattern","object":"model","owned_by":"one"}"#);
    assert_eq!(code(answer(routes(), exchange("GET", "/v1/models/never"))), not_found());
    // Rights are to the name that the caller uses.
    let mut ex = exchange("GET", "/v1/models");
    with_rights(&mut ex, &["fast"]);
    assert_eq!(ids(answer(routes(), ex)), ["fast"]);
}

#[test]
fn without_sources_the_answer_of_the_upstream_is_edited() {
    const LIST: &str = r#"{ "object":"list", "data":[ {"id":"a", "x":1.0}, {"id":"b"} ] }"#;
    let list = |config: Value, ex: Exchange| answer(vec![alias("fast", "b"), models(config), upstream(LIST)], ex);
    let plain = answer(vec![models(json!({})), upstream(LIST)], exchange("GET", "/v1/models"));
    assert_eq!(plain.1, LIST);
    assert_eq!(ids(list(json!({"models": [{"id": "m"}]}), exchange("GET", "/v1/models"))), ["a", "b", "m", "fast"]);
    let mut ex = exchange("GET", "/v1/models");
    with_rights(&mut ex, &["a"]);
    assert_eq!(list(json!({}), ex).1, r#"{ "object":"list", "data":[{"id":"a", "x":1.0}] }"#);
    // What cannot be read cannot be filtered.
    let unreadable = |config: Value| answer(vec![models(config), upstream("<html>")], exchange("GET", "/v1/models"));
    assert_eq!(unreadable(json!({})), (200, "<html>".to_owned()));
    assert_eq!(unreadable(json!({"deny": ["x"]})).0, 502);
    // A single one.
    let one = |path: &str| {
        answer(
            vec![alias("fast", "b"), models(json!({"deny": ["a"]})), upstream(r#"{ "id" : "b" }"#)],
            exchange("GET", path),
        )
    };
    assert_eq!(one("/v1/models/b").1, r#"{ "id" : "b" }"#);
    assert_eq!(one("/v1/models/fast").1, r#"{ "id" : "fast" }"#);
    assert_eq!(code(one("/v1/models/a")), not_found());
}

#[test]
fn a_list_is_kept_and_the_stale_one_served_meanwhile() {
    // The time shows whether the source has been asked again.
    let now = answering(200, r#"{"data":[{"id":"t-{time.now.unix_ms}-{http.request.uuid}"}]}"#);
    let fetched = |cache: i64| {
        let routes = handlers(vec![models(json!({"from": [now], "cache": cache}))]);
        block_on(async {
            let mut seen = Vec::new();
            for _ in 0..3 {
                let mut ex = exchange("GET", "/v1/models");
                let Flow::Respond(response) = run_nested(&routes, &mut ex).await else { panic!() };
                seen.push(response.into_body().collect().await.unwrap().to_bytes());
                // Lets a fetch that goes on behind end.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
            seen
        })
    };
    let kept = fetched(60_000_000_000);
    assert!(kept[0] == kept[1] && kept[1] == kept[2]);
    let anew = fetched(0);
    assert!(anew[0] != anew[1] && anew[1] != anew[2]);
    let stale = fetched(1);
    assert!(stale[0] == stale[1] && stale[1] != stale[2], "{stale:?}");
}

#[test]
fn requests_at_once_share_a_fetch() {
    let now = answering(200, r#"{"data":[{"id":"{http.request.uuid}"}]}"#);
    let routes = handlers(vec![models(json!({"from": [now], "cache": 0}))]);
    let routes: &'static _ = Box::leak(Box::new(routes));
    block_on(async {
        let ask = || {
            tokio::task::spawn_local(async {
                let mut ex = exchange("GET", "/v1/models");
                let Flow::Respond(response) = run_nested(routes, &mut ex).await else { panic!() };
                assert_eq!(response.status(), StatusCode::OK);
                response.into_body().collect().await.unwrap().to_bytes()
            })
        };
        let (one, gone, two) = (ask(), ask(), ask());
        gone.abort();
        assert_eq!(one.await.unwrap(), two.await.unwrap());
    });
}

#[test]
fn other_methods_and_paths_pass() {
    for (method, path) in [(Method::POST, "/v1/models"), (Method::GET, "/v1/modelsx"), (Method::OPTIONS, "/v1/models")]
    {
        let config = models(json!({"from": [source("one", &["a"])]}));
        let passed = answer(vec![config, upstream("on")], exchange(method.as_str(), path));
        assert_eq!(passed.1, "on", "{method} {path}");
    }
}
