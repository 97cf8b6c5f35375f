//! The official OpenAI SDKs, Python and JavaScript, through llmproxy: in front of the stand-in for the API (whose key the
//! clients bring), and in front of `llmproxy sample-llm` with a token of the proxy's own.

use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::repository;
use crate::harness::standin::{KEY, PAUSE, Standin, WORDS};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn official_clients_through_the_proxy() {
    let (standin, port) = (Standin::start(), free_port());
    let file = format!(
        "http://127.0.0.1:{port} {{\n\treverse_proxy https://api.openai.com {{\n\t\theader_up Host api.openai.com\n\t}}\n}}\n"
    );
    let environment = standin.environment();
    let _proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.envs(environment);
    });
    for (name, answer) in each_client(port, KEY) {
        assert_eq!(answer["models"], serde_json::json!(["standin-1"]), "{name}");
        assert_eq!(answer["chat"], WORDS.concat(), "{name}");
        assert_eq!(answer["streamed"], WORDS.concat(), "{name}");
        assert_eq!((answer["pieces"].as_u64(), answer["embedding"].as_u64()), (Some(4), Some(2)), "{name}");
        assert!(answer["spread"].as_f64().unwrap() > PAUSE.as_secs_f64(), "{name}: the stream was held: {answer}");
        assert_eq!((answer["usage"].as_u64(), answer["refused"].as_u64()), (Some(7), Some(401)), "{name}");
    }
}

#[test]
fn official_clients_with_a_token_in_front_of_the_sample() {
    let (sample_port, port) = (free_port(), free_port());
    let _sample = Sample::start(sample_port);
    let file =
        format!("http://127.0.0.1:{port} {{\n\tauth_token team-token\n\treverse_proxy 127.0.0.1:{sample_port}\n}}\n");
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);
    for (name, answer) in each_client(port, "team-token") {
        assert!(!answer["models"].as_array().unwrap().is_empty(), "{name}: {answer}");
        assert!(!answer["chat"].as_str().unwrap().is_empty(), "{name}: {answer}");
        assert!(answer["pieces"].as_u64().unwrap() > 1, "{name}: {answer}");
        assert!(answer["embedding"].as_u64().unwrap() > 0, "{name}: {answer}");
        assert_eq!(answer["refused"].as_u64(), Some(401), "{name}: {answer}");
    }
}

struct Sample(Child, #[allow(dead_code)] tempfile::TempDir);

impl Sample {
    fn start(port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command(Which::Llmproxy, directory.path());
        command.args(["sample-llm", "--listen", &format!("127.0.0.1:{port}")]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut sample = Self(child, directory);
        for _ in 0..2000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return sample;
            }
            assert!(sample.0.try_wait().unwrap().is_none(), "sample-llm ended at once");
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("sample-llm does not listen");
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What each installed SDK reports; one that `./test` has not installed is skipped, and missed under `CI=true`.
fn each_client(port: u16, key: &str) -> Vec<(&'static str, Value)> {
    let base = format!("http://127.0.0.1:{port}/v1");
    let tools = repository().join(".tools");
    let scripts = repository().join("tests/sdk");
    let mut python = Command::new(tools.join("venv/bin/python"));
    python.arg(scripts.join("chat.py")).args([&base, key]);
    let mut node = Command::new("node");
    node.arg(scripts.join("chat.mjs")).args([&base, key]).arg(tools.join("node"));
    let clients = [("Python", tools.join("venv/done"), python), ("JavaScript", tools.join("node/done"), node)];
    let mut answers = Vec::new();
    for (name, installed, mut client) in clients {
        if !installed.exists() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "./test installs the {name} SDK");
            eprintln!("skipped: the {name} SDK is not installed (./test --install)");
            continue;
        }
        client.env("NO_PROXY", "127.0.0.1");
        let output = run_within(&mut client, Duration::from_secs(60));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        answers.push((name, serde_json::from_slice(&output.stdout).unwrap()));
    }
    answers
}
