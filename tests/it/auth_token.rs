//! `auth_token` in front of an upstream: who gets in, what is said to those who do not, and that the client's credential
//! never goes up.

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::upstream::Upstream;
use std::time::Duration;

const TOKEN: &str = "team-token-of-the-test";

fn start(upstream: &Upstream, line: &str) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "http://:{port} {{\n\tbind 127.0.0.1\n\t{line}\n\treverse_proxy {} {{\n\t\theader_up X-Upstream-Key real\n\t}}\n}}\n",
        upstream.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.env("TOKEN", TOKEN);
    });
    (proxy, port)
}

fn ask(port: u16, header: &str) -> Response {
    client::request(port, format!("GET /v1/models HTTP/1.1\r\nHost: api.test\r\n{header}\r\n")).unwrap()
}

#[test]
fn each_spelling_opens_and_never_goes_up() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream, "auth_token {$TOKEN}");
    for header in [
        "Authorization: Bearer ",
        "Authorization: bearer ",
        "Authorization: ",
        "X-Api-Key: ",
        "x-api-key: ",
        "api-key: ",
        "x-goog-api-key: ",
    ] {
        let response = ask(port, &format!("{header}{TOKEN}\r\nX-Other: kept\r\n"));
        assert_eq!(response.status(), 200, "{header}");
        let seen = response.json()["headers"].to_string();
        assert!(!seen.contains(TOKEN), "{header} goes up: {seen}");
        assert!(seen.contains("kept") && seen.contains("real"), "{seen}");
    }
}

#[test]
fn everyone_else_gets_openais_401() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream, "auth_token {$TOKEN}");
    let prefix = &TOKEN[..TOKEN.len() - 1];
    for header in [
        String::new(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization:\r\n".to_owned(),
        "X-Api-Key:\r\n".to_owned(),
        format!("Authorization: Bearer {prefix}\r\n"),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Bearer {}\r\n", TOKEN.to_uppercase()),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("X-Token: {TOKEN}\r\n"),
        "Authorization: Bearer {$TOKEN}\r\n".to_owned(),
    ] {
        let response = ask(port, &header);
        assert_eq!(response.status(), 401, "{header}");
        assert!(response.header("content-type").unwrap().starts_with("application/json"), "{header}");
        let error = response.json()["error"].clone();
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        assert!(!response.text().contains(prefix), "the answer holds a credential: {}", response.text());
    }
    assert!(upstream.events().is_empty(), "{:?}", upstream.events());
}

#[test]
fn a_matcher_limits_it() {
    let upstream = Upstream::start("U");
    let (_proxy, port) = start(&upstream, "auth_token /v1/* {$TOKEN} second");
    assert_eq!(client::get(port, "/health").status(), 200);
    assert_eq!(client::get(port, "/v1/models").status(), 401);
    assert_eq!(ask(port, "Authorization: Bearer second\r\n").status(), 200);
}

#[test]
fn an_empty_token_is_an_error_and_no_open_door() {
    for line in
        ["auth_token {$NOT_SET}", "auth_token \"\"", "auth_token", "auth_token {env.NOT_SET}", "auth_token \" \""]
    {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Proxyfile"), format!(":8080 {{\n\t{line}\n\trespond \"open\"\n}}\n"))
            .unwrap();
        let mut validate = command(Which::Llmproxy, directory.path());
        let output = run_within(validate.args(["validate", "--config", "Proxyfile"]), Duration::from_secs(20));
        assert!(!output.status.success(), "accepted: {line}");
    }
}
