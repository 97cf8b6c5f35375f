//! `usage` and `llmproxy usage`: what is kept of calls, what it costs, and that neither kill -9 nor a broken file spoils it.

use crate::harness::client;
use crate::harness::long;
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A metered site with two callers in front of the sample upstream.
fn file(port: u16, upstream: u16, options: &str, usage: &str) -> String {
    format!(
        "{{\n\tadmin off\n\tusage {{\n\t\tledger usage.db\n\t\tflush 20ms\n\t\tprice sample-small in 1 cached 0.5 out 2\n\t\t{options}\n\t}}\n}}\n\n\
         http://:{port} {{\n\tbind 127.0.0.1\n\tauth_token {{\n\t\ttoken ann token-of-ann {{\n\t\t\tteam core\n\t\t\ttag cost-centre 42\n\t\t}}\n\
         \t\ttoken bob token-of-bob\n\t}}\n\t{usage}\n\treverse_proxy 127.0.0.1:{upstream}\n}}\n\n\
         http://:{upstream} {{\n\tbind 127.0.0.1\n\tusage off\n\tsample_llm {{\n\t\tdelay 1ms\n\t}}\n}}\n"
    )
}

fn start(options: &str, usage: &str) -> (Proxy, u16) {
    let (port, upstream) = (free_port(), free_port());
    let proxy = Proxy::start(Which::Llmproxy, &file(port, upstream, options, usage), port);
    (proxy, port)
}

fn call(user: &str, model: &str, stream: bool) -> String {
    let body =
        format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"Hello there"}}]}}"#);
    post("/v1/chat/completions", user, &body)
}

fn post(path: &str, user: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer token-of-{user}\r\nX-Project: blue\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What `llmproxy usage` prints.
fn usage_of(command: &mut Command, args: &[&str]) -> String {
    let output = run_within(command.arg("usage").args(args), PATIENCE);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Of the running proxy, which tells where its ledger is.
fn usage(proxy: &Proxy, args: &[&str]) -> String {
    usage_of(&mut proxy.command(Which::Llmproxy), args)
}

/// Its calls, once there are `count`.
fn calls(proxy: &Proxy, count: usize) -> Vec<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = usage(proxy, &["export", "--json"]);
        let calls: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if calls.len() >= count {
            return calls;
        }
        assert!(Instant::now() < until, "{text}; the proxy said:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn calls_are_counted_priced_labelled_and_shown() {
    let (mut proxy, port) = start("", "usage {\n\t\ttag project {header.X-Project}\n\t\troute chat\n\t}");
    let answer = client::request(port, call("ann", "sample-small", false)).unwrap();
    let told = &answer.json()["usage"];
    let (input, output) = (told["prompt_tokens"].as_i64().unwrap(), told["completion_tokens"].as_i64().unwrap());
    assert!(input > 0 && output > 0);
    assert_eq!(client::request(port, call("bob", "sample-small", true)).unwrap().status(), 200);
    assert_eq!(client::request(port, call("bob", "sample-large", false)).unwrap().status(), 200);
    assert_eq!(client::request(port, call("eve", "sample-small", false)).unwrap().status(), 401);

    let calls = calls(&proxy, 3);
    assert_eq!(calls.len(), 3, "{calls:?}");
    let first = &calls[0];
    assert_eq!(
        (&first["user"], &first["team"], &first["model"]),
        (&"ann".into(), &"core".into(), &"sample-small".into())
    );
    assert_eq!((first["input"].as_i64(), first["output"].as_i64()), (Some(input), Some(output)));
    // One dollar a million in, two out: a thousand and two thousand nanodollars a token; what was cached is half as dear.
    let cached = first["cached"].as_i64().unwrap();
    assert_eq!(first["cost"].as_i64(), Some(1_000 * (input - cached) + 500 * cached + 2_000 * output));
    assert_eq!(
        (&first["certainty"], &first["endpoint"], &first["route"]),
        (&"exact".into(), &"chat".into(), &"chat".into())
    );
    assert_eq!(first["tags"], serde_json::json!({"cost-centre": "42", "project": "blue"}));
    assert_eq!(first["stream"], false);
    let stream = &calls[1];
    assert_eq!(
        (&stream["user"], &stream["stream"], &stream["certainty"]),
        (&"bob".into(), &true.into(), &"exact".into())
    );
    assert!(stream["first_byte_ms"].as_i64() <= stream["duration_ms"].as_i64(), "{stream}");
    assert!(calls[2].get("cost").is_none(), "{}", calls[2]);

    let by_model: Value = serde_json::from_str(&usage(&proxy, &["--json"])).unwrap();
    assert_eq!(by_model[0]["model"], "sample-small");
    assert_eq!(by_model[0]["calls"], 2);
    // Not zero: not known.
    assert_eq!(
        (&by_model[1]["model"], &by_model[1]["cost_usd"], &by_model[1]["unpriced"]),
        (&"sample-large".into(), &Value::Null, &1.into())
    );
    let table = usage(&proxy, &["--by", "user,tag.project", "--since", "1h"]);
    assert!(table.starts_with("user   tag.project  calls  failed"), "{table}");
    assert!(table.contains("no price: 1 call of sample-large"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("bob") && line.ends_with("+ 1 unpriced")), "{table}");
    let csv = usage(&proxy, &["--by", "team", "--csv"]);
    assert!(csv.lines().any(|line| line.starts_with("core,1,0,0,0,0,")), "{csv}");
    // Once a model, however often it is called.
    assert_eq!(client::request(port, call("bob", "sample-large", false)).unwrap().status(), 200);
    self::calls(&proxy, 4);
    assert_eq!(proxy.log().matches("no price is known of this model").count(), 1, "{}", proxy.log());
    let status = run_within(proxy.command(Which::Llmproxy).arg("status"), PATIENCE);
    assert!(String::from_utf8_lossy(&status.stdout).contains("usage.db\n"));
    // The end leaves one file, for whoever copies it.
    assert!(run_within(proxy.command(Which::Llmproxy).arg("stop"), PATIENCE).status.success());
    assert!(proxy.ends_within(PATIENCE).is_some());
    assert!(!proxy.directory.path().join("usage.db-wal").exists());
    assert_eq!(exported(proxy.directory.path()), 4);
}

#[test]
fn what_takes_requests_out_takes_them_out() {
    let (proxy, port) = start("", "usage /v1/chat/* off");
    assert_eq!(client::request(port, call("ann", "sample-small", true)).unwrap().status(), 200);
    let embed = post("/v1/embeddings", "ann", r#"{"model":"sample-small","input":"Hello there"}"#);
    assert_eq!(client::request(port, embed).unwrap().status(), 200);
    let calls = calls(&proxy, 1);
    assert_eq!((calls.len(), &calls[0]["endpoint"]), (1, &"embeddings".into()), "{calls:?}");
}

/// Sends a request and reads the answer, of a proxy that may be gone at any moment.
fn send(port: u16, request: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    stream.read_to_end(&mut Vec::new())
}

/// Killed when it is let go, however the test ends.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs load against a proxy, kills it, and looks at what is left. Answers how many calls the ledger then holds.
fn killed_under_load(directory: &Path, port: u16, proxy: Running) -> usize {
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let before = std::thread::scope(|scope| {
        for n in 0..4 {
            let (stop, sent) = (&stop, &sent);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    if send(port, &call(["ann", "bob"][n % 2], "sample-small", n < 2)).is_err() {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            });
        }
        let until = Instant::now() + PATIENCE;
        let ledger = directory.join("usage.db");
        let written = || if ledger.exists() { exported(directory) } else { 0 };
        let begin = written();
        let mut seen = begin;
        while seen < begin + 20 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            seen = written();
        }
        drop(proxy);
        stop.store(true, Ordering::Relaxed);
        assert!(seen >= begin + 20, "nothing is written under load: {seen} calls after {begin}");
        seen
    });
    let after = exported(directory);
    assert!(after >= before, "{after} calls are left of {before} that were written");
    // Calls and sums of days are of one transaction.
    let days: Value = serde_json::from_str(&usage_of(
        &mut command(Which::Llmproxy, directory),
        &["--by", "day", "--json", "--ledger", "usage.db"],
    ))
    .unwrap();
    let of_days: i64 = days.as_array().unwrap().iter().map(|day| day["calls"].as_i64().unwrap()).sum();
    assert_eq!(of_days, i64::try_from(after).unwrap());
    after
}

fn exported(directory: &Path) -> usize {
    let mut command = command(Which::Llmproxy, directory);
    let output = run_within(command.args(["usage", "export", "--json", "--ledger", "usage.db"]), PATIENCE);
    // In its first moment the file is empty.
    if output.status.success() { output.stdout.iter().filter(|c| **c == b'\n').count() } else { 0 }
}

#[test]
fn kill_9_under_load_leaves_a_whole_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let (port, upstream) = (free_port(), free_port());
    std::fs::write(directory.path().join("Proxyfile"), file(port, upstream, "", "")).unwrap();
    let mut calls = 0;
    for round in 0..if long() { 100 } else { 5 } {
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut run = command(Which::Llmproxy, directory.path());
        run.args(["run", "--config", "Proxyfile"]).stdout(log.try_clone().unwrap()).stderr(log);
        calls = killed_under_load(directory.path(), port, Running(run.spawn().unwrap())).max(calls);
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(!log.contains("broken"), "round {round}: {log}");
    }
    assert!(calls >= 100);
}

#[test]
fn a_broken_ledger_is_set_aside_and_told() {
    let (port, upstream) = (free_port(), free_port());
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file(port, upstream, "", ""), port, |command| {
        let directory = command.get_current_dir().unwrap();
        std::fs::write(directory.join("usage.db"), vec![b'x'; 10_000]).unwrap();
    });
    assert_eq!(client::request(port, call("ann", "sample-small", false)).unwrap().status(), 200);
    assert_eq!(calls(&proxy, 1).len(), 1);
    assert!(proxy.log().contains("the ledger is broken"), "{}", proxy.log());
    let names = std::fs::read_dir(proxy.directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = names.filter(|path| path.to_string_lossy().contains("usage.db.corrupt-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read(&kept[0]).unwrap(), vec![b'x'; 10_000]);
}

#[test]
fn what_is_no_ledger_is_refused_and_left_alone() {
    let (port, upstream) = (free_port(), free_port());
    let text = file(port, upstream, "", "").replace("usage.db", "notes.txt");
    let notes = "all that I know\n".repeat(100);
    let started = Proxy::try_start(Which::Llmproxy, "Proxyfile", &text, port, |command| {
        std::fs::write(command.get_current_dir().unwrap().join("notes.txt"), &notes).unwrap();
    });
    let why = started.err().expect("it must not run");
    assert!(why.contains("notes.txt is not a ledger of llmproxy"), "{why}");
}

#[test]
fn a_reload_keeps_the_ledger_and_validating_touches_none() {
    let (port, upstream) = (free_port(), free_port());
    let text = file(port, upstream, "", "");
    let proxy = Proxy::start(Which::Llmproxy, &text, port);
    assert_eq!(client::request(port, call("ann", "sample-small", false)).unwrap().status(), 200);
    let other = proxy.directory.path().join("Other");
    std::fs::write(&other, text.replace("usage.db", "other.db")).unwrap();
    let run = |args: &[&str]| run_within(proxy.command(Which::Llmproxy).args(args), PATIENCE);
    assert!(run(&["validate", "--config", "Other"]).status.success());
    assert!(!proxy.directory.path().join("other.db").exists());
    std::fs::write(&proxy.config, text.replace("\"Hello", "\"Hullo") + "\n# changed\n").unwrap();
    let reloaded = run(&["reload", "--force"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert_eq!(client::request(port, call("bob", "sample-small", true)).unwrap().status(), 200);
    assert_eq!(calls(&proxy, 2).len(), 2);
    // Another file: the first is written to its end.
    let switched = run(&["reload", "--config", "Other"]);
    assert!(switched.status.success(), "{}", String::from_utf8_lossy(&switched.stderr));
    assert_eq!(client::request(port, call("bob", "sample-small", true)).unwrap().status(), 200);
    assert_eq!(calls(&proxy, 1).len(), 1);
    assert_eq!(exported(proxy.directory.path()), 2);
    // A folder that cannot be: the old configuration goes on.
    std::fs::write(&other, text.replace("usage.db", "Proxyfile/usage.db")).unwrap();
    let refused = run(&["reload", "--config", "Other"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the usage ledger cannot be opened"));
    assert_eq!(client::request(port, call("bob", "sample-small", true)).unwrap().status(), 200);
    assert_eq!(calls(&proxy, 2).len(), 2);
}
