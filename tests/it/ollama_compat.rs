//! `ollama_compat` over real sockets, against an OpenAI-compatible upstream: the sequences of calls that clients make, with
//! the fields that each of them checks; errors, broken streams, clients that leave; and secret paths, which open what they
//! should and are seen by nobody.

use crate::harness::client::{self, Connection, Response};
use crate::harness::llm_answers::{THOUGHT, text};
use crate::harness::llm_upstream::{KEY, LlmUpstream, RETRY_AFTER, Seen};
use crate::harness::process::{Proxy, Which, free_port};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SECRET: &str = "5ecre7-0f-7he-7es7-9c1b44e07d";

/// A site with these lines in front of the upstream.
struct Site {
    upstream: LlmUpstream,
    proxy: Proxy,
    port: u16,
}

impl Site {
    fn start(lines: &str) -> Self {
        let (upstream, port) = (LlmUpstream::start(), free_port());
        let address = upstream.address();
        let file = format!(
            "http://:{port} {{\n\tbind 127.0.0.1\n\tlog\n{lines}\n\treverse_proxy {address} {{\n\t\theader_up Authorization \"Bearer {KEY}\"\n\t}}\n}}\n"
        );
        let proxy = Proxy::start(Which::Llmproxy, &file, port);
        Self { upstream, proxy, port }
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Response {
        client::request(self.port, request(method, path, headers, body)).unwrap()
    }

    fn get(&self, path: &str) -> Response {
        self.ask("GET", path, "", "")
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: api.test\r\n{headers}{length}\r\n{body}")
}

/// The log once it tells of this, which it does some time after the answer.
fn log_with(proxy: &Proxy, text: &str) -> String {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let log = proxy.log();
        if log.contains(text) || Instant::now() > until {
            return log;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The body that went up.
fn sent(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap()
}

/// The objects of an NDJSON answer.
fn lines(response: &Response) -> Vec<Value> {
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    assert!(response.complete && response.body.ends_with(b"\n"), "{:?}", response.text());
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The pieces of a field, joined.
fn joined(lines: &[Value], pointer: &str) -> String {
    lines.iter().filter_map(|line| line.pointer(pointer).and_then(Value::as_str)).collect()
}

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() > 19 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

fn say(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// VS Code Copilot sends no key while it looks for models, reads the version number by number, takes `model` from the list and
/// then speaks the OpenAI format with that name.
#[test]
fn copilot_finds_models_by_a_secret_path_and_chats() {
    let site = Site::start(&format!(
        "\tollama_compat {{\n\t\tsecret copilot {SECRET}\n\t\tmodel mock-chat {{\n\t\t\tcontext 200000\n\t\t\tcapabilities completion tools vision\n\t\t\tname \"Mock Chat\"\n\t\t}}\n\t}}"
    ));
    let version = site.get(&format!("/{SECRET}/api/version")).json();
    let numbers: Vec<u64> = version["version"].as_str().unwrap().split('.').map(|n| n.parse().unwrap()).collect();
    assert!(numbers.as_slice() >= [0, 6, 4].as_slice(), "{version}");

    let tags = site.get(&format!("/{SECRET}/api/tags")).json();
    let names: Vec<&str> = tags["models"].as_array().unwrap().iter().map(|m| m["model"].as_str().unwrap()).collect();
    assert!(names.contains(&"mock-chat:latest") && names.contains(&"vendor/mock:latest"), "{names:?}");

    for name in &names {
        let shown = site.post(&format!("/{SECRET}/api/show"), &json!({ "model": name })).json();
        assert!(shown["capabilities"].is_array(), "{name}: {shown}");
        let info = &shown["model_info"];
        let architecture = info["general.architecture"].as_str().unwrap();
        assert!(info[format!("{architecture}.context_length")].as_u64().unwrap() > 0, "{name}: {shown}");
        assert!(info["general.basename"].is_string(), "{name}: {shown}");
        if *name == "mock-chat:latest" {
            assert_eq!(info[format!("{architecture}.context_length")], 200_000);
            assert_eq!(info["general.basename"], "Mock Chat");
            assert_eq!(shown["capabilities"], json!(["completion", "tools", "vision"]));
        }
    }

    let asked = json!({"model": "mock-chat:latest", "messages": say("hi"), "stream": true, "stream_options": {"include_usage": true}});
    let headers = "Authorization: Bearer \r\nContent-Type: application/json\r\n";
    let chat = site.ask("POST", &format!("/{SECRET}/v1/chat/completions"), headers, &asked.to_string());
    assert_eq!(chat.status(), 200);
    assert!(chat.text().ends_with("data: [DONE]\n\n") && chat.text().contains("\"usage\":{"));
    let seen = site.upstream.last();
    assert_eq!(seen.target, "/v1/chat/completions");
    let mut expected = asked.clone();
    expected["model"] = json!("mock-chat");
    assert_eq!(String::from_utf8_lossy(&seen.body), expected.to_string());
}

/// Zed fails the whole list for one missing field.
#[test]
fn zed_finds_every_field_and_streams_thoughts() {
    let site = Site::start("\tollama_compat");
    for model in site.get("/api/tags").json()["models"].as_array().unwrap() {
        for field in ["name", "digest"] {
            assert!(model[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {model}");
        }
        assert!(is_time(&model["modified_at"]) && model["size"].is_u64(), "{model}");
        assert_eq!(model["digest"].as_str().unwrap().len(), 64);
        for field in ["format", "family", "parameter_size", "quantization_level"] {
            assert!(model["details"][field].is_string(), "{field} of {model}");
        }
    }
    let shown = site.post("/api/show", &json!({"model": "mock-chat"})).json();
    assert!(shown["capabilities"].as_array().unwrap().contains(&json!("tools")), "{shown}");

    let asked = json!({"model": "mock-reason", "messages": say("hi"), "stream": true, "keep_alive": -1, "think": true,
        "options": {"num_ctx": 4096, "stop": ["x"]}, "tools": []});
    let answer = site.post("/api/chat", &asked);
    let lines = lines(&answer);
    for line in &lines {
        assert_eq!(line["model"], "mock-reason");
        assert!(is_time(&line["created_at"]) && line["message"]["role"] == "assistant", "{line}");
        assert_eq!(line["done"].as_bool(), Some(line == lines.last().unwrap()), "{line}");
    }
    assert_eq!(joined(&lines, "/message/content"), text());
    assert_eq!(joined(&lines, "/message/thinking"), THOUGHT);
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["done_reason"], &last["prompt_eval_count"], &last["eval_count"]),
        (&json!("stop"), &json!(11), &json!(7))
    );
    let seen = site.upstream.last();
    let sent = sent(&seen);
    assert_eq!(
        (seen.header("accept-encoding"), seen.header("content-type")),
        (Some("identity"), Some("application/json"))
    );
    assert_eq!(seen.header("content-length"), Some(&*seen.body.len().to_string()));
    assert_eq!((&sent["stop"], &sent["num_ctx"], &sent["keep_alive"]), (&json!(["x"]), &Value::Null, &Value::Null));
}

/// Open WebUI wants digits and dots in the version, `NAME:latest` for a name without a tag, and times it can read.
#[test]
fn open_webui_verifies_lists_and_embeds() {
    let site = Site::start("\tollama_compat /ollama {\n\t\tversion 0.13.1\n\t}");
    assert_eq!(site.get("/ollama/api/version").json(), json!({"version": "0.13.1"}));
    let tags = site.get("/ollama/api/tags").json();
    for model in tags["models"].as_array().unwrap() {
        assert_eq!(model["name"], model["model"]);
        assert!(model["name"].as_str().unwrap().contains(':'), "{model}");
    }
    for model in site.get("/ollama/api/ps").json()["models"].as_array().unwrap() {
        assert!(is_time(&model["expires_at"]) && model["size_vram"].is_u64(), "{model}");
    }
    let asked = json!({"model": "mock-chat:latest", "messages": say("hi"), "stream": true});
    let answer = lines(&site.post("/ollama/api/chat", &asked));
    assert_eq!((joined(&answer, "/message/content"), &answer[0]["model"]), (text(), &json!("mock-chat:latest")));
    let embedded = site.post("/ollama/api/embed", &json!({"model": "mock-embed:latest", "input": ["a", "b"]})).json();
    assert_eq!(embedded["embeddings"], json!([[0.25, -0.5, 0.5], [0.25, -0.5, 1.5]]));
    assert_eq!(embedded["prompt_eval_count"], 4);
    let old = site.post("/ollama/api/embeddings", &json!({"model": "mock-embed", "prompt": "a"})).json();
    assert_eq!(old, json!({"embedding": [0.25, -0.5, 0.5]}));
    // The mount is the only place of the API.
    assert_eq!(site.get("/api/tags").status(), 404);
    assert_eq!(site.upstream.last().target, "/api/tags");
}

/// Continue asks `show` by `name`, and with tools asks for an answer in one piece.
#[test]
fn continue_shows_calls_tools_and_completes() {
    let site =
        Site::start("\tollama_compat {\n\t\tmodel mock-chat {\n\t\t\tcapabilities completion tools insert\n\t\t}\n\t}");
    let shown = site.post("/api/show", &json!({"name": "mock-chat"})).json();
    assert!(shown["parameters"].as_str().unwrap().contains("num_ctx"), "{shown}");
    assert!(shown["template"].as_str().unwrap().contains(".Suffix"), "{shown}");
    let plain = site.post("/api/show", &json!({"name": "mock-reason"})).json();
    assert!(!plain["template"].as_str().unwrap().contains(".Suffix"), "{plain}");

    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}});
    let asked = json!({"model": "mock-chat", "messages": say("hi"), "stream": false, "keep_alive": 1800, "tools": [tool("f"), tool("g")]});
    let answer = site.post("/api/chat", &asked);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    let answer = answer.json();
    let calls = answer["message"]["tool_calls"].as_array().unwrap();
    let call = |i: usize| (&calls[i]["function"]["name"], &calls[i]["function"]["arguments"]["city"]);
    assert_eq!((call(0), call(1)), ((&json!("f"), &json!("Paris")), (&json!("g"), &json!("Paris"))));
    assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("stop")));

    // The same in a stream: whole calls, each argument an object.
    let mut asked = asked;
    asked["stream"] = json!(true);
    let streamed = lines(&site.post("/api/chat", &asked));
    let called: Vec<&Value> = streamed.iter().filter_map(|l| l.pointer("/message/tool_calls")).collect();
    assert_eq!(called.len(), 1, "{streamed:?}");
    assert_eq!(called[0][1]["function"]["arguments"], json!({"city": "Paris", "of": "g"}));

    let asked = json!({"model": "mock-chat", "prompt": "fn f(", "suffix": "}", "stream": false});
    assert_eq!(site.post("/api/generate", &asked).json()["response"], text());
    assert_eq!(
        (site.upstream.last().target.as_str(), &sent(&site.upstream.last())["suffix"]),
        ("/v1/completions", &json!("}"))
    );
}

#[test]
fn jetbrains_sees_a_server_and_images_go_up() {
    let site = Site::start("\tollama_compat");
    let root = site.get("/");
    assert_eq!((root.status(), root.text().as_str()), (200, "Ollama is running"));
    assert_eq!(site.ask("HEAD", "/", "", "").status(), 200);
    let head = site.ask("HEAD", "/api/tags", "", "");
    assert_eq!((head.status(), head.body.len()), (200, 0));
    // The smallest PNG: 67 bytes.
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let asked = json!({"model": "mock-chat", "messages": [{"role": "user", "content": "what", "images": [png]}], "stream": false});
    let said = site.post("/api/chat", &asked).json();
    assert_eq!(said["message"]["content"], "An image of type image/png, 70 bytes");
}

#[test]
fn loading_and_unloading_ask_nobody() {
    let site = Site::start("\tollama_compat");
    for (path, body, reason) in [
        ("/api/generate", json!({"model": "mock-chat"}), "load"),
        ("/api/generate", json!({"model": "mock-chat", "keep_alive": 0}), "unload"),
        ("/api/chat", json!({"model": "mock-chat", "messages": []}), "load"),
        ("/api/chat", json!({"model": "mock-chat", "keep_alive": "0s"}), "unload"),
    ] {
        let answer = site.post(path, &body).json();
        assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!(reason)), "{path} {body}");
    }
    assert!(site.upstream.seen().is_empty());
}

#[test]
fn errors_come_in_ollamas_shape_with_status_and_retry_after() {
    let site = Site::start("\tollama_compat");
    let chat = |model: &str| site.post("/api/chat", &json!({"model": model, "messages": say("hi")}));
    for (model, status, says) in [
        ("mock-429", 429, "Rate limit reached"),
        ("mock-500", 500, "The server had an error"),
        ("mock-overloaded", 529, "Overloaded"),
        ("nobody", 404, "model 'nobody' not found"),
    ] {
        let answer = chat(model);
        assert_eq!(answer.status(), status, "{model}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        let error = answer.json();
        assert!(error["error"].as_str().unwrap().contains(says), "{model}: {error}");
        assert_eq!(error.as_object().unwrap().len(), 1);
        assert!(!answer.text().contains(KEY));
    }
    assert_eq!(chat("mock-429").header("retry-after"), Some(&*RETRY_AFTER.to_string()));
    let unlisted = site.post("/api/show", &json!({"model": "nobody"}));
    assert_eq!((unlisted.status(), unlisted.json()), (404, json!({"error": "model 'nobody' not found"})));
    // Without the upstream's key nothing is listed, and the status says why.
    let open = Site::start("\tollama_compat\n\treverse_proxy /v1/models {$NOWHERE:127.0.0.1:1}");
    let down = open.get("/api/tags");
    assert_eq!((down.status(), down.json()["error"].is_string()), (502, true));
}

#[test]
fn a_stream_that_breaks_ends_with_an_error_line_and_is_never_done() {
    let site = Site::start("\tollama_compat");
    for (model, says) in [("mock-inband", "failed midway"), ("mock-cut", "before the answer was complete")] {
        let answer = lines(&site.post("/api/chat", &json!({"model": model, "messages": say("hi")})));
        let (last, before) = answer.split_last().unwrap();
        assert!(last["error"].as_str().unwrap().contains(says), "{model}: {last}");
        assert!(before.iter().all(|line| line["done"] == false), "{model}");
    }
}

#[test]
fn a_client_that_leaves_ends_the_upstreams_stream() {
    let site = Site::start("\tollama_compat");
    let mut client = Connection::open(site.port);
    let body = json!({"model": "mock-slow", "messages": say("hi")}).to_string();
    client.send(request("POST", "/api/chat", "", &body));
    assert_eq!(client.head(false).unwrap().status, 200);
    assert!(client.piece().is_some());
    assert_eq!(site.upstream.left(), 0);
    drop(client);
    assert!(site.upstream.wait_for_left(1, Duration::from_secs(10)), "the upstream streams on");
}

#[test]
fn what_is_not_offered_is_refused_without_asking() {
    let site = Site::start("\tollama_compat");
    for (method, path, status) in [
        ("POST", "/api/push", 403),
        ("POST", "/api/create", 403),
        ("POST", "/api/copy", 403),
        ("DELETE", "/api/delete", 403),
        ("HEAD", "/api/blobs/sha256:0", 403),
        ("POST", "/api/me", 403),
        ("GET", "/api/chat", 405),
        ("PUT", "/api/show", 405),
        ("POST", "/api/tags", 405),
        ("DELETE", "/", 405),
    ] {
        let answer = site.ask(method, path, "", "");
        assert_eq!(answer.status(), status, "{method} {path}");
        if method != "HEAD" {
            assert!(answer.json()["error"].is_string(), "{method} {path}");
        }
    }
    for body in ["", "{", "[]", "7", "\u{0}", "{\"model\":7}", "{\"messages\":[]}", "{\"model\":\"m\",\"messages\":7}"]
    {
        let answer = site.ask("POST", "/api/chat", "", body);
        assert_eq!(answer.status(), 400, "{body:?}");
        assert!(answer.json()["error"].is_string(), "{body:?}");
    }
    let deep = format!("{{\"model\":\"m\",\"format\":{}", "[".repeat(100_000));
    assert_eq!(site.ask("POST", "/api/chat", "", &deep).status(), 400);
    assert_eq!(site.ask("POST", "/api/chat", "Content-Encoding: gzip\r\n", "{}").status(), 415);
    assert_eq!(site.ask("POST", "/api/show", "", &format!("{{\"model\":\"{}\"}}", "m".repeat(70_000))).status(), 413);
    let preflight = "Origin: https://evil.test\r\nAccess-Control-Request-Method: POST\r\n";
    let answer = site.ask("OPTIONS", "/api/chat", preflight, "");
    assert_eq!((answer.status(), answer.header("access-control-allow-origin")), (204, None));
    assert!(site.upstream.seen().is_empty());
    assert_eq!(site.post("/api/pull", &json!({"model": "mock-chat"})).json(), json!({"status": "success"}));
    assert_eq!(site.post("/api/pull", &json!({"model": "nobody"})).status(), 404);
}

#[test]
fn what_is_not_ollamas_passes_byte_for_byte() {
    let site = Site::start("\tollama_compat /ollama");
    let body = "{ \"model\" : \"mock-ch\\u0061t\",\t\"messages\":[{\"role\":\"user\",\"content\":\"caf\u{e9}\"}],\n\"x\":1.00000000000000000001 }";
    for (path, target) in [
        ("/v1/chat/completions?x=%41", "/v1/chat/completions?x=%41"),
        ("/ollama/v1/chat/completions", "/v1/chat/completions"),
    ] {
        let answer = site.ask("POST", path, "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n", body);
        assert_eq!(answer.json()["object"], "chat.completion");
        let seen = site.upstream.last();
        assert_eq!((seen.target.as_str(), String::from_utf8_lossy(&seen.body).as_ref()), (target, body));
        assert_eq!(seen.header("accept-encoding"), Some("gzip"));
    }
    site.get("/ollama/metrics");
    assert_eq!(site.upstream.last().target, "/ollama/metrics");
}

#[test]
fn only_what_is_exposed_is_listed() {
    let site = Site::start("\tollama_compat {\n\t\texpose mock-c* vendor/*\n\t}");
    let tags = site.get("/api/tags").json();
    let mut names: Vec<&str> = tags["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["mock-chat:latest", "mock-cut:latest", "vendor/mock:latest"]);
    assert_eq!(site.post("/api/show", &json!({"model": "mock-embed"})).status(), 404);
}

/// A secret opens inference alone, and is seen by nobody: not by the upstream, in no log, no answer, no message.
#[test]
fn a_secret_path_opens_inference_and_stays_secret() {
    let site = Site::start(&format!(
        "\tlog_append target {{http.request.orig_uri}}\n\theader X-Asked {{http.request.orig_uri.path}}\n\tollama_compat /ollama {{\n\t\tsecret copilot {SECRET}\n\t}}"
    ));
    let client_key = "sk-the-clients-own-key-that-stays-here";
    let headers =
        format!("Authorization: Bearer {client_key}\r\nX-Api-Key: {client_key}\r\nX-HTTP-Method-Override: DELETE\r\n");
    let asked = json!({"model": "mock-chat", "messages": say("hi"), "stream": false}).to_string();
    let mut answers = Vec::new();
    for (method, path, status) in [
        ("GET", "", 200),
        ("GET", "/", 200),
        ("GET", "//api/tags", 200),
        ("GET", "/api/tags?x=1", 200),
        ("POST", "/api/chat", 200),
        ("POST", "/v1/chat/completions", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/mock-chat:latest", 200),
        ("POST", "/v1/messages", 200),
        ("POST", "/v1/responses", 200),
    ] {
        let body = if method == "POST" { asked.as_str() } else { "" };
        let answer = site.ask(method, &format!("/{SECRET}{path}"), &headers, body);
        assert_eq!(answer.status(), status, "{method} {path}: {}", answer.text());
        answers.push(answer);
    }
    let before = site.upstream.seen().len();
    assert_eq!(site.ask("OPTIONS", &format!("/{SECRET}/v1/chat/completions"), "", "").status(), 204);
    for (method, path) in [
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("GET", "/v1/models/..%2ffiles"),
        ("GET", "/v1/models/%2e%2e/files"),
        ("GET", "/v1/models/../files"),
        ("DELETE", "/v1/models/mock-chat"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/v1/responses/resp_1"),
        ("POST", "/api/pull"),
        ("DELETE", "/api/delete"),
        ("GET", "/metrics"),
        ("GET", "/ollama/api/tags"),
        ("GET", "/%2e%2e/v1/files"),
    ] {
        let answer = site.ask(method, &format!("/{SECRET}{path}"), &headers, "");
        assert_eq!(answer.status(), 404, "{method} {path}");
        assert!(answer.json().get("error").is_some(), "{method} {path}");
        answers.push(answer);
    }
    assert_eq!(site.upstream.seen().len(), before, "something was forwarded");
    // Another path of the same length, the beginning of the right one, and more than it.
    for wrong in ["5ecre7-0f-7he-7es7-9c1b44e07e", &SECRET[..SECRET.len() - 1], &format!("{SECRET}x")] {
        let answer = site.get(&format!("/{wrong}/api/tags"));
        assert_eq!(answer.status(), 404, "{wrong}");
        assert_eq!(site.upstream.last().target, format!("/{wrong}/api/tags"));
    }
    for seen in site.upstream.seen() {
        let text = seen.text();
        assert!(!text.contains(SECRET) || text.contains(&format!("{SECRET}x")), "went up: {text}");
        assert!(!text.contains(client_key), "went up: {text}");
        assert_eq!(seen.header("x-http-method-override"), None);
    }
    for answer in answers {
        let shown = format!("{:?} {}", answer.head, answer.text());
        assert!(!shown.contains(SECRET) && !shown.contains(KEY), "{shown}");
    }
    // Each worker writes its own lines when it has the time: both are waited for.
    log_with(&site.proxy, "/REDACTED/api/chat");
    let log = log_with(&site.proxy, "x/api/tags");
    assert!(log.contains("/REDACTED/api/chat"), "{log}");
    assert!(!log.replace(&format!("{SECRET}x"), "").contains(SECRET), "{log}");
    assert!(!log.contains(client_key), "{log}");
    assert!(log.contains("\"user_id\":\"copilot\""), "{log}");
}

/// The path is the token: its rights, its name, and nothing without either.
#[test]
fn a_secret_path_has_the_rights_of_its_token() {
    let token = "value-of-the-tokens-own-that-no-upstream-sees";
    let site = Site::start(&format!(
        "\tauth_token {{\n\t\ttoken copilot {token} {{\n\t\t\tmodels mock-chat\n\t\t}}\n\t\ttoken other another-value-of-a-token\n\t}}\n\tollama_compat /ollama {{\n\t\tsecret copilot {SECRET}\n\t\tsecret nobody 0123456789abcdef0123\n\t}}"
    ));
    let names = |path: &str, headers: &str| -> Vec<String> {
        let tags = site.ask("GET", path, headers, "").json();
        tags["models"].as_array().unwrap().iter().map(|m| m["model"].as_str().unwrap().to_owned()).collect()
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(names(&format!("/{SECRET}/api/tags"), ""), ["mock-chat:latest"]);
    assert_eq!(names("/ollama/api/tags", &bearer), ["mock-chat:latest"]);
    assert!(names("/ollama/api/tags", "Authorization: Bearer another-value-of-a-token\r\n").len() > 5);

    let asked = |model: &str| json!({"model": model, "messages": say("hi"), "stream": false});
    for model in ["mock-chat", "mock-chat:latest"] {
        for path in ["api/chat", "v1/chat/completions"] {
            assert_eq!(site.post(&format!("/{SECRET}/{path}"), &asked(model)).status(), 200, "{path} {model}");
        }
    }
    assert_eq!(site.post(&format!("/{SECRET}/api/show"), &json!({"name": "mock-chat:latest"})).status(), 200);
    let before = site.upstream.seen().len();
    for path in ["api/chat", "v1/chat/completions", "api/show", "api/generate"] {
        let answer = site.post(&format!("/{SECRET}/{path}"), &asked("mock-reason"));
        assert!([403, 404].contains(&answer.status()), "{path}: {} {}", answer.status(), answer.text());
        assert_eq!(answer.json()["error"].is_string(), path.starts_with("api"), "{path}: {}", answer.text());
    }
    // Neither a key of another token nor a name that no token has helps.
    let other = "Authorization: Bearer another-value-of-a-token\r\nContent-Type: application/json\r\n";
    let answer = site.ask("POST", &format!("/{SECRET}/api/chat"), other, &asked("mock-reason").to_string());
    assert!([403, 404].contains(&answer.status()));
    assert_eq!(site.ask("GET", "/0123456789abcdef0123/api/tags", other, "").status(), 401);
    assert_eq!(site.get("/ollama/api/version").status(), 401);
    let unseen = site.upstream.seen().split_off(before);
    assert!(unseen.iter().all(|seen| seen.target == "/v1/models"), "{unseen:?}");
    assert!(
        site.upstream.seen().iter().all(|seen| !seen.text().contains(token) && !seen.text().contains("another-value"))
    );
    let log = log_with(&site.proxy, "\"uri\":\"/ollama/api/version\"");
    assert!(log.contains("\"user_id\":\"copilot\"") && !log.contains(SECRET) && !log.contains(token), "{log}");
    assert!(log.contains("secret-without-token"), "{log}");
}

/// An alias is offered under its own name, described and asked as the model it stands for.
#[test]
fn an_alias_is_described_and_asked_as_its_model() {
    let site = Site::start(
        "\tauth_token {\n\t\ttoken a value-of-a-token-of-the-test {\n\t\t\tmodels fast\n\t\t}\n\t}\n\tmodel_alias fast mock-chat\n\tollama_compat {\n\t\tmodel mock-chat {\n\t\t\tcontext 77000\n\t\t}\n\t}",
    );
    let headers = "Authorization: Bearer value-of-a-token-of-the-test\r\nContent-Type: application/json\r\n";
    let ask = |path: &str, body: Value| site.ask("POST", path, headers, &body.to_string());
    let shown = ask("/api/show", json!({"model": "fast:latest"})).json();
    assert_eq!(shown["details"]["context_length"], 77_000, "{shown}");
    assert_eq!(shown["model_info"]["general.basename"], "fast", "{shown}");
    let said = ask("/api/chat", json!({"model": "fast:latest", "messages": say("hi"), "stream": false})).json();
    assert_eq!((&said["model"], &said["message"]["content"]), (&json!("fast:latest"), &json!(text())));
    assert_eq!(sent(&site.upstream.last())["model"], "mock-chat");
    for path in ["/api/show", "/api/chat"] {
        let refused = ask(path, json!({"model": "mock-chat", "messages": say("hi")}));
        assert!([403, 404].contains(&refused.status()), "{path}: {}", refused.text());
    }
}

/// A record of a request is made before the API is mounted, or after: either way without the secret.
#[test]
fn a_record_does_not_hold_the_secret() {
    let site = Site::start(&format!("\trecord records\n\tollama_compat {{\n\t\tsecret copilot {SECRET}\n\t}}"));
    assert_eq!(site.get(&format!("/{SECRET}/api/tags")).status(), 200);
    let folder = site.proxy.directory.path().join("records");
    let until = Instant::now() + Duration::from_secs(10);
    let mut written = String::new();
    while written.is_empty() && Instant::now() < until {
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        written = files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(written.contains("/api/tags") && !written.contains(SECRET), "{written}");
}
