//! Requests routed by the model they ask for, names that stand for other models, and one list over several upstreams.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::{Event, Upstream};

fn start(port: u16, lines: &str) -> Proxy {
    let file = format!("http://:{port} {{\n\tbind 127.0.0.1\n{lines}\n}}\n");
    Proxy::start(Which::Llmproxy, &file, port)
}

fn post(port: u16, path: &str, headers: &str, body: &[u8]) -> Response {
    let length = body.len();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {length}\r\n{headers}\r\n").into_bytes();
    request.extend_from_slice(body);
    client::request(port, request).unwrap()
}

fn chat(port: u16, body: &str) -> Response {
    post(port, "/v1/chat/completions", "Content-Type: application/json\r\n", body.as_bytes())
}

fn get(port: u16, path: &str, headers: &str) -> Response {
    client::request(port, format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n")).unwrap()
}

fn ids(response: &Response) -> Vec<String> {
    assert_eq!(response.status(), 200, "{}", response.text());
    response.json()["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
}

fn list(ids: &[&str]) -> String {
    let data: Vec<Value> =
        ids.iter().map(|id| json!({"id": id, "object": "model", "created": 5, "owned_by": "x"})).collect();
    json!({"object": "list", "data": data}).to_string()
}

/// Lines of a site with an upstream for `gpt-*` and one for `claude-*`.
fn by_model(gpt: &Upstream, claude: &Upstream) -> String {
    format!(
        "\t@gpt model gpt-* whisper-*\n\thandle @gpt {{\n\t\treverse_proxy {}\n\t}}\n\
         \t@claude model claude-*\n\thandle @claude {{\n\t\treverse_proxy {}\n\t}}",
        gpt.address(),
        claude.address()
    )
}

#[test]
fn requests_go_by_model_and_byte_for_byte() {
    let (gpt, claude) = (Upstream::start("gpt"), Upstream::start("claude"));
    let port = free_port();
    let _proxy = start(port, &by_model(&gpt, &claude));
    for (model, upstream) in [("gpt-4o", "gpt"), ("claude-x", "claude")] {
        let body = format!("{{ \"x\": 1.50, \"model\" :\"{model}\", \"X\":[{{\"model\":\"other\"}}] }}\n");
        let seen = chat(port, &body).json();
        assert_eq!((&seen["upstream"], &seen["body"]), (&json!(upstream), &json!(body)));
        assert_eq!(seen["framing"], "length");
    }
    // In pieces, and after the body of a form.
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let seen = client::request(port, format!("{head}9\r\n{{\"model\":\r\na\r\n\"claude-1\"\r\n1\r\n}}\r\n0\r\n\r\n"))
        .unwrap()
        .json();
    assert_eq!((&seen["upstream"], &seen["body"]), (&json!("claude"), &json!("{\"model\":\"claude-1\"}")));
    let form = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--B\r\n\
        Content-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--B--\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=B\r\n";
    let seen = post(port, "/v1/audio/transcriptions", kind, form.as_bytes()).json();
    assert_eq!((&seen["upstream"], &seen["body"]), (&json!("gpt"), &json!(form)));
    // Without a body.
    assert_eq!(get(port, "/v1/models/claude-x", "").json()["upstream"], "claude");
    assert_eq!(get(port, "/openai/deployments/gpt-4o/x", "").json()["upstream"], "gpt");
}

#[test]
fn a_model_that_nothing_serves_is_told_in_the_callers_dialect() {
    let (gpt, claude) = (Upstream::start("gpt"), Upstream::start("claude"));
    let port = free_port();
    let _proxy = start(port, &by_model(&gpt, &claude));
    let response = chat(port, r#"{"model":"llama"}"#);
    assert_eq!(response.status(), 404);
    assert!(response.header("x-request-id").is_some());
    let error = response.json()["error"].clone();
    assert_eq!(error["code"], "model_not_found");
    assert_eq!(error["message"], "The model `llama` does not exist or you do not have access to it.");
    let response = post(port, "/v1/messages", "Content-Type: application/json\r\n", br#"{"model":"llama"}"#);
    assert_eq!(response.status(), 404);
    assert_eq!(response.json()["error"], json!({"type": "not_found_error", "message": "model: llama"}));
    // What asks for no model is told so where the API would need one; other paths are answered as ever.
    for (response, status) in [
        (chat(port, "{}"), 400),
        (chat(port, "[1]"), 400),
        (post(port, "/v1/files", "Content-Type: image/png\r\n", b"x"), 404),
        (get(port, "/v1/models", ""), 404),
    ] {
        assert_eq!(response.status(), status);
        assert!(response.json()["error"]["message"].is_string(), "{}", response.text());
    }
    let response = get(port, "/", "");
    assert_eq!((response.status(), response.text()), (200, String::new()));
    // Compressed bodies are not looked into.
    let packed = post(
        port,
        "/v1/chat/completions",
        "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
        br#"{"model":"gpt-4"}"#,
    );
    assert_eq!(packed.status(), 404, "{}", packed.text());
    assert!(gpt.events().is_empty() && claude.events().is_empty());
}

#[test]
fn bodies_that_two_could_read_differently_are_refused() {
    let upstream = Upstream::start("U");
    let port = free_port();
    let _proxy = start(port, &by_model(&upstream, &upstream));
    for body in [
        r#"{"model":"gpt-1","model":"claude-1"}"#,
        r#"{"model":"gpt-1","mod\u0065l":"claude-1"}"#,
        r#"{"MODEL":"gpt-1","model":"claude-1"}"#,
        r#"{"model":["gpt-1"]}"#,
        r#"{"model":"gpt-1""#,
    ] {
        let response = chat(port, body);
        assert_eq!(response.status(), 400, "{body}");
        assert_eq!(response.json()["error"]["type"], "invalid_request_error", "{body}");
    }
    let deep = format!("{{\"a\":{}", "[".repeat(1 << 20));
    assert_eq!(chat(port, &deep).status(), 400);
    assert!(upstream.events().is_empty());
}

#[test]
fn large_prompts_pass_up_to_a_bound() {
    let upstream = Upstream::start("U");
    let port = free_port();
    let _proxy = start(
        port,
        &format!(
            "\t@m model m\n\thandle @m {{\n\t\trewrite /status/201\n\t\treverse_proxy {}\n\t}}",
            upstream.address()
        ),
    );
    let body =
        |size: usize| format!(r#"{{"messages":[{{"role":"user","content":"{}"}}],"model":"m"}}"#, "a".repeat(size));
    assert_eq!(chat(port, &body(50 << 20)).status(), 201);
    // The refusal comes before the body has been read.
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        65 << 20
    );
    let response = client::request(port, head).unwrap();
    assert_eq!(response.status(), 413);
    assert!(response.json()["error"]["message"].is_string());
}

#[test]
fn an_alias_changes_the_bytes_of_the_name_alone() {
    let upstream = Upstream::start("U");
    let port = free_port();
    let lines = format!(
        "\tmodel_alias {{\n\t\tfast gpt-4o-mini\n\t\tgpt-3.5* gpt-4o\n\t}}\n\t@gpt model gpt-*\n\treverse_proxy @gpt {}",
        upstream.address()
    );
    let _proxy = start(port, &lines);
    let sent = "{ \"a\":\"fast\", \"model\" : \"fast\" , \"b\": 1.0e0}\n";
    let seen = chat(port, sent).json();
    assert_eq!(seen["body"], sent.replace(": \"fast\"", ": \"gpt-4o-mini\""));
    assert_eq!(seen["framing"], "length");
    assert_eq!(chat(port, r#"{"model":"gpt-3.5-turbo"}"#).json()["body"], r#"{"model":"gpt-4o"}"#);
    assert_eq!(chat(port, r#"{"model":"gpt-5"}"#).json()["body"], r#"{"model":"gpt-5"}"#);
    assert_eq!(get(port, "/v1/models/fast?x=1", "").json()["target"], "/v1/models/gpt-4o-mini?x=1");
    // The caller's own word for it.
    let response = chat(port, r#"{"model":"llama"}"#);
    assert!(response.text().contains("`llama`"), "{}", response.text());
}

/// Sites of the same process that stand for upstreams, each with a fixed answer.
fn upstreams(answers: &[&str]) -> (Vec<u16>, String) {
    let ports: Vec<u16> = answers.iter().map(|_| free_port()).collect();
    let site = |(port, answer): (&u16, &&str)| {
        format!("http://:{port} {{\n\tbind 127.0.0.1\n\trespond /v1/models `{answer}`\n\trespond 404\n}}\n")
    };
    let sites = ports.iter().zip(answers).map(site).collect();
    (ports, sites)
}

#[test]
fn lists_of_upstreams_are_merged_for_either_kind_of_client() {
    let anthropic = r#"{"data":[{"type":"model","id":"claude-x","display_name":"Claude X","created_at":"2025-02-19T00:00:00Z"}],"has_more":false,"first_id":"claude-x","last_id":"claude-x"}"#;
    let (ports, sites) = upstreams(&[&list(&["gpt-4o", "shared"]), anthropic, &list(&["shared", "meta/llama:8b"])]);
    let port = free_port();
    let froms: String = ports.iter().map(|port| format!("\t\tfrom 127.0.0.1:{port}\n")).collect();
    let lines = format!(
        "\tmodel_alias fast gpt-4o\n\tmodels {{\n{froms}\t\tmodel mine {{\n\t\t\tcreated 2026-01-01\n\t\t}}\n\t\tstrict\n\t}}\n\trespond \"upstream {{llm.model}}\""
    );
    let file = format!("{sites}http://:{port} {{\n\tbind 127.0.0.1\n{lines}\n}}\n");
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);

    let all = ["mine", "gpt-4o", "shared", "claude-x", "meta/llama:8b", "fast"];
    let response = get(port, "/v1/models", "");
    assert_eq!(ids(&response), all);
    assert_eq!(
        response.json()["data"][3],
        json!({"id":"claude-x","object":"model","created":1_739_923_200,"owned_by":"anthropic"})
    );
    let response = get(port, "/v1/models", "anthropic-version: 2023-06-01\r\nAccept-Encoding: gzip\r\n");
    assert_eq!(ids(&response), all);
    assert_eq!(response.json()["data"][0]["created_at"], "2026-01-01T00:00:00Z");
    assert_eq!(get(port, "/v1/models/meta%2Fllama%3A8b", "").json()["id"], "meta/llama:8b");
    assert_eq!(get(port, "/v1/models/fast", "").json()["id"], "fast");
    let missing = get(port, "/v1/models/none", "");
    assert_eq!((missing.status(), &missing.json()["error"]["code"]), (404, &json!("model_not_found")));

    let mut connection = client::Connection::open(port);
    connection.send("HEAD /v1/models HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let head = connection.response_to(true).unwrap();
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some("application/json"));

    assert_eq!(chat(port, r#"{"model":"shared"}"#).text(), "upstream shared");
    assert_eq!(chat(port, r#"{"model":"fast"}"#).text(), "upstream gpt-4o");
    let refused = chat(port, r#"{"model":"gpt-5"}"#);
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (404, &json!("model_not_found")));
}

#[test]
fn sources_that_fail_or_dawdle_are_left_out_and_asked_without_the_client() {
    let slow = Upstream::start("slow");
    let echo = Upstream::start("echo");
    let (ports, sites) = upstreams(&[&list(&["a"])]);
    let (port, closed) = (free_port(), free_port());
    let lines = format!(
        "\tmodels {{\n\t\tfrom 127.0.0.1:{closed}\n\t\tfrom {{\n\t\t\trewrite /hang?ms=60000\n\t\t\treverse_proxy {}\n\t\t}}\n\
         \t\tfrom {} {{\n\t\t\theader_up X-Key k\n\t\t}}\n\t\tfrom 127.0.0.1:{}\n\t}}",
        slow.address(),
        echo.address(),
        ports[0]
    );
    let file = format!("{sites}http://:{port} {{\n\tbind 127.0.0.1\n{lines}\n}}\n");
    let proxy = Proxy::start(Which::Llmproxy, &file, port);
    let started = Instant::now();
    let response = get(port, "/v1/models", "Authorization: Bearer clients-own\r\nCookie: c=1\r\n");
    assert_eq!(ids(&response), ["a"]);
    let took = started.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
    assert!(slow.wait_for(Duration::from_secs(5), |event| matches!(event, Event::Left { .. })).is_some());
    assert_eq!(echo.events()[0], Event::Asked("GET /v1/models".to_owned()));
    // Kept: the slow one does not hold up the next request.
    let started = Instant::now();
    assert_eq!(ids(&get(port, "/v1/models", "")), ["a"]);
    assert!(started.elapsed() < Duration::from_secs(3));
    assert!(proxy.log().contains("a source of models failed"), "{}", proxy.log());
}

#[test]
fn no_list_at_all_is_an_error_of_the_upstream() {
    let (port, closed) = (free_port(), free_port());
    let _proxy = start(port, &format!("\tmodels {{\n\t\tfrom 127.0.0.1:{closed}\n\t}}"));
    let response = get(port, "/v1/models", "");
    assert_eq!(response.status(), 502);
    assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
    assert!(response.json()["error"]["message"].is_string());
}

#[test]
fn the_list_of_the_upstream_passes_byte_for_byte_but_for_what_is_filtered() {
    const LIST: &str = r#"{ "object": "list", "data" : [ {"id":"a","x":1.0} , {"id":"b"} ] }"#;
    let (ports, sites) = upstreams(&[LIST]);
    let (all, some) = (free_port(), free_port());
    let site = |port: u16, lines: &str| {
        format!("http://:{port} {{\n\tbind 127.0.0.1\n\t{lines}\n\treverse_proxy 127.0.0.1:{}\n}}\n", ports[0])
    };
    let file = format!("{sites}{}{}", site(all, "models"), site(some, "models {\n\t\tdeny b\n\t}"));
    let _proxy = Proxy::start(Which::Llmproxy, &file, all);
    let response = get(all, "/v1/models", "Accept-Encoding: gzip, br\r\n");
    assert_eq!(
        (response.text(), response.header("content-length")),
        (LIST.to_owned(), Some(LIST.len().to_string().as_str()))
    );
    let filtered = r#"{ "object": "list", "data" : [{"id":"a","x":1.0}] }"#;
    assert_eq!(get(some, "/v1/models", "").text(), filtered);
    assert_eq!(get(some, "/v1/models/b", "").status(), 404);
    assert_eq!(chat(some, r#"{"model":"b"}"#).json()["error"]["code"], "model_not_found");
}

#[test]
fn callers_see_and_use_what_their_token_allows() {
    let (ports, sites) = upstreams(&[&list(&["gpt-4o", "gpt-5", "o3"])]);
    let port = free_port();
    let lines = format!(
        "\tauth_token {{\n\t\ttoken some token-of-some {{\n\t\t\tmodels gpt-4o fast\n\t\t}}\n\t\ttoken all token-of-all\n\t}}\n\
         \tmodel_alias fast gpt-5\n\tmodels {{\n\t\tfrom 127.0.0.1:{}\n\t\tstrict\n\t}}\n\trespond \"upstream {{llm.model}}\"",
        ports[0]
    );
    let file = format!("{sites}http://:{port} {{\n\tbind 127.0.0.1\n{lines}\n}}\n");
    let _proxy = Proxy::start(Which::Llmproxy, &file, port);
    let (some, all) = ("Authorization: Bearer token-of-some\r\n", "Authorization: Bearer token-of-all\r\n");
    assert_eq!(get(port, "/v1/models", "").status(), 401);
    assert_eq!(ids(&get(port, "/v1/models", some)), ["gpt-4o", "fast"]);
    assert_eq!(ids(&get(port, "/v1/models", all)), ["gpt-4o", "gpt-5", "o3", "fast"]);
    let ask = |headers: &str, model: &str| {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        post(port, "/v1/chat/completions", &headers, json!({"model": model}).to_string().as_bytes())
    };
    assert_eq!(ask(some, "gpt-4o").text(), "upstream gpt-4o");
    // Rights are to the name that the caller uses.
    assert_eq!(ask(some, "fast").text(), "upstream gpt-5");
    assert_eq!(ask(some, "gpt-5").status(), 403);
    assert_eq!(ask(all, "gpt-6").status(), 404);
    // What exists and what does not is not told apart by who may use neither.
    let refused = |id: &str| {
        let response = get(port, &format!("/v1/models/{id}"), some);
        (response.status(), response.json()["error"]["code"].clone())
    };
    assert_eq!(refused("o3"), refused("no"));
    assert_eq!(get(port, "/v1/models/fast", some).json()["id"], "fast");
}
