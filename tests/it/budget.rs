//! `budget` on real sockets: many clients at once, every endpoint, refusals in each dialect, streams that are cut off,
//! reloads, and crashes under load. What the upstream has really made is counted by the upstream.

use crate::harness::billing_upstream::BillingUpstream;
use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, free_port, run_within};
use crate::harness::{long, repository};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A cent a token of output, nothing for input.
const PRICE: &str = "price mock in 0 out 10000";
const CENT: u64 = 10_000_000;

fn start(options: &str, upstream: &BillingUpstream, lines: &str) -> (Proxy, u16) {
    let port = free_port();
    (Proxy::start(Which::Llmproxy, &file(options, port, upstream, lines), port), port)
}

fn file(options: &str, port: u16, upstream: &BillingUpstream, lines: &str) -> String {
    format!("{{\n\t{options}\n}}\nhttp://127.0.0.1:{port} {{\n\t{lines}\n\treverse_proxy {}\n}}\n", upstream.address())
}

fn post(port: u16, path: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n");
    client::request(port, format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}")).expect("an answer")
}

const CHAT: &str = "/v1/chat/completions";

fn chat(port: u16, headers: &str) -> Response {
    post(port, CHAT, headers, r#"{"model":"mock","max_tokens":20,"messages":[]}"#)
}

/// Asks until the answer has this status: an answer has come to its end here a moment before it is charged there.
fn until(status: u16, ask: impl Fn() -> Response) -> Response {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let response = ask();
        if response.status() == status || Instant::now() > end {
            assert_eq!(response.status(), status, "{}", response.text());
            return response;
        }
    }
}

#[test]
fn many_streams_at_once_never_spend_more_than_the_limit_and_one_reservation() {
    let upstream = BillingUpstream::start();
    let (proxy, port) = start(PRICE, &upstream, "budget all $1 in total {\n\t\tkey everybody\n\t}");
    let waited = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..64_u64 {
            let waited = &waited;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(n);
                let body =
                    r#"{"model":"mock","max_tokens":20,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
                for _ in 0..2000 {
                    let response = post(port, CHAT, &format!("x-make: {}\r\n", rng.u8(1..=20)), body);
                    if response.status() == 200 {
                        assert!(response.complete && response.text().ends_with("data: [DONE]\n\n"));
                        assert!(!response.text().contains("usage"), "nobody asked for it");
                        continue;
                    }
                    assert_eq!(response.status(), 429, "{}", response.text());
                    if response.json()["error"]["code"] == "insufficient_quota" {
                        return;
                    }
                    assert_eq!(response.header("retry-after"), Some("1"));
                    waited.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(rng.u64(1..20)));
                }
                panic!("the budget is never spent");
            });
        }
    });
    // One reservation is 20 tokens.
    let spent = upstream.tokens();
    assert!((100..=120).contains(&spent), "{spent} cents of $1 are spent");
    assert!(waited.load(Ordering::Relaxed) > 0, "nobody ever had to wait: the test proves nothing");
    assert!(proxy.log().contains("a budget is spent"), "{}", proxy.log());
}

#[test]
fn every_endpoint_is_counted_and_refused_in_its_own_dialect() {
    let upstream = BillingUpstream::start();
    let lines = "budget each $5 in total {\n\t\tkey {http.request.header.x-key}\n\t}";
    let (_proxy, port) = start("price mock in 10000 out 10000", &upstream, lines);
    let (_compat, compat) = start("price mock in 10000 out 10000", &upstream, &format!("ollama_compat\n\t{lines}"));
    let openai = |answer: &Value| {
        answer["error"]["code"] == "insufficient_quota" && answer["error"]["type"] == "insufficient_quota"
    };
    let anthropic = |answer: &Value| answer["type"] == "error" && answer["error"]["type"] == "rate_limit_error";
    let ollama = |answer: &Value| answer["error"].as_str().is_some_and(|text| text.contains("budget `each`"));
    let (chat, stream) = (r#"{"model":"mock","messages":[]}"#, r#"{"model":"mock","stream":true,"messages":[]}"#);
    let prompt = r#"{"model":"mock","prompt":"hi","input":"hi","stream":false}"#;
    let cases: [(u16, &str, &str, &dyn Fn(&Value) -> bool); 13] = [
        (port, CHAT, chat, &openai),
        (port, "/team/v1/chat/completions", stream, &openai),
        (port, "/openai/deployments/mock/chat/completions", r#"{"messages":[]}"#, &openai),
        (port, "/v1/completions", prompt, &openai),
        (port, "/v1/responses", prompt, &openai),
        (port, "/v1/embeddings", prompt, &openai),
        (port, "/v1/messages", chat, &anthropic),
        (port, "/v1beta/models/mock:generateContent", r#"{"contents":[]}"#, &openai),
        (port, "/api/chat", r#"{"model":"mock","stream":false,"messages":[]}"#, &ollama),
        (port, "/api/generate", prompt, &ollama),
        (port, "/api/embed", prompt, &ollama),
        (port, "/own/path", chat, &openai),
        (
            compat,
            "/api/chat",
            r#"{"model":"mock","stream":false,"messages":[{"role":"user","content":"hi"}]}"#,
            &ollama,
        ),
    ];
    for (n, (port, path, body, right)) in cases.into_iter().enumerate() {
        let headers = format!("x-key: {n}\r\nx-make: 1000\r\n");
        assert_eq!(post(port, path, &headers, body).status(), 200, "{path}");
        let refused = until(429, || post(port, path, &headers, body));
        assert_eq!(refused.header("x-should-retry"), Some("false"), "{path}");
        assert_eq!(refused.header("retry-after"), None, "{path}");
        assert!(right(&refused.json()), "{path}: {}", refused.text());
    }
    // What is not to be had: a model without a price, and a connection that is not seen through.
    let unpriced = post(port, CHAT, "", r#"{"model":"house","messages":[]}"#);
    assert_eq!((unpriced.status(), unpriced.json()["error"]["code"].as_str()), (403, Some("price_unknown")));
    let socket = format!(
        "GET /v1/realtime?model=mock HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    assert_eq!(client::request(port, socket).unwrap().status(), 403);
}

#[test]
fn a_refusal_of_the_upstream_costs_nothing() {
    let upstream = BillingUpstream::start();
    let (_proxy, port) = start(PRICE, &upstream, "budget all $0.20 in total {\n\t\tkey everybody\n\t}");
    for status in [400, 429, 500] {
        for _ in 0..3 {
            until(status, || chat(port, &format!("x-status: {status}\r\n")));
        }
    }
    until(200, || chat(port, "x-make: 19\r\n"));
    until(200, || chat(port, "x-make: 1\r\n"));
    until(429, || chat(port, ""));
    assert_eq!(upstream.tokens(), 20);
}

#[test]
fn a_stream_whose_budget_is_spent_ends_properly() {
    let upstream = BillingUpstream::start();
    let (proxy, port) =
        start(PRICE, &upstream, "budget all $1 in total {\n\t\tkey {http.request.header.x-key}\n\t\tcut_off\n\t}");
    let long = "x-make: 100000\r\nx-pause: 1\r\n";
    let body = r#"{"model":"mock","stream":true,"max_tokens":100000,"messages":[]}"#;
    let openai = post(port, CHAT, &format!("x-key: a\r\n{long}"), body);
    let text = openai.text();
    assert!(openai.complete && text.ends_with("data: [DONE]\n\n") && text.contains(r#""length""#), "{}", tail(&text));
    let anthropic = post(port, "/v1/messages", &format!("x-key: b\r\n{long}"), body);
    let text = anthropic.text();
    assert!(anthropic.complete && text.contains("max_tokens") && text.contains("message_stop"), "{}", tail(&text));
    // What has gone out by then is made, and a little that was under way.
    std::thread::sleep(Duration::from_millis(100));
    let made = upstream.tokens();
    assert!((180..600).contains(&made), "{made} tokens");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(upstream.tokens(), made, "the upstream goes on");
    assert!(proxy.log().contains("a stream is cut off"), "{}", proxy.log());
}

fn tail(text: &str) -> &str {
    &text[text.len().saturating_sub(600)..]
}

/// SDKs see a spent budget as what it is, and do not try again; a stream that is cut off ends for them as one of its
/// longest answer.
#[test]
fn official_clients_do_not_try_again() {
    let venv = repository().join(".tools/venv");
    let installed = std::fs::read_to_string(venv.join("done")).unwrap_or_default();
    if !["openai", "anthropic"].iter().all(|package| installed.contains(package)) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "./test installs the SDKs");
        eprintln!("skipped: the SDKs are not installed (./test --install)");
        return;
    }
    let upstream = BillingUpstream::start();
    let lines = "budget all $1 in total {\n\t\tkey {http.request.header.x-key}\n\t\tcut_off\n\t}";
    let (_proxy, port) = start(PRICE, &upstream, lines);
    let mut client = Command::new(venv.join("bin/python"));
    client.arg(repository().join("tests/sdk/budget_cases.py")).arg(format!("http://127.0.0.1:{port}"));
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        client.env_remove(variable);
    }
    client.env("NO_PROXY", "127.0.0.1").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = run_within(&mut client, Duration::from_secs(60));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["openai_cut"], "length", "{told}");
    assert_eq!(told["anthropic_cut"], "max_tokens", "{told}");
    for (case, class) in [("openai_spent", "RateLimitError"), ("anthropic_spent", "RateLimitError")] {
        assert_eq!((told[case]["raised"].as_str(), told[case]["status"].as_u64()), (Some(class), Some(429)), "{told}");
        assert!(told[case]["says"].as_str().unwrap().contains("budget `all`"), "{told}");
        // Half a second is the shortest that they wait before another attempt.
        assert!(told[format!("{case}_took")].as_f64().unwrap() < 0.4, "{case} was tried again: {told}");
    }
    assert_eq!(upstream.calls(), 2, "what was refused did not go up");
}

#[test]
fn a_reload_keeps_what_is_spent_and_changes_the_limit_at_once() {
    let upstream = BillingUpstream::start();
    let lines = |limit: &str| format!("budget all {limit} in total {{\n\t\tkey everybody\n\t}}");
    let (proxy, port) = start(PRICE, &upstream, &lines("$0.20"));
    until(200, || chat(port, "x-make: 20\r\n"));
    until(429, || chat(port, ""));
    reload(&proxy, &file(PRICE, port, &upstream, &lines("$0.21")));
    until(200, || chat(port, "x-make: 1\r\n"));
    let refused = until(429, || chat(port, ""));
    assert!(refused.text().contains("$0.21 in total"), "{}", refused.text());
    reload(&proxy, &file(PRICE, port, &upstream, &lines("$0.10")));
    until(429, || chat(port, ""));
    assert_eq!(upstream.tokens(), 21);
}

fn reload(proxy: &Proxy, text: &str) {
    std::fs::write(&proxy.config, text).unwrap();
    let output = run_within(proxy.command(Which::Llmproxy).arg("reload"), Duration::from_secs(20));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Killed under load again and again: calls, charges and what budgets have spent agree in the file, and a proxy that
/// begins anew believes exactly that, to a billionth of a dollar.
#[test]
fn a_crash_under_load_leaves_ledger_and_budget_in_agreement() {
    let upstream = BillingUpstream::start();
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("usage.db");
    let options = format!("usage {{\n\t\tledger {}\n\t\tflush 20ms\n\t}}\n\t{PRICE}", ledger.display());
    let lines = |limit: &str| {
        format!(
            "budget all {limit} in total {{\n\t\tlimit 100G tokens per month\n\t\tkey {{http.request.header.x-key}}\n\t}}"
        )
    };
    let mut calls_before = 0;
    for round in 0..if long() { 100 } else { 5 } {
        let (proxy, port) = start(&options, &upstream, &lines("$1000000"));
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let early = std::thread::scope(|scope| {
            for n in 0..8 {
                let (stop, done) = (&stop, &done);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(round * 8 + n);
                    while !stop.load(Ordering::Relaxed) {
                        let stream = rng.bool();
                        let body = format!(r#"{{"model":"mock","max_tokens":20,"stream":{stream},"messages":[]}}"#);
                        let headers = format!("x-key: k{}\r\nx-make: {}\r\n", n % 4, rng.u8(1..=20));
                        if try_post(port, &headers, &body).is_some_and(|r| r.status() == 200 && r.complete) {
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(if round % 2 == 0 { 150 } else { 350 }));
            let early = done.load(Ordering::Relaxed);
            // The interval of a flush is over when they are in the file; how long that takes is the disk's affair.
            let until = Instant::now() + Duration::from_secs(20);
            while kept(&ledger) < calls_before + early && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            // SIGKILL, in the midst of it.
            drop(proxy);
            stop.store(true, Ordering::Relaxed);
            early
        });
        assert!(early > 0, "nothing was under way");
        let (calls, spend) = agreeing(&ledger);
        let new = calls - calls_before;
        assert!(new >= early, "of {early} calls that ended before, {new} are kept");
        calls_before = calls;
        let (key, sum) = spend.iter().max_by_key(|(_, sum)| **sum).map(|(k, s)| (k.clone(), *s)).unwrap();
        assert!(sum.is_multiple_of(CENT) && sum / CENT <= upstream.tokens());
        let dollars = |nano: u64| format!("${}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
        let (mut proxy, port) = start(&options, &upstream, &lines(&dollars(sum)));
        let headers = format!("x-key: {key}\r\nx-make: 1\r\n");
        let refused = chat(port, &headers);
        assert_eq!(refused.status(), 429, "round {round}: less than {sum} is believed to be spent");
        reload(&proxy, &file(&options, port, &upstream, &lines(&dollars(sum + 1))));
        assert_eq!(chat(port, &headers).status(), 200, "round {round}: more than {sum} is believed to be spent");
        // Ends in order: this call is kept too.
        let output = run_within(proxy.command(Which::Llmproxy).arg("stop"), Duration::from_secs(20));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(proxy.ends_within(Duration::from_secs(20)).is_some(), "it does not stop");
        let (calls, after) = agreeing(&ledger);
        assert_eq!((calls, after[&key]), (calls_before + 1, sum + CENT), "round {round}");
        calls_before = calls;
    }
}

/// Calls in the file, while it is being written.
fn kept(ledger: &Path) -> u64 {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let count = rusqlite::Connection::open_with_flags(ledger, flags).and_then(|file| {
        file.busy_timeout(Duration::from_secs(5))?;
        file.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0))
    });
    // In its first moment the file has no tables.
    count.unwrap_or(0).try_into().unwrap()
}

/// As [`post`], where the proxy may be gone.
fn try_post(port: u16, headers: &str, body: &str) -> Option<Response> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = body.len();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    );
    stream.write_all(format!("{head}{headers}Content-Length: {length}\r\n\r\n{body}").as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let complete = text.ends_with("0\r\n\r\n") || text.ends_with('}');
    let head = client::Head { status, ..client::Head::default() };
    Some(Response { head, body: bytes, trailers: Vec::new(), complete })
}

/// The number of calls, and what each key has spent in total, when the file says the same in all its tables.
fn agreeing(ledger: &Path) -> (u64, BTreeMap<String, u64>) {
    let file = rusqlite::Connection::open(ledger).unwrap();
    let one = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    type Sums = BTreeMap<(String, String, String, i64), (i64, i64)>;
    let sums = |sql: &str| -> Sums {
        let mut statement = file.prepare(sql).unwrap();
        let rows =
            statement.query_map([], |r| Ok(((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?), (r.get(4)?, r.get(5)?))));
        rows.unwrap().map(Result::unwrap).collect()
    };
    let charged = sums("SELECT budget, key, per, period, sum(cost), sum(tokens) FROM charges GROUP BY 1, 2, 3, 4");
    let spent = sums("SELECT budget, key, per, period, cost, tokens FROM spend");
    assert_eq!(charged, spent);
    assert_eq!(one("SELECT count(*) FROM charges WHERE call NOT IN (SELECT id FROM calls)"), 0);
    let total: i64 = spent.iter().filter(|(place, _)| place.2 == "total").map(|(_, sum)| sum.0).sum();
    assert_eq!(one("SELECT coalesce(sum(cost), 0) FROM calls"), total, "each call is charged once");
    let of_total = spent.into_iter().filter(|(place, _)| place.2 == "total");
    let keys = of_total.map(|((_, key, _, _), (cost, _))| (key, u64::try_from(cost).unwrap())).collect();
    (one("SELECT count(*) FROM calls").try_into().unwrap(), keys)
}
