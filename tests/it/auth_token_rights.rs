//! Tokens with names, rights and files: who may do what, what the upstream and the log see, and what a change of a token file does
//! while requests go on.

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::upstream::Upstream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A site with these lines in front of the upstream, its access log on standard error. `$DIR` is a directory.
fn start(upstream: &Upstream, directory: &Path, lines: &str) -> (Proxy, u16) {
    let port = free_port();
    let lines = lines.replace("$DIR", &directory.display().to_string());
    let up = "header_up X-Caller \"{auth.id}/{auth.team}/{auth.tag.cost}\"";
    let file = format!(
        "http://:{port} {{\n\tbind 127.0.0.1\n\tlog\n\t{lines}\n\treverse_proxy {} {{\n\t\t{up}\n\t}}\n}}\n",
        upstream.address()
    );
    (Proxy::start(Which::Llmproxy, &file, port), port)
}

fn chat(port: u16, token: &str, body: &str) -> Response {
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client::request(port, request).unwrap()
}

fn models_with(port: u16, token: &str) -> u16 {
    let request = format!("GET /v1/models HTTP/1.1\r\nHost: api.test\r\nx-api-key: {token}\r\n\r\n");
    client::request(port, request).unwrap().status()
}

fn wait_for(what: &str, proxy: &Proxy, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: {}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

const BLOCK: &str = "auth_token unnamed-token-of-the-test {
		token ide sha256:f4e9cdd0c4b8e0f0a4b6ba9d0d1ea2d4cb0a8ad0d1d9f8a1b0c9d8e7f6a5b4c3 {
			models local-*
		}
		token mini the-token-of-mini {
			models gpt-4o* o?-mini
			team core
			tag cost 42
		}
		token old the-token-of-old {
			expires 2001-01-01
		}
		token far the-token-of-far {
			ips 198.51.100.0/24
		}
		token paths the-token-of-paths {
			paths /v1/models /v1/models/*
		}
	}";

#[test]
fn rights_by_token() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let (proxy, port) = start(&upstream, directory.path(), BLOCK);
    for (token, body, status, code) in [
        ("unnamed-token-of-the-test", r#"{"model":"any"}"#, 200, ""),
        ("the-token-of-mini", r#"{"model":"gpt-4o-mini","messages":[]}"#, 200, ""),
        ("the-token-of-mini", r#"{"messages":[],"model":"o3-mini"}"#, 200, ""),
        ("the-token-of-mini", r#"{"model":"o3"}"#, 403, "model_not_allowed"),
        ("the-token-of-mini", r#"{"messages":[{"model":"gpt-4o"}]}"#, 403, "model_not_allowed"),
        ("the-token-of-mini", r#"{"model":"gpt-4o","model":"o3"}"#, 400, ""),
        ("the-token-of-old", "{}", 401, "token_expired"),
        ("the-token-of-far", "{}", 403, "ip_not_allowed"),
        ("the-token-of-paths", "{}", 403, "path_not_allowed"),
        ("the-token-of-nobody", "{}", 401, "invalid_api_key"),
    ] {
        let response = chat(port, token, body);
        assert_eq!(response.status(), status, "{token} {body}: {}", response.text());
        if status == 200 {
            assert_eq!(response.json()["body"], body, "goes up as it came");
        } else if !code.is_empty() {
            assert_eq!(response.json()["error"]["code"], code);
        }
        assert!(!response.text().contains(token), "{}", response.text());
    }
    assert_eq!(models_with(port, "the-token-of-paths"), 200);
    assert_eq!(models_with(port, "the-token-of-mini"), 200);
    // Those that are refused too, if their token is known.
    for id in ["token1", "mini", "old", "far", "paths"] {
        wait_for(id, &proxy, || proxy.log().contains(&format!("\"user_id\":\"{id}\"")));
    }
    let log = proxy.log();
    assert!(!log.contains("the-token-of") && !log.contains("unnamed-token"), "{log}");
}

#[test]
fn the_upstream_is_told_who_asks_only_where_the_file_says_so() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let (_proxy, port) = start(&upstream, directory.path(), BLOCK);
    let seen = chat(port, "the-token-of-mini", r#"{"model":"gpt-4o"}"#).json()["headers"].to_string();
    assert!(seen.contains("mini/core/42"), "{seen}");
    let seen = chat(port, "unnamed-token-of-the-test", "{}").json()["headers"].to_string();
    assert!(seen.contains("token1//"), "{seen}");
}

#[test]
fn refusals_speak_the_callers_dialect() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let (_proxy, port) = start(&upstream, directory.path(), BLOCK);
    let anthropic = "POST /v1/messages HTTP/1.1\r\nHost: a\r\nanthropic-version: 2023-06-01\r\nx-api-key: no\r\nContent-Length: 0\r\n\r\n";
    let response = client::request(port, anthropic).unwrap();
    assert_eq!((response.status(), response.header("www-authenticate")), (401, Some("Bearer error=\"invalid_token\"")));
    assert_eq!(response.json()["error"]["type"], "authentication_error");
    assert_eq!(response.json()["request_id"].as_str(), response.header("request-id"));
    let ollama = "POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert!(client::request(port, ollama).unwrap().json()["error"].as_str().unwrap().starts_with("You didn't provide"));
    let open_ai = client::get(port, "/v1/models");
    assert_eq!(open_ai.header("www-authenticate"), Some("Bearer"));
    assert!(open_ai.header("x-request-id").is_some() && open_ai.json()["error"]["param"].is_null());
}

#[test]
fn a_preflight_never_goes_up() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let (_proxy, port) = start(&upstream, directory.path(), BLOCK);
    let preflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\nOrigin: https://app.test\r\n\
                     Access-Control-Request-Method: POST\r\n\r\n";
    let response = client::request(port, preflight).unwrap();
    assert_eq!((response.status(), response.body.len()), (204, 0));
    assert!(response.head.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("access-control")));
    assert_eq!(client::request(port, "OPTIONS /v1/models HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status(), 401);
    assert!(upstream.events().is_empty(), "{:?}", upstream.events());
}

#[test]
fn a_token_file_counts_at_once_and_a_broken_one_not_at_all() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "# ours\nide the-token-of-the-ide team=core\n").unwrap();
    let (proxy, port) = start(&upstream, directory.path(), "auth_token {\n\t\tfile $DIR/tokens\n\t}");
    assert_eq!((models_with(port, "the-token-of-the-ide"), models_with(port, "the-token-of-the-ci")), (200, 401));

    std::fs::write(&tokens, "ide the-token-of-the-ide\nci the-token-of-the-ci expires=soon\n").unwrap();
    wait_for("the wrong line is not told", &proxy, || proxy.log().contains("tokens:2: "));
    // The event itself tells it: a log file has nothing of standard error.
    let told = |log: &str| log.lines().any(|l| l.contains("reload failed") && l.contains("tokens:2: "));
    wait_for("the event does not tell its cause", &proxy, || told(&proxy.log()));
    assert_eq!((models_with(port, "the-token-of-the-ide"), models_with(port, "the-token-of-the-ci")), (200, 401));

    // It was the token file that was wrong, so a change of it alone mends it.
    std::fs::write(&tokens, "ci the-token-of-the-ci expires=9999-01-01\n").unwrap();
    wait_for("not taken over", &proxy, || models_with(port, "the-token-of-the-ci") == 200);
    assert_eq!(models_with(port, "the-token-of-the-ide"), 401, "taken back");
    assert!(!proxy.log().contains("the-token-of"), "{}", proxy.log());
}

#[test]
fn validate_says_which_line_of_which_file_and_shows_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("tokens", "ide the-token-of-the-ide\nci the-token-of-the-ci mdoels=a\nother the-token-of-the-ide\n");
    write("Proxyfile", ":8080 {\n\tauth_token literal-token-of-the-test {\n\t\tfile tokens\n\t}\n}\n");
    let mut validate = command(Which::Llmproxy, directory.path());
    let output = run_within(validate.args(["validate", "--config", "Proxyfile"]), Duration::from_secs(20));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    for part in ["tokens:2: word 3", "did you mean `models=`", "tokens:3: the value is that of tokens:1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("the-token-of") && !said.contains("literal-token"), "{said}");
}

#[test]
fn thousands_of_tokens_load_fast() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let lines: String =
        (0..10_000).map(|i| format!("n{i} the-token-number-{i:0>6} models=gpt-*,o3 team=t{i}\n")).collect();
    std::fs::write(directory.path().join("tokens"), lines).unwrap();
    let began = Instant::now();
    let (_proxy, port) = start(&upstream, directory.path(), "auth_token {\n\t\tfile $DIR/tokens\n\t}");
    assert_eq!(chat(port, "the-token-number-009999", r#"{"model":"gpt-5"}"#).status(), 200);
    assert_eq!(chat(port, "the-token-number-010000", r#"{"model":"gpt-5"}"#).status(), 401);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// A token in each place where one may be, to an upstream that answers, to error routes that go up, and refused.
#[test]
fn a_token_in_no_place_reaches_the_upstream_the_log_or_an_answer() {
    const PLANTED: &str = "planted-token-of-the-test";
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let lines = format!(
        "auth_token {{\n\t\ttoken ide {PLANTED} {{\n\t\t\tpaths /v1/* /fail\n\t\t}}\n\t\theader X-My-Key\n\t}}\n\terror /fail 418\n\t\
         handle_errors 418 {{\n\t\treverse_proxy {}\n\t}}\n\thandle_errors {{\n\t\trespond \"{{err.message}} {{uri}} {{header.Authorization}}\"\n\t}}",
        upstream.address()
    );
    let (proxy, port) = start(&upstream, directory.path(), &lines);
    let places = [
        ("", format!("Authorization: Bearer {PLANTED}\r\n")),
        ("", format!("Authorization: {PLANTED}\r\n")),
        ("", format!("X-Api-Key: {PLANTED}\r\n")),
        ("", format!("Api-Key: {PLANTED}\r\nAuthorization: Bearer {PLANTED}\r\n")),
        ("", format!("X-Goog-Api-Key: {PLANTED}\r\n")),
        ("", format!("X-My-Key: {PLANTED}\r\n")),
        ("", format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{PLANTED}\r\n")),
        ("?a=b&key=planted-token-of-the-test", String::new()),
        ("?key=planted-token-of-the-test", format!("X-Api-Key: {PLANTED}\r\n")),
    ];
    for (query, headers) in &places {
        for (path, status) in [("/v1/models", 200), ("/fail", 200), ("/refused", 403)] {
            let request = format!("GET {path}{query} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            let response = client::request(port, request).unwrap();
            let said = format!("{:?} {}", response.head.headers, response.text());
            assert_eq!(response.status(), status, "{path}{query} {headers}: {said}");
            // The upstream answers with all it was sent.
            assert!(!said.contains("planted"), "{path}{query} {headers}: {said}");
        }
    }
    wait_for("no access log", &proxy, || proxy.log().matches("\"user_id\":\"ide\"").count() >= places.len() * 3);
    assert!(!proxy.log().contains("planted"), "{}", proxy.log());
}

#[test]
fn a_key_among_websocket_subprotocols_is_cut_from_the_list() {
    let (upstream, directory) = (Upstream::start("U"), tempfile::tempdir().unwrap());
    let (_proxy, port) = start(&upstream, directory.path(), BLOCK);
    let ask = |list: &str| {
        let request = format!(
            "GET /v1/realtime?model=gpt-4o-realtime HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Protocol: {list}\r\n\r\n"
        );
        client::request(port, request).unwrap()
    };
    let response = ask("realtime, openai-insecure-api-key.the-token-of-mini, openai-beta.realtime-v1");
    assert_eq!(response.status(), 200);
    let seen = response.json()["headers"].to_string();
    assert!(seen.contains("realtime, openai-beta.realtime-v1") && !seen.contains("the-token"), "{seen}");
    assert_eq!(ask("realtime, openai-insecure-api-key.wrong").status(), 401);
}
