//! `new-token` and `hash-token`: what they print lets in whom they say.

use crate::harness::client;
use crate::harness::process::{Proxy, Which, free_port, llmproxy, run_within};
use std::process::{Command, Output};
use std::time::Duration;

fn run(arguments: &[&str], input: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("input"), input).unwrap();
    let mut shell = Command::new("sh");
    shell.current_dir(directory.path()).args(["-c", "exec \"$0\" \"$@\" < input"]).arg(llmproxy()).args(arguments);
    run_within(&mut shell, Duration::from_secs(20))
}

fn printed(arguments: &[&str], input: &str) -> String {
    let output = run(arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn made_and_hashed_tokens_open() {
    let made = printed(&["new-token", "my_ide", "--models", "gpt-4o*,o3", "--team", "core", "--tag", "cost=42"], "");
    let field = |name: &str| made.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    let (token, line) = (field("token:"), field("line:"));
    assert!(token.starts_with("llmp_my_ide_") && line.ends_with("models=gpt-4o*,o3 team=core tag.cost=42"), "{line}");
    assert!(!line.contains(&token));

    let hash = printed(&["hash-token"], "a-token-that-i-had\n");
    let slow = printed(&["hash-token", "--algorithm", "argon2"], "llmp_bob_hunter2");
    assert!(slow.starts_with("$argon2id$"), "{slow}");
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, format!("{line}\nold {}\nbob {}\n", hash.trim(), slow.trim())).unwrap();
    let port = free_port();
    let text = format!(
        "http://:{port} {{\n\tbind 127.0.0.1\n\tauth_token {{\n\t\tfile {}\n\t}}\n\trespond {{auth.id}}\n}}\n",
        tokens.display()
    );
    let _proxy = Proxy::start(Which::Llmproxy, &text, port);
    let ask = |token: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
        let response = client::request(port, request).unwrap();
        if response.status() == 200 { response.text() } else { response.status().to_string() }
    };
    assert_eq!(ask(&token), "my_ide");
    assert_eq!(ask("a-token-that-i-had"), "old");
    assert_eq!(
        (ask("llmp_bob_hunter2"), ask("llmp_bob_hunter2"), ask("llmp_bob_hunter3")),
        ("bob".into(), "bob".into(), "401".into())
    );
    assert_eq!(ask(hash.trim()), "401", "the hash is not the token");
}

#[test]
fn what_cannot_work_is_refused() {
    for (arguments, input) in [
        (&["new-token", "a b"][..], ""),
        (&["new-token", "ide", "--expires", "soon"], ""),
        (&["new-token", "ide", "--team", "two words"], ""),
        (&["new-token", "ide", "--tag", "no-value"], ""),
        (&["hash-token"], "\n"),
        (&["hash-token"], "two words"),
        (&["hash-token", "--algorithm", "md5"], "a-token-that-i-had"),
        (&["hash-token", "--algorithm", "argon2"], "a-token-without-a-name"),
    ] {
        let output = run(arguments, input);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty() && !said.is_empty(), "{arguments:?}");
        assert!(!said.contains("a-token"), "{said}");
    }
}
