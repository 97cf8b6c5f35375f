//! The contract of gpt-reverse-proxy (the version with environment variables), row by row, on what `llmproxy migrate
//! gpt-reverse-proxy` makes of its `.env` file. Rows that are changed for safety are named `changed:` and asserted in
//! their changed form.

use crate::harness::client::{self, Connection, Response};
use crate::harness::llm_answers;
use crate::harness::llm_upstream::{KEY, LlmUpstream, RETRY_AFTER};
use crate::harness::process::{Proxy, Which, command, free_port, run_within};
use crate::harness::standin::{self, Standin};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const TOKEN: &str = "client-token-that-no-upstream-may-see";
const SECRET: &str = "0123456789abcdef-secret-path";

/// What `migrate` writes for these settings, running on a port of its own.
struct Migrated {
    proxy: Proxy,
    port: u16,
    proxyfile: String,
}

fn migrate(env: &str) -> Migrated {
    migrate_with(env, &[])
}

fn migrate_with(env: &str, environment: &[(&'static str, String)]) -> Migrated {
    let folder = tempfile::tempdir().unwrap();
    let env_file = folder.path().join("env");
    std::fs::write(&env_file, env).unwrap();
    let mut migrate = command(Which::Llmproxy, folder.path());
    migrate.args(["migrate", "gpt-reverse-proxy", "--env-file"]).arg(&env_file);
    let output = run_within(&mut migrate, Duration::from_secs(20));
    let proxyfile = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The default secret path is in the text, with a warning.
    for secret in [TOKEN, SECRET, KEY, standin::KEY] {
        assert!(!proxyfile.contains(secret), "a value of the env file is in the Proxyfile: {proxyfile}");
    }
    let port = free_port();
    // The port is fixed, the tests run side by side.
    assert!(proxyfile.contains("\n:12000 {\n"), "{proxyfile}");
    let proxyfile = proxyfile.replace("\trecord log\n", "\trecord transcripts\n"); // `log` is the harness's
    let here = proxyfile.replace("\n:12000 {\n", &format!("\nhttp://:{port} {{\n\tbind 127.0.0.1\n"));
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &here, port, |command| {
        command.arg("--envfile").arg(&env_file).envs(environment.iter().map(|(name, value)| (*name, value)));
    });
    Migrated { proxy, port, proxyfile }
}

/// The usual settings, under the prefix `/gpt`.
fn usual(upstream: &LlmUpstream) -> Migrated {
    migrate(&format!(
        "UPSTREAM_URL=http://{}/base/\nUPSTREAM_AUTHORIZATION=Bearer {KEY}\nLOCAL_PATH_PREFIX=/gpt/\nLOCAL_AUTH_TOKEN={TOKEN}\nLOCAL_OLLAMA_SECRET=/{SECRET}\n",
        upstream.address()
    ))
}

impl Migrated {
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        client::request(self.port, format!("{head}{body}")).unwrap()
    }

    /// With the token.
    fn with_token(&self, method: &str, path: &str, body: &str) -> Response {
        self.ask(method, path, &format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"), body)
    }
}

fn chat(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).to_string()
}

#[test]
fn upstream_url_keeps_its_base_path_and_the_query() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    assert_eq!(site.with_token("GET", "/gpt/v1/models?limit=%32", "").status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/base/v1/models?limit=%32");
    assert_eq!(seen.header("host"), Some(&*upstream.address()), "`host` is the upstream's");
}

#[test]
fn upstream_authorization_overwrites_the_clients() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    for name in ["Authorization: Bearer ", "Authorization: ", "x-api-key: "] {
        let response = site.ask("GET", "/gpt/v1/models", &format!("{name}{TOKEN}\r\n"), "");
        assert_eq!(response.status(), 200, "{name}");
        let seen = upstream.last();
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {KEY}")), "{name}");
        assert!(!seen.text().contains(TOKEN), "{name}: {}", seen.text());
    }
}

#[test]
fn without_upstream_authorization_the_clients_own_goes_up() {
    let upstream = LlmUpstream::start();
    let site = migrate(&format!("UPSTREAM_URL=http://{}\n", upstream.address()));
    let response = site.ask("GET", "/v1/models", &format!("Authorization: Bearer {KEY}\r\n"), "");
    assert_eq!(response.status(), 200);
    assert_eq!(upstream.last().header("authorization"), Some(&*format!("Bearer {KEY}")));
}

#[test]
fn changed_the_clients_token_never_goes_up_even_without_upstream_authorization() {
    let upstream = LlmUpstream::start();
    let site = migrate(&format!("UPSTREAM_URL=http://{}\nLOCAL_AUTH_TOKEN={TOKEN}\n", upstream.address()));
    assert_eq!(site.with_token("GET", "/v1/models", "").status(), 401);
    assert!(!upstream.last().text().contains(TOKEN));
}

#[test]
fn changed_https_proxy_is_used_and_its_connection_kept() {
    let standin = Standin::start();
    let environment = [("SSL_CERT_FILE", standin.authority_file().display().to_string())];
    let env = format!(
        "UPSTREAM_URL=https://api.openai.com\nUPSTREAM_AUTHORIZATION=Bearer {}\nhttps_proxy=http://127.0.0.1:{}\nLOCAL_AUTH_TOKEN={TOKEN}\n",
        standin::KEY,
        standin.port
    );
    let site = migrate_with(&env, &environment);
    let mut connection = Connection::open(site.port);
    for _ in 0..4 {
        connection.send(format!("GET /v1/models HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"));
        assert_eq!(connection.response().unwrap().status(), 200);
    }
    // gpt-reverse-proxy made one for each request.
    assert_eq!(standin.server_names(), [Some("api.openai.com".to_owned())]);
}

#[test]
fn outside_of_the_prefix_there_is_nothing() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    for path in ["/", "/v1/models", "/gptx/v1/models", &format!("/{SECRET}/api/tags")] {
        let response = site.with_token("GET", path, "");
        assert_eq!((response.status(), response.text().as_str()), (404, "404 Not Found"), "{path}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn changed_a_wrong_token_is_told_as_the_api_does() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    for header in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic eA==\r\n", "Authorization: \r\n"] {
        let response = site.ask("GET", "/gpt/v1/models", header, "");
        assert_eq!(response.status(), 401, "{header}");
        assert!(response.header("www-authenticate").unwrap().starts_with("Bearer"), "{header}");
        // It was the text `Invalid authorization token`.
        assert_eq!(response.json()["error"]["code"], "invalid_api_key", "{header}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn changed_tags_have_every_field() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let tags = site.ask("GET", &format!("/gpt/{SECRET}/api/tags"), "", "");
    assert_eq!(tags.status(), 200, "{}", tags.text());
    let models = tags.json()["models"].as_array().unwrap().clone();
    let names: Vec<&Value> = models.iter().map(|m| &m["name"]).collect();
    assert_eq!(json!(names), json!(llm_answers::tags()), "the id, with Ollama's tag where it has none");
    for model in &models {
        assert_eq!(model["name"], model["model"]);
        // There were these two alone.
        assert!(model["modified_at"].is_string() && model["details"]["family"].is_string(), "{model}");
    }
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/base/v1/models"));
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {KEY}")));
}

#[test]
fn changed_a_refusal_of_the_upstream_comes_back_from_tags_in_ollamas_words() {
    let upstream = LlmUpstream::start();
    let site = migrate(&format!(
        "UPSTREAM_URL=http://{}\nUPSTREAM_AUTHORIZATION=Bearer sk-wrong\nLOCAL_OLLAMA_SECRET={SECRET}\n",
        upstream.address()
    ));
    let tags = site.ask("GET", &format!("/{SECRET}/api/tags"), "", "");
    assert_eq!(tags.status(), 401);
    assert!(tags.json()["error"].is_string(), "{}", tags.text());
}

#[test]
fn changed_show_looks_at_the_model() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let show =
        |model: &str| site.ask("POST", &format!("/gpt/{SECRET}/api/show"), "", &json!({"model": model}).to_string());
    let shown = show("mock-chat").json();
    let architecture = shown["model_info"]["general.architecture"].as_str().unwrap();
    // It was `CausalLM` without a context length, for every name.
    assert_ne!(architecture, "CausalLM");
    assert!(shown["model_info"][format!("{architecture}.context_length")].as_u64().unwrap() > 0, "{shown}");
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("tools")), "{shown}");
    assert_eq!(show("no-such-model").status(), 404);
}

#[test]
fn changed_the_secret_opens_inference_and_nothing_else() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let path = format!("/gpt/{SECRET}/v1/chat/completions");
    let answer = site.ask("POST", &path, "Content-Type: application/json\r\n", &chat("mock-chat", false));
    assert_eq!(answer.json()["choices"][0]["message"]["content"], llm_answers::text(), "{}", answer.text());
    let seen = upstream.last();
    assert_eq!(seen.target, "/base/v1/chat/completions");
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {KEY}")));
    assert!(!seen.text().contains(SECRET));

    let before = upstream.seen().len();
    for (method, path) in
        [("GET", "v1/files"), ("POST", "v1/fine_tuning/jobs"), ("DELETE", "v1/models/x"), ("GET", "../v1/files")]
    {
        let response = site.ask(method, &format!("/gpt/{SECRET}/{path}"), "", "");
        assert!((400..500).contains(&response.status()), "{method} {path}: {}", response.status());
    }
    assert_eq!(upstream.seen().len(), before, "{:?}", upstream.last());
}

#[test]
fn changed_version_and_root_are_answered() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let version = site.ask("GET", &format!("/gpt/{SECRET}/api/version"), "", "");
    assert!(version.json()["version"].as_str().unwrap().split('.').all(|n| n.parse::<u32>().is_ok()));
    let root = site.ask("GET", &format!("/gpt/{SECRET}/"), "", "");
    assert_eq!((root.status(), root.text().as_str()), (200, "Ollama is running"));
    assert!(upstream.seen().is_empty(), "they were forwarded");
}

#[test]
fn changed_the_default_secret_is_kept_with_a_warning() {
    let upstream = LlmUpstream::start();
    let site = migrate(&format!("UPSTREAM_URL=http://{}\nUPSTREAM_AUTHORIZATION=Bearer {KEY}\n", upstream.address()));
    assert_eq!(site.ask("GET", "/ollama/api/tags", "", "").status(), 200);
    assert!(site.proxyfile.contains("everybody can guess"), "{}", site.proxyfile);
}

#[test]
fn changed_chat_streams_have_no_null_fields_and_untouched_text() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    for stream in [true, false] {
        let answer = site.with_token("POST", "/gpt/v1/chat/completions", &chat("mock-chat", stream));
        assert_eq!(answer.status(), 200);
        let text = answer.text();
        if !stream {
            // Text inside content was rewritten too, and the length was not corrected.
            assert_eq!(answer.json()["choices"][0]["message"]["content"], llm_answers::text());
            assert!(answer.complete);
            continue;
        }
        let events: Vec<Value> = text
            .split("\n\n")
            .filter_map(|e| e.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        assert!(events.iter().all(|e| !e["choices"][0].get("finish_reason").is_some_and(Value::is_null)), "{text}");
        assert_eq!(events.iter().filter(|e| e["choices"][0]["finish_reason"] == "stop").count(), 1);
        let said: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(said, llm_answers::text());
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    }
}

#[test]
fn everything_else_is_forwarded_byte_for_byte() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let body = "{ \"model\":\"mock-embed\" ,\"input\":[\"caf\\u00e9\", \"b\"],\"x\": 1.0e0 }";
    let answer = site.with_token("POST", "/gpt/v1/embeddings?a=b", body);
    assert_eq!(answer.text(), llm_answers::embeddings(&serde_json::from_str(body).unwrap()).to_string());
    let seen = upstream.last();
    assert_eq!((seen.body.as_slice(), seen.target.as_str()), (body.as_bytes(), "/base/v1/embeddings?a=b"));
    let body = json!({"model": "mock-chat", "stream": true, "input": "Hi"});
    let answer = site.with_token("POST", "/gpt/v1/responses", &body.to_string());
    assert_eq!(answer.text(), llm_answers::response_events(&body).concat());
    // Methods and paths that nobody knows.
    assert_eq!(site.with_token("DELETE", "/gpt/v1/nobody%20knows/this", "").status(), 404);
    assert_eq!(
        (upstream.last().method.as_str(), upstream.last().target.as_str()),
        ("DELETE", "/base/v1/nobody%20knows/this")
    );
}

#[test]
fn changed_options_asks_for_no_token_and_goes_nowhere() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let preflight = "Origin: https://a.test\r\nAccess-Control-Request-Method: POST\r\n";
    let response = site.ask("OPTIONS", "/gpt/v1/chat/completions", preflight, "");
    assert!((200..300).contains(&response.status()), "{}", response.status());
    assert!(response.body.is_empty());
    let plain = site.ask("OPTIONS", "/gpt/v1/models", "", "");
    assert!(matches!(plain.status(), 204 | 401), "{}", plain.status());
    assert!(upstream.seen().is_empty(), "OPTIONS went up: {:?}", upstream.seen());
}

#[test]
fn changed_an_upstream_that_is_away_is_a_502_of_the_api() {
    let site = migrate(&format!("UPSTREAM_URL=http://127.0.0.1:{}\nLOCAL_AUTH_TOKEN={TOKEN}\n", free_port()));
    let response = site.with_token("POST", "/v1/chat/completions", &chat("mock-chat", false));
    // It was 500 with the text `Internal Server Error`.
    assert_eq!(response.status(), 502);
    assert!(response.json()["error"]["message"].is_string(), "{}", response.text());
}

#[test]
fn errors_of_the_upstream_pass_whole() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let response = site.with_token("POST", "/gpt/v1/chat/completions", &chat("mock-429", true));
    assert_eq!(response.status(), 429);
    assert_eq!(response.header("retry-after"), Some(&*RETRY_AFTER.to_string()));
    assert_eq!(response.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(response.json()["error"]["code"], "rate_limit_exceeded");
    let response = site.with_token("POST", "/gpt/v1/chat/completions", &chat("mock-500", false));
    assert_eq!((response.status(), response.json()["error"]["type"].as_str()), (500, Some("server_error")));
}

#[test]
fn changed_nothing_about_the_client_goes_up_by_itself() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    let headers = format!(
        "Authorization: Bearer {TOKEN}\r\nX-Forwarded-For: 203.0.113.9\r\nX-Custom: kept\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
    );
    assert_eq!(site.ask("GET", "/gpt/v1/models", &headers, "").status(), 200);
    let seen = upstream.last();
    // X-Forwarded-For leaked, and these were made up.
    for absent in [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "via",
        "accept-language",
        "sec-fetch-mode",
        "x-hop",
    ] {
        assert_eq!(seen.header(absent), None, "{absent}");
    }
    assert_eq!(seen.header("x-custom"), Some("kept"));
}

#[test]
fn log_level_info_writes_a_line_for_each_request() {
    let upstream = LlmUpstream::start();
    let site = usual(&upstream);
    site.with_token("GET", "/gpt/v1/models", "");
    let line = waited_for(|| site.proxy.log().lines().find(|l| l.contains("\"GET\"")).map(str::to_owned));
    assert!(line.contains("/gpt/v1/models") && !line.contains(TOKEN) && !line.contains(KEY), "{line}");
}

#[test]
fn changed_log_level_debug_writes_transcripts_without_credentials() {
    let upstream = LlmUpstream::start();
    let site = migrate(&format!(
        "UPSTREAM_URL=http://{}\nUPSTREAM_AUTHORIZATION=Bearer {KEY}\nLOCAL_AUTH_TOKEN={TOKEN}\nLOG_LEVEL=debug\n",
        upstream.address()
    ));
    site.with_token("POST", "/v1/chat/completions", &chat("mock-chat", true));
    // A stream's pieces are in it, and its end.
    let transcript = waited_for(|| texts_under(site.proxy.directory.path()).into_iter().find(|t| t.contains("[DONE]")));
    assert!(!transcript.contains(TOKEN) && !transcript.contains(KEY), "{transcript}");
    assert!(transcript.contains("/v1/chat/completions"), "{transcript}");
}

fn waited_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "nothing was written");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Of every file below a folder.
fn texts_under(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts.extend(texts_under(&path));
        } else {
            texts.extend(std::fs::read_to_string(path));
        }
    }
    texts
}
