//! Official clients through the proxy, each in one process that runs all its cases (`tests/sdk`), against an upstream of
//! the real shapes: chat, streams, tools, images, embeddings, errors, retries and cancelling. Whatever a client does, its
//! token never goes up and the upstream's key never comes down.

use crate::harness::client;
use crate::harness::llm_answers::{self, THOUGHT, text};
use crate::harness::llm_upstream::{KEY, LlmUpstream, RETRY_AFTER};
use crate::harness::process::{Proxy, Which, free_port, run_within};
use crate::harness::repository;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const TOKEN: &str = "client-token-that-no-upstream-may-see";

/// A path that stands for the token, and what gives the site an Ollama API under it.
const SECRET: &str = "secret-path-of-the-ollama-clients";
const OLLAMA: &str = "\tollama_compat {\n\t\tsecret token1 /secret-path-of-the-ollama-clients\n\t\tmodel mock-chat {\n\t\t\tcontext 128000\n\t\t\tcapabilities completion tools vision\n\t\t\tfamily mock\n\t\t}\n\t}\n";

/// The upstream behind a site with a token.
struct Gateway {
    upstream: LlmUpstream,
    proxy: Proxy,
    port: u16,
    base: String,
}

impl Gateway {
    fn start() -> Self {
        Self::with("")
    }

    /// `lines` come between the token and the upstream.
    fn with(lines: &str) -> Self {
        let (upstream, port) = (LlmUpstream::start(), free_port());
        let address = upstream.address();
        let file = format!(
            "http://127.0.0.1:{port} {{\n\tauth_token {TOKEN}\n{lines}\treverse_proxy {address} {{\n\t\theader_up Authorization \"Bearer {KEY}\"\n\t\tsse_keepalive 1s\n\t}}\n}}\n"
        );
        let proxy = Proxy::start(Which::Llmproxy, &file, port);
        Self { upstream, proxy, port, base: format!("http://127.0.0.1:{port}") }
    }

    /// Base URL of the Ollama API, which needs no token.
    fn ollama(&self) -> String {
        format!("{}/{SECRET}", self.base)
    }

    /// What a script reports; `None` where its package is not installed.
    fn run(&self, script: &str, package: &str, arguments: &[&str]) -> Option<Value> {
        let (tools, scripts) = (repository().join(".tools"), repository().join("tests/sdk"));
        let javascript = script.ends_with(".mjs");
        let folder = if javascript { tools.join("node") } else { tools.join("venv") };
        if !installed(&folder.join("done"), package) {
            return None;
        }
        let mut client = Command::new(if javascript { "node".into() } else { folder.join("bin/python") });
        client.arg(scripts.join(script)).args(arguments).args(javascript.then_some(&folder));
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "OLLAMA_HOST", "OLLAMA_API_KEY"] {
            client.env_remove(variable);
        }
        let client =
            client.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
        let output = run_within(client, Duration::from_secs(100));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}\n{}", self.proxy.log());
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(!told.contains(KEY) && !said.contains(KEY), "{script} has seen the upstream's key");
        // LiteLLM prints advice of its own before the last line.
        let last = told.trim_end().lines().last().unwrap_or_default();
        Some(serde_json::from_str(last).unwrap_or_else(|error| panic!("{script}: {error} in {told}")))
    }

    /// After a client has run: nothing of it went up or into the log, and the stream it left was left.
    fn check_secrets(&self, script: &str) {
        let seen = self.upstream.seen();
        assert!(seen.len() > 5, "{script}: {} requests", seen.len());
        for request in seen {
            let text = request.text();
            assert!(!text.contains(TOKEN) && !text.contains(SECRET), "{script}: a secret went up with {text}");
        }
        let log = self.proxy.log();
        assert!(!log.contains(TOKEN) && !log.contains(KEY), "{script}: a credential in the log: {log}");
        assert!(!log.contains(SECRET), "{script}: the secret path in the log: {log}");
    }

    fn check_cancelled(&self, script: &str) {
        assert!(self.upstream.wait_for_left(1, Duration::from_secs(10)), "{script} left, the upstream went on");
    }
}

fn installed(done: &PathBuf, package: &str) -> bool {
    let list = std::fs::read_to_string(done).unwrap_or_default();
    let there = list.split_whitespace().any(|p| p.split(['=', '@']).next() == Some(package));
    if !there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "./test installs {package}");
        eprintln!("skipped: {package} is not installed (./test --install)");
    }
    there
}

/// Compares the cases that a client has run with what they should have given; all differences at once.
fn check(script: &str, told: &Value, expected: Value) {
    let mut wrong = Vec::new();
    for (case, expected) in expected.as_object().unwrap() {
        if &told[case] != expected {
            wrong.push(format!("  {case}: {}\n    expected {expected}", told[case]));
        }
    }
    assert!(wrong.is_empty(), "{script}:\n{}", wrong.join("\n"));
}

/// A case that raised: the class and status of the exception, and a part of what it says.
fn check_raised(script: &str, told: &Value, case: &str, class: &str, status: impl Into<Option<u16>>, says: &str) {
    let (raised, status) = (&told[case], status.into());
    let right = raised["raised"] == class
        && (status.is_none() || raised["status"] == json!(status))
        && raised["says"].as_str().is_some_and(|said| said.contains(says));
    assert!(right, "{script}, {case}: {raised}; expected {class} {status:?} that says {says:?}");
}

/// Retried no sooner than the upstream asked for.
fn check_waited(script: &str, told: &Value) {
    let took = told["retried_took"].as_f64().unwrap();
    assert!(took >= RETRY_AFTER as f64, "{script}: asked again after {took} s in spite of Retry-After: {RETRY_AFTER}");
}

fn two_calls() -> Value {
    json!([
        ["get_weather", {"city": "Paris", "of": "get_weather"}],
        ["get_time", {"city": "Paris", "of": "get_time"}],
    ])
}

fn two_vectors() -> Value {
    json!([[0.25, -0.5, 0.5], [0.25, -0.5, 1.5]])
}

const IMAGE: &str = "An image of type image/png, 70 bytes";

#[test]
fn a_body_goes_up_and_a_stream_comes_down_byte_for_byte() {
    let (gateway, asked) = (Gateway::start(), json!({"model": "mock-chat", "stream": true}));
    // Blanks, an escape that needs none, a field that nobody knows, a number of more digits than a double has.
    let body = "{ \"model\" : \"mock-ch\\u0061t\",\t\"stream\":true, \"messages\":[{\"role\":\"user\",\"content\":\"caf\u{e9}\"}],\n\"x\":1.00000000000000000001 }";
    let head = format!(
        "POST /v1/chat/completions?x=%41 HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nX-Api-Key: {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        gateway.port,
        body.len()
    );
    let mut connection = client::Connection::open(gateway.port);
    connection.send(format!("{head}{body}"));
    let response = connection.response().unwrap();
    assert_eq!(response.text(), llm_answers::chat_events(&asked).concat());
    assert!(
        response.complete
            && response.header("content-length").is_none()
            && response.header("content-encoding").is_none()
    );
    connection.send(format!("{head}{body}"));
    assert_eq!(connection.response().unwrap().body, response.body);
    let seen = gateway.upstream.last();
    assert_eq!(seen.connection, 0, "the second request took a connection of its own");
    assert_eq!(String::from_utf8_lossy(&seen.body), body);
    assert_eq!((seen.target.as_str(), seen.header("x-api-key")), ("/v1/chat/completions?x=%41", None));
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {KEY}")));
}

#[test]
fn openai_python() {
    openai_python_at(&Gateway::start());
}

/// What other clients need changes nothing for this one.
#[test]
fn openai_python_where_other_clients_are_served_too() {
    let lines = format!("\tcors\n{OLLAMA}\tcursor_compat\n\tmodel_alias other-name mock-chat\n");
    let gateway = Gateway::with(&lines);
    // From the upstream's list it is known that `:latest` is a part of an id, not Ollama's tag.
    let tags = client::get_of(gateway.port, &format!("127.0.0.1:{}", gateway.port), &format!("/{SECRET}/api/tags"));
    assert_eq!(tags.status(), 200);
    openai_python_at(&gateway);
}

fn openai_python_at(gateway: &Gateway) {
    let script = "openai_cases.py";
    let base = format!("{}/v1", gateway.base);
    let Some(told) = gateway.run(script, "openai", &[&base, TOKEN]) else { return };
    openai(script, &told);
    check(script, &told, json!({"tool_result": "The tool said 21 degrees", "cancel": 2}));
    for (case, class, status) in [
        ("wrong_key", "AuthenticationError", 401),
        ("unknown_model", "NotFoundError", 404),
        ("rate_limit", "RateLimitError", 429),
        ("server_error", "InternalServerError", 500),
    ] {
        check_raised(script, &told, case, class, status, "");
    }
    assert_eq!(told["unknown_model"]["code"], "model_not_found", "{script}");
    check_raised(script, &told, "inband", "APIError", None, "failed midway");
    assert!(told["cut"]["raised"].is_string(), "a cut stream looks finished: {}", told["cut"]);
    check(script, &told, json!({"silent": text(), "silent_responses": text()}));
    for case in ["broken", "broken_responses"] {
        check_raised(script, &told, case, "APIError", None, "upstream broke off");
    }
    gateway.check_cancelled(script);
    gateway.check_secrets(script);
}

/// A limit of ours is waited for as one of the provider's would be.
#[test]
fn openai_python_waits_for_a_limit() {
    let zone = "\trate_limit {\n\t\tzone sdk {\n\t\t\tkey {auth.id}\n\t\t\twindow 2s\n\t\t\tevents 2\n\t\t\ttokens 3000\n\t\t}\n\t}\n";
    let (gateway, script) = (Gateway::with(zone), "openai_limited.py");
    let base = format!("{}/v1", gateway.base);
    let Some(told) = gateway.run(script, "openai", &[&base, TOKEN]) else { return };
    check(script, &told, json!({"left": ["2", "1"], "waited": [text(), text()]}));
    let took = told["waited_took"].as_f64().unwrap() + told["left_took"].as_f64().unwrap();
    assert!(took >= 2.0, "the third request came after {took} s");
    check_raised(script, &told, "hopeless", "RateLimitError", 429, "Request too large");
    assert_eq!(gateway.upstream.seen().len(), 3, "what was refused did not go up");
}

#[test]
fn openai_javascript() {
    let (gateway, script) = (Gateway::start(), "openai_cases.mjs");
    let base = format!("{}/v1", gateway.base);
    let Some(told) = gateway.run(script, "openai", &[&base, TOKEN]) else { return };
    openai(script, &told);
    check(script, &told, json!({"cancel": 2}));
    for (case, class, status) in [
        ("wrong_key", "AuthenticationError", 401),
        ("unknown_model", "NotFoundError", 404),
        ("rate_limit", "RateLimitError", 429),
        ("server_error", "InternalServerError", 500),
    ] {
        check_raised(script, &told, case, class, status, "");
    }
    check_raised(script, &told, "inband", "APIError", None, "failed midway");
    assert_eq!(told["unknown_model"]["code"], "model_not_found", "{script}");
    assert!(told["cut"]["raised"].is_string(), "a cut stream looks finished: {}", told["cut"]);
    check(script, &told, json!({"silent": text(), "silent_responses": text()}));
    for case in ["broken", "broken_responses"] {
        check_raised(script, &told, case, "APIError", None, "upstream broke off");
    }
    gateway.check_cancelled(script);
    gateway.check_secrets(script);
}

/// What both SDKs of OpenAI report.
fn openai(script: &str, told: &Value) {
    check(
        script,
        told,
        json!({
            "models": llm_answers::MODELS,
            "model_with_slash": "vendor/mock:latest",
            "chat": [text(), 18],
            "stream": [text(), 18, 5, 1],
            "tools": two_calls(),
            "streamed_tools": two_calls(),
            "image": IMAGE,
            "reasoning": [THOUGHT, text()],
            "responses": text(),
            "streamed_responses": [text(), "response.completed"],
            "embeddings": two_vectors(),
            "retried": text(),
        }),
    );
    check_waited(script, told);
}

#[test]
fn anthropic_python() {
    let (gateway, script) = (Gateway::start(), "anthropic_cases.py");
    let Some(told) = gateway.run(script, "anthropic", &[&gateway.base, TOKEN]) else { return };
    check(
        script,
        &told,
        json!({
            "chat": [text(), 7],
            "stream": [text(), 7, 5],
            "count": 5,
            "bearer": "assistant",
            "retried": text(),
            "cancel": "message_start",
        }),
    );
    check_raised(script, &told, "wrong_key", "AuthenticationError", 401, "");
    check_raised(script, &told, "unknown_model", "NotFoundError", 404, "not_found_error");
    check_raised(script, &told, "rate_limit", "RateLimitError", 429, "rate_limit_error");
    check(script, &told, json!({"silent": [text(), 7]}));
    check_raised(script, &told, "broken", "APIStatusError", 200, "upstream broke off");
    check_waited(script, &told);
    gateway.check_cancelled(script);
    gateway.check_secrets(script);
}

#[test]
fn langchain_openai() {
    let (gateway, script) = (Gateway::start(), "langchain_openai_cases.py");
    let base = format!("{}/v1", gateway.base);
    let Some(told) = gateway.run(script, "langchain-openai", &[&base, TOKEN]) else { return };
    check(
        script,
        &told,
        json!({
            "chat": [text(), 18],
            "stream": [text(), 5],
            "tools": two_calls(),
            "streamed_tools": two_calls(),
            "image": IMAGE,
            "embeddings": two_vectors(),
            "retried": text(),
            "cancel": 2,
        }),
    );
    for (case, status) in [("wrong_key", 401), ("unknown_model", 404), ("rate_limit", 429)] {
        assert_eq!(told[case]["status"], status, "{script}, {case}: {}", told[case]);
    }
    check_waited(script, &told);
    gateway.check_cancelled(script);
    gateway.check_secrets(script);
}

#[test]
fn litellm() {
    let (gateway, script) = (Gateway::with(OLLAMA), "litellm_cases.py");
    let (base, ollama) = (format!("{}/v1", gateway.base), gateway.ollama());
    let Some(told) = gateway.run(script, "litellm", &[&base, TOKEN, &ollama]) else { return };
    check(
        script,
        &told,
        json!({
            "chat": [text(), 18],
            "stream": [text(), 5],
            "tools": two_calls(),
            "streamed_tools": two_calls(),
            "image": IMAGE,
            "embeddings": two_vectors(),
            "retried": text(),
            "cancel": 2,
            "ollama_chat": text(),
            "ollama_stream": text(),
            "ollama_tools": two_calls(),
        }),
    );
    for (case, class, status) in [
        ("wrong_key", "AuthenticationError", 401),
        ("unknown_model", "NotFoundError", 404),
        ("rate_limit", "RateLimitError", 429),
    ] {
        check_raised(script, &told, case, class, status, "");
    }
    check_waited(script, &told);
    gateway.check_cancelled(script);
    gateway.check_secrets(script);
}

#[test]
fn ollama_python() {
    ollama("ollama_cases.py");
}

#[test]
fn ollama_javascript() {
    ollama("ollama_cases.mjs");
}

/// What both clients of Ollama report.
fn ollama(script: &str) {
    let gateway = Gateway::with(OLLAMA);
    let base = gateway.ollama();
    let Some(told) = gateway.run(script, "ollama", &[&base]) else { return };
    check(
        script,
        &told,
        json!({
            "tags": llm_answers::tags(),
            "show": [["completion", "tools", "vision"], 128_000, "mock"],
            "chat": [text(), "stop", 11, 7],
            "stream": [text(), 5, true, 1, 7],
            "tools": two_calls(),
            "streamed_tools": two_calls(),
            "tool_result": "The tool said 21 degrees",
            "image": IMAGE,
            "thinking": [THOUGHT, text()],
            "generate": text(),
            "streamed_generate": text(),
            "embed": two_vectors(),
            "embeddings": [0.25, -0.5, 0.5],
            "cancel": 2,
        }),
    );
    check_raised(script, &told, "unknown_model", "ResponseError", 404, "no-such-model");
    check_raised(script, &told, "unknown_show", "ResponseError", 404, "no-such-model");
    check_raised(script, &told, "rate_limit", "ResponseError", 429, "Rate limit");
    for case in ["inband", "cut", "pull"] {
        assert!(told[case]["raised"].is_string(), "{script}, {case}: {}", told[case]);
    }
    gateway.check_cancelled(script);
    gateway.check_secrets(script);
}

#[test]
fn langchain_ollama() {
    let (gateway, script) = (Gateway::with(OLLAMA), "langchain_ollama_cases.py");
    let Some(told) = gateway.run(script, "langchain-ollama", &[&gateway.ollama()]) else { return };
    check(
        script,
        &told,
        json!({
            "chat": [text(), 18],
            "stream": [text(), 5],
            "tools": two_calls(),
            "streamed_tools": two_calls(),
            "image": IMAGE,
            "thinking": [THOUGHT, text()],
            "structured": text(),
            "embeddings": two_vectors(),
        }),
    );
    check_raised(script, &told, "unknown_model", "ResponseError", 404, "no-such-model");
    check_raised(script, &told, "rate_limit", "ResponseError", 429, "Rate limit");
    gateway.check_secrets(script);
}
