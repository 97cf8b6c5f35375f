//! The configurations that llmproxy exists to run, over HTTP and over TLS with certificate files, in front of a stand-in
//! for the API; each also on the real Caddy, with the same answers.

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, caddy_or_skip, command, free_port, run_within};
use crate::harness::standin::{Authority, KEY, NO_KEY, PAUSE, Standin, WORDS};
use crate::harness::{repository, tls};
use std::path::Path;
use std::time::{Duration, Instant};

const BOTH: [Which; 2] = [Which::Llmproxy, Which::Caddy];

/// Configuration 1, a Caddyfile with one upstream. `{address}` stands for the site's address.
const ONE_UPSTREAM: &str =
    "{address} {\n\treverse_proxy https://api.openai.com {\n\t\theader_up Host api.openai.com\n\t}\n}\n";

#[test]
fn a_caddyfile_with_one_upstream() {
    for which in available() {
        let (standin, port) = (Standin::start(), free_port());
        let file = ONE_UPSTREAM.replace("{address}", &format!("http://127.0.0.1:{port}"));
        let _proxy = start(which, "Caddyfile", &file, port, &standin);
        answers_as_the_api(which, "127.0.0.1", |request| client::request(port, request).expect("an answer"));
        streams_word_by_word(which, "127.0.0.1", &mut client::Connection::open(port));
        assert!(standin.server_names().iter().all(|name| name.as_deref() == Some("api.openai.com")), "{which:?}");
    }
}

#[test]
fn the_same_as_caddy_json() {
    for which in available() {
        let (standin, port) = (Standin::start(), free_port());
        let text = std::fs::read_to_string(repository().join("examples/one-upstream.json")).unwrap();
        let text = text.replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
        let _proxy = start(which, "config.json", &text, port, &standin);
        answers_as_the_api(which, "127.0.0.1", |request| client::request(port, request).expect("an answer"));
        streams_word_by_word(which, "127.0.0.1", &mut client::Connection::open(port));
        let elsewhere = client::request(port, "GET /v1/models HTTP/1.1\r\nHost: other.test\r\n\r\n").unwrap();
        assert_eq!(
            (elsewhere.status(), elsewhere.text().as_str()),
            (200, ""),
            "{which:?}: a host that no route matches"
        );
    }
}

#[test]
fn over_tls_with_certificate_files() {
    let authority = Authority::new();
    let (certificate, key) = authority.certificate(&["localhost"]);
    let folder = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    for which in available() {
        let (standin, port, http_port) = (Standin::start(), free_port(), free_port());
        let address = format!("https://localhost:{port}");
        let site = ONE_UPSTREAM.replace("{address}", &address);
        let certificate = format!("\ttls {} {}\n", cert_file.display(), key_file.display());
        let site = site.replacen("{\n", &format!("{{\n{certificate}"), 1);
        let file = format!("{{\n\tadmin off\n\thttp_port {http_port}\n}}\n\n{site}");
        let _proxy = start(which, "Caddyfile", &file, port, &standin);
        let connect = || tls::connect(port, "localhost", &authority.pem());
        answers_as_the_api(which, "localhost", |request| {
            let mut connection = connect();
            connection.send(request);
            connection.response().expect("an answer")
        });
        streams_word_by_word(which, "localhost", &mut connect());
        over_http2(which, &address, &folder.path().join("ca.pem"));
    }
}

/// HTTP/2 by ALPN, with curl as the independent client.
fn over_http2(which: Which, address: &str, authority: &Path) {
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--http2", "--noproxy", "*", "-w", "\n%{http_version} %{http_code}", "--cacert"]).arg(authority);
    curl.args(["-H", &format!("Authorization: Bearer {KEY}"), &format!("{address}/v1/models")]);
    let output = run_within(&mut curl, Duration::from_secs(20));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("\n2 200"), "{which:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("standin-1"), "{which:?}: {text}");
}

#[test]
fn an_upstream_under_an_authority_of_ones_own() {
    for which in available() {
        let (standin, port) = (Standin::start(), free_port());
        let (upstream, authority) = (standin.port, standin.authority_file());
        let file = format!(
            "http://127.0.0.1:{port} {{\n\treverse_proxy https://localhost:{upstream} {{\n\t\theader_up Host api.openai.com\n\t\ttransport http {{\n\t\t\ttls_trust_pool file {}\n\t\t}}\n\t}}\n}}\n",
            authority.display()
        );
        let _proxy = Proxy::start(which, &file, port);
        answers_as_the_api(which, "127.0.0.1", |request| client::request(port, request).expect("an answer"));
    }
}

#[test]
fn an_upstream_that_is_not_trusted_is_a_502() {
    for which in available() {
        let (standin, port) = (Standin::start(), free_port());
        let upstream = standin.port;
        let file = format!("http://127.0.0.1:{port} {{\n\treverse_proxy https://localhost:{upstream}\n}}\n");
        let _proxy = Proxy::start(which, &file, port);
        assert_eq!(client::get_of(port, "127.0.0.1", "/v1/models").status(), 502, "{which:?}");
        assert!(standin.server_names().is_empty(), "{which:?}: a request went to a stranger");
    }
}

/// The front's 403 for another Host reaches the client: the control that the stand-in does ask for it.
#[test]
fn another_host_is_refused_by_the_api() {
    for which in available() {
        let (standin, port) = (Standin::start(), free_port());
        let file = ONE_UPSTREAM.replace("{address}", &format!("http://127.0.0.1:{port}"));
        let _proxy = start(which, "Caddyfile", &file.replace("Host api.openai.com", "Host other.test"), port, &standin);
        assert_eq!(client::get_of(port, "127.0.0.1", "/v1/models").status(), 403, "{which:?}");
    }
}

/// Configuration 4 adapts as in Caddy (a golden case) and `validate` warns of the upstream without TLS. Over plain HTTP
/// here, as certificates are not obtained automatically yet.
#[test]
fn limits_and_logs_are_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(repository().join("examples/limits-and-logs.Caddyfile")).unwrap();
    let text = text.replace("\nllm.example.com", "\nhttp://llm.example.com").replace("/var/log/llmproxy", "logs");
    std::fs::write(directory.path().join("Caddyfile"), text).unwrap();
    let mut validate = command(Which::Llmproxy, directory.path());
    let output = run_within(validate.arg("validate").env("OPENAI_API_KEY", "sk-secret-value"), Duration::from_secs(20));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("warning") && said.contains("api.openai.com:443"), "{said}");
    assert!(!said.contains("sk-secret-value"), "the key is echoed: {said}");
}

fn available() -> impl Iterator<Item = Which> {
    BOTH.into_iter().filter(|which| *which == Which::Llmproxy || caddy_or_skip())
}

fn start(which: Which, name: &str, text: &str, port: u16, standin: &Standin) -> Proxy {
    let environment = standin.environment();
    Proxy::start_with(which, name, text, port, |command| {
        command.envs(environment);
    })
}

fn answers_as_the_api(which: Which, host: &str, ask: impl Fn(String) -> Response) {
    let get = |headers: &str| ask(format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
    let refused = get("");
    assert_eq!((refused.status(), refused.text().as_str()), (401, NO_KEY), "{which:?}");
    assert_eq!(refused.header("content-type"), Some("application/json; charset=utf-8"), "{which:?}");
    assert_eq!(refused.header("x-request-id"), Some("req-1"), "{which:?}");
    let wrong = get("Authorization: Bearer wrong\r\n");
    assert_eq!((wrong.status(), &wrong.json()["error"]["code"]), (401, &"invalid_api_key".into()), "{which:?}");

    let models = get(&format!("Authorization: Bearer {KEY}\r\n"));
    assert_eq!((models.status(), &models.json()["data"][0]["id"]), (200, &"standin-1".into()), "{which:?}");
    let chat = ask(chat(host, false));
    assert_eq!(chat.json()["choices"][0]["message"]["content"], WORDS.concat(), "{which:?}");
}

fn chat(host: &str, stream: bool) -> String {
    let body = format!(r#"{{"model":"standin-1","stream":{stream},"messages":[{{"role":"user","content":"Hi"}}]}}"#);
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Each event of a streamed answer comes in a read of its own, when it is said.
fn streams_word_by_word<S: std::io::Read + std::io::Write>(
    which: Which,
    host: &str,
    connection: &mut client::Connection<S>,
) {
    connection.send(chat(host, true));
    let head = connection.head(false).unwrap();
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/event-stream; charset=utf-8")),
        "{which:?}"
    );
    let since = Instant::now();
    let (mut text, mut arrivals) = (String::new(), Vec::new());
    while let Some(piece) = connection.piece() {
        text += &String::from_utf8(piece).unwrap();
        arrivals.push((since.elapsed(), text.matches("\"content\"").count()));
    }
    assert!(connection.ended_cleanly() && text.ends_with("data: [DONE]\n\n"), "{which:?}: {text}");
    // The first word is there well before the last is said.
    let first = arrivals.iter().find(|(_, words)| *words == 1).expect("the first word comes alone").0;
    assert!(first + PAUSE < arrivals.last().unwrap().0, "{which:?}: {arrivals:?}");
}
