//! `llmproxy doctor`: names each fault that is seeded, and none at a right set-up. Faults are seeded by what the Proxyfile
//! says; what it cannot be made to do wrong is done by a careless filter in front of it.

use crate::harness::client::Connection;
use crate::harness::in_parallel;
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::upstream::{read_body, read_head, spawn};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

const TOKEN: &str = "token-of-the-doctor-in-tests";
const SECRET: &str = "secret-path-of-the-doctor";

/// Runs the doctor; its report and exit code.
fn examine(folder: &std::path::Path, arguments: &[&str]) -> (Value, i32) {
    let mut doctor = command(Which::Llmproxy, folder);
    doctor.arg("doctor").args(arguments).arg("--json").env("LLMPROXY_TOKEN", TOKEN);
    let output = run_within(&mut doctor, Duration::from_secs(120));
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {said}"));
    assert!(!String::from_utf8_lossy(&output.stdout).contains(TOKEN), "the report shows the token: {report}");
    (report, output.status.code().unwrap())
}

fn rehearse(proxyfile: &str, arguments: &[&str]) -> (Value, i32) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Proxyfile"), proxyfile).unwrap();
    examine(folder.path(), arguments)
}

fn faults(report: &Value) -> BTreeSet<&str> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks.filter(|c| c["outcome"] == "fault").map(|c| c["check"].as_str().unwrap()).collect()
}

/// Each fault listed as not to be copied: what is added to the site, and the check that must tell.
const SEEDED: [(&str, &str, &str); 9] = [
    (
        "OPTIONS goes up with the key, without a token",
        "@options method OPTIONS\nhandle @options {\n\treverse_proxy https://api.example.com {\n\t\theader_up Authorization \"Bearer sk-real-key\"\n\t}\n}",
        "options",
    ),
    (
        "text inside an answer is rewritten",
        "handle /v1/chat/completions {\n\treverse_proxy https://api.example.com {\n\t\t@all status 2xx\n\t\thandle_response @all {\n\t\t\trespond `{\"choices\":[{\"message\":{\"content\":\"rewritten\"}}]}`\n\t\t}\n\t}\n}",
        "chat",
    ),
    (
        "what clients say of themselves goes up",
        "handle /v1/chat/completions {\n\treverse_proxy https://api.example.com {\n\t\theader_up X-Forwarded-For {http.vars.said}\n\t}\n\tvars said {header.X-Forwarded-For}\n}",
        "forwarded-for",
    ),
    ("credentials in the log", "log", "log"),
    ("no /api/version", "handle /secret-path-of-the-doctor/api/version {\n\trespond \"not found\" 404\n}", "version"),
    (
        "tags of two fields",
        "handle /secret-path-of-the-doctor/api/tags {\n\trespond `{\"models\":[{\"name\":\"m\",\"model\":\"m\"}]}`\n}",
        "tags",
    ),
    (
        "one body for every model, without a context length",
        "handle /secret-path-of-the-doctor/api/show {\n\trespond `{\"model_info\":{\"general.architecture\":\"CausalLM\"},\"capabilities\":[\"chat\",\"tools\"]}`\n}",
        "context",
    ),
    (
        "an upstream that is away is told as text",
        "handle_errors {\n\trespond \"Internal Server Error\" 500\n}",
        "unreachable",
    ),
    (
        "a connection for each request",
        "handle /v1/chat/completions {\n\treverse_proxy https://api.example.com {\n\t\ttransport http {\n\t\t\tkeepalive off\n\t\t}\n\t}\n}",
        "connections",
    ),
];

/// A site for every client, with `seed` in front.
fn site(seed: &str) -> String {
    let credentials = if seed == "log" { "{\n\tservers {\n\t\tlog_credentials\n\t}\n}\n" } else { "" };
    format!(
        "{credentials}llm.example.com {{
	{seed}
	handle {{
		cors
		auth_token {TOKEN}
		ollama_compat {{
			secret token1 /{SECRET}
		}}
		cursor_compat
		reverse_proxy https://api.example.com {{
			header_up Authorization \"Bearer sk-real-key-of-the-upstream\"
		}}
	}}
}}
"
    )
}

/// Every client is served by the site alone: no fault, and no warning either.
#[test]
fn a_right_site_has_no_fault() {
    let (report, code) = rehearse(&site(""), &["--ollama-path", SECRET, "--site", "llm.example.com"]);
    let told = report["checks"].as_array().unwrap().iter().filter(|c| c["outcome"] != "ok");
    let told: Vec<&Value> = told.collect();
    assert!(told.is_empty() && code == 0, "{told:#?}");
    assert!(report["checks"].as_array().unwrap().len() > 25, "{report:#}");
}

/// Placeholders are read by the configuration that runs, so it needs the files too.
#[test]
fn a_rehearsal_has_the_variables_of_env_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Proxyfile"), site("").replace(TOKEN, "{env.TOKEN_OF_CLIENTS}")).unwrap();
    std::fs::write(folder.path().join("keys"), format!("TOKEN_OF_CLIENTS={TOKEN}\n")).unwrap();
    let (report, code) = examine(folder.path(), &["--envfile", "keys", "--client", "sdk"]);
    assert_eq!((faults(&report), code), (BTreeSet::new(), 0), "{report:#}");
}

/// A token for some models is no fault of everything else: it is told once, with what to do.
#[test]
fn a_model_that_the_token_may_not_use_is_told_once() {
    let line = format!("auth_token {TOKEN}");
    let block = format!("auth_token {{\n\t\t\ttoken token1 {TOKEN} {{\n\t\t\t\tmodels gpt-*\n\t\t\t}}\n\t\t}}");
    let narrow = site("").replace(&line, &block);
    let (report, _) = rehearse(&narrow, &["--client", "sdk"]);
    assert_eq!(faults(&report), BTreeSet::from(["chat"]), "{report:#}");
    assert!(report.to_string().contains("--model NAME"), "{report:#}");
    let (report, code) = rehearse(&narrow, &["--client", "sdk", "--model", "gpt-4o"]);
    assert_eq!((faults(&report), code), (BTreeSet::new(), 0), "{report:#}");
}

#[test]
fn each_seeded_fault_is_named() {
    let arguments = ["--ollama-path", SECRET];
    let missed: Vec<String> = in_parallel(&SEEDED, |(what, seed, check)| {
        let (report, code) = rehearse(&site(seed), &arguments);
        let named = faults(&report).contains(check) && code == 1;
        (!named).then(|| format!("{what}: `{check}` is not told: {report:#}"))
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn a_filter_that_works_read_by_read_is_named() {
    for (filter, says) in [(Filter::Field, "where two reads part it"), (Filter::Text, "UTF-8")] {
        let (port, upstream_port) = (free_port(), free_port());
        let filtered = filtering(filter, upstream_port);
        let file =
            format!("http://127.0.0.1:{port} {{\n\tauth_token {TOKEN}\n\treverse_proxy 127.0.0.1:{filtered}\n}}\n");
        let _proxy = Proxy::start(Which::Llmproxy, &file, port);
        let (url, listen) = (format!("http://127.0.0.1:{port}/v1"), format!("127.0.0.1:{upstream_port}"));
        let folder = tempfile::tempdir().unwrap();
        let (report, code) = examine(folder.path(), &[&url, "--upstream-listen", &listen, "--client", "sdk"]);
        assert!(faults(&report).contains("stream") && code == 1, "{filter:?}: {report:#}");
        assert!(report.to_string().contains(says), "{filter:?}: {report:#}");
    }
}

#[test]
fn without_its_upstream_it_asks_a_running_gateway() {
    let (sample, port) = (free_port(), free_port());
    let file = format!(
        "http://127.0.0.1:{port} {{\n\tauth_token {TOKEN}\n\treverse_proxy 127.0.0.1:{sample}\n}}\nhttp://127.0.0.1:{sample} {{\n\tsample_llm\n}}\n"
    );
    let proxy = Proxy::start(Which::Llmproxy, &file, port);
    let (url, log) = (format!("http://127.0.0.1:{port}"), proxy.directory.path().join("log"));
    let log = log.display().to_string();
    let arguments = [&url, "--client", "sdk", "--model", "sample-chat", "--log", &log];
    let (report, code) = examine(proxy.directory.path(), &arguments);
    assert_eq!((faults(&report), code), (BTreeSet::new(), 0), "{report:#}");

    std::fs::write(&log, format!("a line\n{TOKEN}\n")).unwrap();
    let (report, code) = examine(proxy.directory.path(), &arguments);
    assert_eq!((faults(&report), code), (BTreeSet::from(["log"]), 1), "{report:#}");

    drop(proxy);
    let folder = tempfile::tempdir().unwrap();
    let (report, code) = examine(folder.path(), &[&url]);
    assert_eq!((faults(&report), code), (BTreeSet::from(["reachable"]), 1), "{report:#}");
}

#[test]
fn what_cannot_be_examined_is_said_plainly() {
    let said = |proxyfile: &str, arguments: &[&str], token: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Proxyfile"), proxyfile).unwrap();
        let mut doctor = command(Which::Llmproxy, folder.path());
        doctor.arg("doctor").args(arguments).env("LLMPROXY_TOKEN", token);
        let output = run_within(&mut doctor, Duration::from_secs(60));
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    };
    assert!(said("a.test {\n\trespond ok\n}\n", &[], TOKEN).contains("no site of the file has a `reverse_proxy`"));
    assert!(said("a.test {\n\trespnd ok\n}\n", &[], TOKEN).contains("unknown-directive"));
    assert!(said(&site(""), &["--site", "other.test"], TOKEN).contains("no site `other.test`"));
    assert!(said(&site(""), &["--client", "emacs"], TOKEN).contains("copilot, cursor"));
    assert!(said(&site(""), &[], "short").contains("at least 8 characters"));
    assert!(said(&site(""), &["ftp://a.test"], TOKEN).contains("https:// or http://"));
    let wrong = said(&site(""), &["--site", "llm.example.com"], "some-other-token");
    assert!(wrong.contains("set LLMPROXY_TOKEN") && wrong.contains("faults: 1,"), "{wrong}");
    assert!(!wrong.contains("some-other-token"), "{wrong}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    /// Takes `,"finish_reason":null` out of each read.
    Field,
    /// Decodes each read as text.
    Text,
}

/// A proxy to `upstream` that edits its streams read by read.
fn filtering(filter: Filter, upstream: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(move || {
        for stream in listener.incoming().flatten() {
            spawn(move || drop(filtered(&stream, filter, upstream)));
        }
    });
    port
}

fn filtered(mut stream: &TcpStream, filter: Filter, upstream: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_head(&mut reader)? {
        let body = read_body(&request, &mut reader, |_, bytes| stream.write_all(bytes))?.bytes;
        if TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).is_err() {
            return Ok(());
        }
        let mut behind = Connection::open(upstream);
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: up\r\nContent-Length: {}\r\n\r\n",
            request.method,
            request.target,
            body.len()
        );
        behind.send([head.as_bytes(), &body].concat());
        let Ok(head) = behind.head(false) else { return Ok(()) };
        let kind = head.header("content-type").unwrap_or("text/plain");
        let head =
            format!("HTTP/1.1 {} Said\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n", head.status);
        stream.write_all(head.as_bytes())?;
        while let Some(piece) = behind.piece() {
            let piece = match filter {
                Filter::Text => String::from_utf8_lossy(&piece).into_owned().into_bytes(),
                Filter::Field => {
                    let field = b",\"finish_reason\":null";
                    match piece.windows(field.len()).position(|w| w == field) {
                        Some(at) => [&piece[..at], &piece[at + field.len()..]].concat(),
                        None => piece,
                    }
                }
            };
            stream.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat())?;
        }
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}
