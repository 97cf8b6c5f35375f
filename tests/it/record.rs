//! `record` and `show`: what a record holds, what it never holds, and that traffic does not depend on it.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, free_port, run_within};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TOKEN: &str = "t0ken-of-the-client";
const KEY: &str = "k3y-of-the-upstream";
const CHAT: &str =
    r#"{"model":"sample-small","stream":true,"messages":[{"role":"user","content":"say \u001b[31m red"}]}"#;

/// A recording proxy in front of a sample upstream that asks for a key.
fn start(record: &str) -> (Proxy, u16) {
    let (port, upstream) = (free_port(), free_port());
    let file = format!(
        "{{\n\tadmin off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\t{record}\n\tauth_token {{$TOKEN}}\n\t\
         reverse_proxy 127.0.0.1:{upstream} {{\n\t\theader_up Authorization \"Bearer {{$KEY}}\"\n\t\theader_up X-Extra {{$KEY}}\n\t}}\n}}\n\n\
         http://:{upstream} {{\n\tbind 127.0.0.1\n\tsample_llm {{\n\t\trequire_key\n\t\tdelay 20ms\n\t}}\n}}\n"
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.env("TOKEN", TOKEN).env("KEY", KEY);
    });
    (proxy, port)
}

fn chat(token: &str) -> String {
    format!(
        "POST /v1/chat/completions?key={token} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{CHAT}",
        CHAT.len()
    )
}

/// The ended records of the folder, once there are `count` of them.
fn records(proxy: &Proxy, count: usize) -> Vec<PathBuf> {
    let folder = proxy.directory.path().join("records");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
        paths.sort();
        if paths.len() >= count {
            assert_eq!(paths.len(), count, "{paths:?}");
            return paths;
        }
        assert!(Instant::now() < until, "{paths:?}; the proxy said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The pieces of a body, joined.
fn body(lines: &[Value], leg: &str, event: &str) -> String {
    let of = |line: &&Value| line["leg"] == leg && line["event"] == event;
    lines.iter().filter(of).map(|line| line["text"].as_str().unwrap()).collect()
}

fn show(proxy: &Proxy, args: &[&str]) -> String {
    let mut command = proxy.command(Which::Llmproxy);
    let output = run_within(command.arg("show").args(args), Duration::from_secs(20));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_legs_of_a_stream_are_recorded_and_shown_without_credentials() {
    let (proxy, port) = start("record records");
    let answer = client::request(port, chat(TOKEN)).unwrap();
    assert_eq!(answer.status(), 200);
    let refused = client::request(port, chat("wrong")).unwrap();
    assert_eq!(refused.status(), 401);

    let paths = records(&proxy, 2);
    let recorded = lines(&paths[0]);
    assert_eq!(body(&recorded, "client", "request_body"), CHAT);
    assert_eq!(body(&recorded, "upstream", "request_body"), CHAT);
    assert_eq!(body(&recorded, "upstream", "response_body"), answer.text());
    assert_eq!(body(&recorded, "client", "response_body"), answer.text());
    let last = recorded.last().unwrap();
    assert_eq!((last["event"].as_str(), last.get("truncated"), last.get("gaps")), (Some("end"), None, None));
    let chunks = recorded.iter().filter(|l| l["leg"] == "client" && l["event"] == "response_body").count();
    assert!(chunks > 3, "a stream has many pieces: {chunks}");
    let user = recorded.iter().find(|l| l["event"] == "user");
    assert!(user.is_none() || user.unwrap()["user"].is_string());

    // Refused before the proxy: one leg alone.
    let recorded = lines(&paths[1]);
    assert!(recorded.iter().all(|l| l["leg"] != "upstream"));
    assert!(recorded.iter().any(|l| l["event"] == "response" && l["status"] == 401));

    let shown = show(&proxy, &[paths[0].to_str().unwrap()]);
    let raw = show(&proxy, &["--raw", paths[0].to_str().unwrap()]);
    let json = show(&proxy, &["--json", paths[0].to_str().unwrap()]);
    let listed = show(&proxy, &["records"]);
    for said in [&shown, &raw, &json, &listed, &std::fs::read_to_string(&paths[0]).unwrap(), &proxy.log()] {
        for secret in [TOKEN, KEY, "wrong"] {
            assert!(!said.contains(secret), "{secret} is in:\n{said}");
        }
        assert!(!said.contains('\u{1b}'), "a control character reaches the terminal");
    }
    let said: Value = serde_json::from_str(&json).unwrap();
    let text = said["client"]["response"]["body"]["content"].as_str().unwrap();
    assert_eq!(text, answer.text());
    let joined = said["client"]["response"]["says"]["choices"]["0"]["text"].as_str().unwrap();
    assert!(!joined.is_empty() && shown.contains("--- text ---"), "{shown}");
    // `auth_token` takes its token out of the query; one that it does not know is somebody's key all the same.
    assert!(shown.contains("POST /v1/chat/completions HTTP/1.1"), "{shown}");
    assert!(listed.contains("completions?key=REDACTED"), "{listed}");
    assert!(shown.contains("(as the client sent it)") && shown.contains("x-extra: REDACTED"), "{shown}");
    assert!(raw.contains("+0.") && listed.lines().count() == 2 && listed.contains("401"), "{listed}");
}

#[test]
fn who_leaves_and_who_is_not_meant() {
    let (proxy, port) = start("record @chat records {\n\t\tredact_header X-Mine\n\t}\n\t@chat path /v1/chat/*");
    let mut connection = Connection::open(port);
    connection.send(chat(TOKEN));
    connection.head(false).unwrap();
    connection.piece().unwrap();
    drop(connection);
    let recorded = lines(&records(&proxy, 1)[0]);
    let end =
        |leg: &str| recorded.iter().find(|l| l["leg"] == leg && l["event"] == "response_end").unwrap()["how"].clone();
    assert_eq!((end("client"), end("upstream")), (Value::from("gone"), Value::from("gone")));
    // Another path: the matcher says no.
    let request = format!("GET /v1/models HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(client::request(port, request).unwrap().status(), 200);
    assert_eq!(client::request(port, chat(TOKEN)).unwrap().status(), 200);
    records(&proxy, 2);
}

#[test]
fn a_folder_that_cannot_be_written_costs_nothing_but_records() {
    let (proxy, port) = start("record records");
    let folder = proxy.directory.path().join("records");
    std::fs::write(&folder, "in the way").unwrap();
    assert_eq!(client::request(port, chat(TOKEN)).unwrap().status(), 200);
    let until = Instant::now() + Duration::from_secs(20);
    while !proxy.log().contains("cannot write records") {
        assert!(Instant::now() < until, "{}", proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::remove_file(&folder).unwrap();
    assert_eq!(client::request(port, chat(TOKEN)).unwrap().status(), 200);
    records(&proxy, 1);
}
