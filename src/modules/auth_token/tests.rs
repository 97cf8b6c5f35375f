//! Tokens in every form: what is let in, by which right, and what goes on of the request.

use std::rc::Rc;

use http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::base::body::Body;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::handler::Flow;
use crate::modules::testing::{block_on, compile, exchange, step};

fn run_with(config: Value, ex: &mut Exchange) -> Flow {
    match compile(config).unwrap_or_else(|e| panic!("{e:?}")) {
        Handler::Step(step) => step.run(ex),
        Handler::Async(handler) => block_on(handler.call(ex)),
        _ => panic!("neither step nor gate"),
    }
}

fn run(headers: &[(&'static str, &str)]) -> (Flow, Exchange) {
    let mut ex = exchange("POST", "/v1/chat/completions");
    for (name, value) in headers {
        ex.headers.append(*name, value.parse().unwrap());
    }
    let flow = step(json!({"handler":"auth_token","tokens":["first","second"]})).run(&mut ex);
    (flow, ex)
}

fn error(flow: Flow) -> HandlerError {
    match flow {
        Flow::Fail(error) => error,
        _ => panic!("passed"),
    }
}

#[test]
fn every_way_of_sending_it_is_accepted_and_taken_off() {
    for (header, id) in [
        (("authorization", "Bearer second"), "token2"),
        (("authorization", "bearer  first"), "token1"),
        (("authorization", "first"), "token1"),
        (("x-api-key", "first"), "token1"),
        (("api-key", "second"), "token2"),
        (("x-goog-api-key", "second"), "token2"),
        (("sec-websocket-protocol", "realtime, openai-insecure-api-key.first"), "token1"),
    ] {
        let (flow, ex) = run(&[header]);
        assert!(matches!(flow, Flow::Next), "{header:?}");
        assert_eq!(ex.user.unwrap().id, id);
        assert!(!format!("{:?}", ex.headers).contains(header.1), "{header:?}");
    }
    let mut ex = exchange("POST", "/v1beta/models/m:generateContent?key=first&alt=sse");
    assert!(matches!(run_with(json!({"handler":"auth_token","tokens":["first"]}), &mut ex), Flow::Next));
    assert_eq!(ex.uri, "/v1beta/models/m:generateContent?alt=sse");
}

#[test]
fn a_credential_beside_the_right_one_does_not_go_up() {
    let (flow, ex) = run(&[("x-api-key", "sk-other"), ("authorization", "Bearer first")]);
    assert!(matches!(flow, Flow::Next));
    assert!(!ex.headers.contains_key("x-api-key"));
    let (flow, ex) = run(&[("authorization", "Bearer sk-other"), ("x-api-key", "second")]);
    assert!(matches!(flow, Flow::Next));
    assert_eq!(ex.user.unwrap().id, "token2");
}

#[test]
fn a_header_of_ones_own_is_read_and_taken_off() {
    let mut ex = exchange("GET", "/");
    ex.headers.insert("x-my-key", HeaderValue::from_static("first"));
    let config = json!({"handler":"auth_token","tokens":["first"],"headers":["X-My-Key"]});
    assert!(matches!(run_with(config, &mut ex), Flow::Next));
    assert!(!ex.headers.contains_key("x-my-key"));
}

#[test]
fn refusals_tell_missing_from_incorrect_and_echo_nothing() {
    for (headers, text, challenge) in [
        (&[][..], "You didn't provide", "Bearer"),
        (&[("authorization", "Bearer")], "You didn't provide", "Bearer"),
        (&[("authorization", "Bearer firs")], "Incorrect", "Bearer error=\"invalid_token\""),
        (&[("authorization", "Bearer firstx")], "Incorrect", "Bearer error=\"invalid_token\""),
        (&[("authorization", "Basic first")], "Incorrect", "Bearer error=\"invalid_token\""),
    ] {
        let (flow, ex) = run(headers);
        let error = error(flow);
        assert_eq!(error.status, 401);
        assert_eq!(error.headers, [(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))]);
        let refusal = error.refusal.unwrap();
        assert!(refusal.message.starts_with(text), "{headers:?}");
        assert_eq!(refusal.code, Some("invalid_api_key"));
        assert!(!refusal.message.contains("firs"));
        assert!(!ex.headers.contains_key(header::AUTHORIZATION) && ex.user.is_none());
    }
}

#[test]
fn a_preflight_is_answered_here_and_any_other_options_needs_the_token() {
    let mut ex = exchange("OPTIONS", "/v1/chat/completions");
    ex.headers.insert(header::ORIGIN, HeaderValue::from_static("https://app.test"));
    let config = json!({"handler":"auth_token","tokens":["first"]});
    assert_eq!(error(run_with(config.clone(), &mut ex)).status, 401);
    ex.headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
    let Flow::Respond(response) = run_with(config, &mut ex) else { panic!("not answered") };
    assert_eq!((response.status().as_u16(), response.headers().len()), (204, 0));
}

#[test]
fn rights_are_those_of_the_token_shown() {
    let config = json!({"handler":"auth_token","named":[
        {"name":"all","value":"value-all","team":"core"},
        {"name":"old","value":"value-old","expires":"2001-01-01"},
        {"name":"mini","value":"value-mini","models":["gpt-4o*"]},
    ]});
    let ask = |value: &str, body: &'static str| {
        let mut ex = exchange("POST", "/v1/chat/completions");
        ex.headers.insert("x-api-key", value.parse().unwrap());
        ex.body = Body::from(body);
        (run_with(config.clone(), &mut ex), ex)
    };
    let (flow, ex) = ask("value-all", "not json");
    assert!(matches!(flow, Flow::Next));
    assert_eq!(ex.user.unwrap().get("team"), Some("core"));
    let (flow, ex) = ask("value-old", "{}");
    let expired = error(flow);
    assert_eq!((expired.status, expired.refusal.unwrap().code), (401, Some("token_expired")));
    assert!(expired.message.contains("old") && ex.user.unwrap().id == "old", "the log says whose");
    assert!(matches!(ask("value-mini", r#"{"model":"gpt-4o-mini"}"#).0, Flow::Next));
    let refused = error(ask("value-mini", r#"{"model":"o3"}"#).0);
    assert_eq!((refused.status, refused.refusal.unwrap().code), (403, Some("model_not_allowed")));
}

#[test]
fn a_secret_path_stands_for_its_token() {
    let config = json!({"handler":"auth_token","named":[
        {"name":"copilot","value":"value-copilot","paths":["/v1/*"]},
        {"name":"other","value":"value-other"},
    ]});
    let ask = |vouched: &str, target: &str| {
        let mut ex = exchange("GET", target);
        ex.vouched = Some(vouched.into());
        ex.headers.insert("x-api-key", HeaderValue::from_static("value-other"));
        let flow = run_with(config.clone(), &mut ex);
        assert!(!ex.headers.contains_key("x-api-key"), "taken off all the same");
        (flow, ex)
    };
    let (flow, ex) = ask("copilot", "/v1/models");
    assert!(matches!(flow, Flow::Next));
    assert_eq!(ex.user.unwrap().id, "copilot");
    assert_eq!(error(ask("copilot", "/admin").0).status, 403);
    assert_eq!(error(ask("nobody", "/v1/models").0).status, 401);
}

#[test]
fn a_slow_hash_opens_for_the_token_it_names() {
    let hash = crate::base::password::hash_argon2id(b"llmp_bob_secret").unwrap();
    let Handler::Async(gate) = compile(json!({"handler":"auth_token","named":[{"name":"bob","value":hash}]})).unwrap()
    else {
        panic!("not a gate")
    };
    for (shown, opens) in [("llmp_bob_wrong", false), ("llmp_bob_secret", true), ("llmp_bob_secret", true)] {
        let mut ex = exchange("GET", "/");
        ex.headers.insert("x-api-key", shown.parse().unwrap());
        assert_eq!(matches!(block_on(gate.call(&mut ex)), Flow::Next), opens, "{shown}");
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

#[test]
fn no_message_shows_a_token() {
    for config in [
        json!({"tokens":"secret-of-the-test"}),
        json!({"tokens":["$secret-of-the-test"]}),
        json!({"tokens":["sha256:secret-of-the-test"]}),
        json!({"named":{"ide":"secret-of-the-test"}}),
        json!({"named":[{"name":"secret-of-the-test/","value":"x"}]}),
        json!({"named":[{"name":"a","value":"secret-of-the-test"},{"name":"b","value":"secret-of-the-test"}]}),
        json!({"tokens":["secret-of-the-test"],"headers":["cookie"]}),
    ] {
        let mut config = config;
        config["handler"] = json!("auth_token");
        let error = compile(config.clone()).err().unwrap_or_else(|| panic!("{config}"));
        assert!(!format!("{error:?}").contains("secret-of"), "{error:?}");
    }
}

#[test]
fn addresses_are_those_of_clients_behind_trusted_proxies() {
    let config = json!({"handler":"auth_token","named":[{"name":"a","value":"value-a","ips":["198.51.100.0/24"]}]});
    let ask = |trusted: bool| {
        let mut ex = exchange("GET", "/");
        if trusted {
            let facts = crate::http::exchange::ServerFacts {
                trusted_proxies: vec!["192.0.2.0/24".parse().unwrap()],
                ..Default::default()
            };
            ex.server = Rc::new(facts);
        }
        ex.headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.9"));
        ex.headers.insert("x-api-key", HeaderValue::from_static("value-a"));
        matches!(run_with(config.clone(), &mut ex), Flow::Next)
    };
    assert_eq!((ask(true), ask(false)), (true, false));
}
