//! Planted secrets: clients' tokens, a secret path and upstreams' keys, sent through a site that does everything, in every
//! place where they are accepted, on every kind of path, well and badly, with the upstream well, refusing and away. None may
//! turn up on the other side, in an error, a log, a transcript or the status.

use crate::harness::client;
use crate::harness::llm_upstream::{KEY, LlmUpstream};
use crate::harness::process::{Proxy, Which, free_port, run_within};
use serde_json::json;
use std::time::Duration;

const TOKEN: &str = "planted-token-of-a-client";
const WRONG: &str = "planted-token-that-is-wrong";
const SECRET: &str = "planted-secret-path-0123456789";
/// Of the upstream that is away.
const SECOND_KEY: &str = "sk-planted-second-key";
/// The secret path, otherwise written.
const ESCAPED: &str = "planted%2Dsecret-path-0123456789";
const PLANTED: [&str; 6] = [TOKEN, WRONG, SECRET, ESCAPED, KEY, SECOND_KEY];

fn proxyfile(port: u16, upstream: &str, away: u16) -> String {
    format!(
        "{{
	log default {{
		level debug
	}}
}}
http://:{port} {{
	bind 127.0.0.1
	log
	record transcripts
	cors https://app.test
	auth_token {{
		token client {TOKEN}
	}}
	ollama_compat {{
		secret client {SECRET}
	}}
	cursor_compat
	@away path /away/*
	reverse_proxy @away 127.0.0.1:{away} {{
		header_up x-api-key {SECOND_KEY}
	}}
	reverse_proxy {upstream} {{
		header_up Authorization \"Bearer {{$UPSTREAM_KEY}}\"
	}}
}}
"
    )
}

/// Every place in which a credential is taken.
fn places(token: &str) -> Vec<(String, String)> {
    let header = |line: String| (String::new(), format!("{line}\r\n"));
    vec![
        header(format!("Authorization: Bearer {token}")),
        header(format!("Authorization: {token}")),
        header(format!("x-api-key: {token}")),
        header(format!("api-key: {token}")),
        header(format!("x-goog-api-key: {token}")),
        header(format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: realtime, openai-insecure-api-key.{token}"
        )),
        header(format!("Authorization: Bearer {token}\r\nx-api-key: {token}\r\nAnthropic-Version: 2023-06-01")),
        (format!("?key={token}&alt=sse"), String::new()),
    ]
}

fn bodies() -> Vec<String> {
    let chat = |model: &str, stream: bool| {
        json!({"model": model, "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
            .to_string()
    };
    vec![
        chat("mock-chat", false),
        chat("mock-chat", true),
        chat("mock-500", false),
        chat("mock-inband", true),
        chat("mock-cut", true),
        chat("no-such-model", false),
        "{\"model\":\"mock-chat\",\"Model\":\"other\"".to_owned(),
        "not json \u{0}\u{ff}".to_owned(),
        String::new(),
    ]
}

const PATHS: [(&str, &str); 14] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/no-such-model"),
    ("POST", "/api/chat"),
    ("POST", "/api/show"),
    ("GET", "/api/tags"),
    ("GET", "/v1/realtime"),
    ("OPTIONS", "/v1/chat/completions"),
    ("POST", "/away/v1/chat/completions"),
    ("POST", "/away/v1/messages"),
    ("BREW", "/coffee"),
    ("POST", "/v1beta/models/gemini-x:generateContent"),
];

#[test]
fn none_turns_up_anywhere() {
    let (upstream, port) = (LlmUpstream::start(), free_port());
    let file = proxyfile(port, &upstream.address(), free_port());
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.env("UPSTREAM_KEY", KEY);
    });
    let mut requests: Vec<(String, String)> = Vec::new();
    for (method, path) in PATHS {
        let bodies = if method == "POST" { bodies() } else { vec![String::new()] };
        for (number, body) in bodies.iter().enumerate() {
            // Each place with one body; each body with the most usual place.
            let places = if number == 0 { places(TOKEN) } else { places(TOKEN)[..1].to_vec() };
            for (query, headers) in places.into_iter().chain(places_of_wrong(number)) {
                requests.push(request(method, &format!("{path}{query}"), &headers, body));
            }
            requests.push(request(method, &format!("/{SECRET}{path}"), "", body));
            // A page that was opened under the secret path says so.
            let referer = format!("Referer: http://a.test/{SECRET}/api/tags\r\n");
            requests.push(request(method, &format!("/{SECRET}{path}"), &referer, body));
            if number == 0 {
                // As joined from a base that ends in a slash, and as some clients escape.
                requests.push(request(method, &format!("//{SECRET}/{path}"), "", body));
                requests.push(request(method, &format!("/{ESCAPED}{path}"), "", body));
            }
        }
    }
    let count = requests.len();
    let (mut well, mut refused) = (0, 0);
    for (what, bytes) in requests {
        let Ok(response) = client::request(port, bytes) else { continue };
        well += usize::from(response.status() == 200);
        refused += usize::from(response.status() == 401);
        let head: String = response.head.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let told = head + &response.text();
        for planted in PLANTED {
            assert!(!told.contains(planted), "{what} is told {planted}: {told}");
        }
    }
    // Or nothing would have been looked at.
    assert!(well > 20 && refused > 10 && count > 150, "{well} well, {refused} refused of {count}");

    for seen in upstream.seen() {
        let text = seen.text();
        for planted in [TOKEN, WRONG, SECRET, ESCAPED, SECOND_KEY] {
            assert!(!text.contains(planted), "{planted} went up: {text}");
        }
        assert!(seen.header("authorization").is_some_and(|v| v == format!("Bearer {KEY}")), "{text}");
    }
    assert!(upstream.seen().len() > 50);

    let status = run_within(proxy.command(Which::Llmproxy).args(["status", "--json"]), Duration::from_secs(10));
    let mut written = vec![("status".to_owned(), String::from_utf8_lossy(&status.stdout).into_owned())];
    // All that the program has written beside its configuration: the log, transcripts, state.
    collect(proxy.directory.path(), &mut written);
    assert!(written.iter().any(|(name, _)| name.contains("transcripts")), "no transcript to look at");
    assert!(written.iter().any(|(_, text)| text.contains("/v1/chat/completions")));
    for (name, text) in written {
        for planted in PLANTED {
            let line = text.lines().find(|line| line.contains(planted));
            assert!(line.is_none(), "{planted} is in {name}: {line:?}");
        }
    }
}

/// The wrong token is tried with the first body alone.
fn places_of_wrong(number: usize) -> Vec<(String, String)> {
    if number == 0 { places(WRONG) } else { Vec::new() }
}

/// What it is, for a message, and its bytes.
fn request(method: &str, target: &str, headers: &str, body: &str) -> (String, String) {
    let bytes = format!(
        "{method} {target} HTTP/1.1\r\nHost: api.test\r\nOrigin: https://app.test\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    (format!("{method} {target} {headers:?} {body:?}"), bytes)
}

fn collect(folder: &std::path::Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.file_name().is_some_and(|name| name != "Proxyfile" && name != "control.sock") {
            let bytes = std::fs::read(&path).unwrap_or_default();
            into.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}
