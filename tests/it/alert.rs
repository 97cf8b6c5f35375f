//! `alert` on real sockets: what a webhook receives, that it can be verified, that it is tried again, and that requests do
//! not wait for it.

use crate::harness::billing_upstream::BillingUpstream;
use crate::harness::client::{self, Response};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::{read_body, read_head, spawn};
use base64::Engine;
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Takes webhooks: answers with these statuses, then 200; 0 = not at all.
struct Receiver {
    port: u16,
    seen: Arc<Mutex<Vec<Taken>>>,
}

#[derive(Clone)]
struct Taken {
    id: String,
    timestamp: String,
    signature: Option<String>,
    body: String,
}

impl Receiver {
    fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Taken>>> = Arc::default();
        let taking = Arc::clone(&seen);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(&stream);
                let Ok(Some(request)) = read_head(&mut reader) else { continue };
                let body = read_body(&request, &mut reader, |_, _| Ok(())).unwrap().bytes;
                let header = |name: &str| request.header(name).map(str::to_owned);
                let number = {
                    let mut seen = taking.lock().unwrap();
                    seen.push(Taken {
                        id: header("webhook-id").unwrap(),
                        timestamp: header("webhook-timestamp").unwrap(),
                        signature: header("webhook-signature"),
                        body: String::from_utf8(body).unwrap(),
                    });
                    seen.len() - 1
                };
                match statuses.get(number).copied().unwrap_or(200) {
                    0 => std::thread::sleep(Duration::from_secs(30)),
                    status => {
                        let answer =
                            format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        let _ = (&stream).write_all(answer.as_bytes());
                    }
                }
            }
        });
        Self { port, seen }
    }

    /// What has come, once it is so many.
    fn wait_for(&self, count: usize) -> Vec<Taken> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < end, "{} of {count} webhooks came", seen.len());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Taken {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn start(upstream: &BillingUpstream, alert: &str) -> (Proxy, u16) {
    let port = free_port();
    let file = format!(
        "{{\n\tprice mock in 0 out 10000\n\tservers {{\n\t\ttrusted_proxies static 127.0.0.1/32\n\t}}\n}}\nhttp://127.0.0.1:{port} {{\n\tauth_token {{\n\t\ttoken ann the-token-of-ann-in-the-test\n\t\ttoken bob the-token-of-bob-in-the-test\n\t}}\n\tbudget team $1 in total {{\n\t\tkey {{auth.id}}\n\t}}\n\talert watch {{\n\t\t{alert}\n\t}}\n\treverse_proxy {}\n}}\n",
        upstream.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &file, port, |command| {
        command.env("NO_PROXY", "127.0.0.1");
    });
    (proxy, port)
}

fn ask(port: u16, user: &str, headers: &str) -> Response {
    let body = r#"{"model":"mock","max_tokens":5,"messages":[]}"#;
    let length = body.len();
    client::request(
        port,
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer the-token-of-{user}-in-the-test\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"),
    )
    .expect("an answer")
}

#[test]
fn a_webhook_is_signed_tried_again_and_held_off() {
    let (upstream, receiver) = (BillingUpstream::start(), Receiver::start(&[500]));
    let alert = format!(
        "when spend over 1h > $0.30\n\t\twhen budget team > 50%\n\t\tby {{auth.id}}\n\t\twebhook http://127.0.0.1:{}/hook {{\n\t\t\tsecret {SECRET}\n\t\t}}",
        receiver.port
    );
    let (proxy, port) = start(&upstream, &alert);
    for make in [10, 10, 5, 10, 20] {
        assert_eq!(ask(port, "ann", &format!("x-make: {make}\r\n")).status(), 200);
    }
    // The first attempt fails; then both of them come, once each.
    let seen = receiver.wait_for(3);
    assert_eq!(seen[0].id, seen[1].id, "the same message again");
    assert_eq!(seen[0].body, seen[1].body);
    let (first, second) = (seen[1].json(), seen[2].json());
    assert_eq!(first["type"], "llmproxy.alert");
    assert_eq!(
        first["data"],
        json!({"alert": "watch", "condition": "spend over 1h > $0.30", "key": "ann", "value": 0.35, "against": 0.3})
    );
    assert_eq!(first["text"], "watch: ann: 0.35 within 1h0m0s, more than 0.3 (spend over 1h > $0.30)");
    assert_eq!(second["data"]["condition"], "budget team > 50%");
    assert_eq!((second["data"]["key"].as_str(), second["data"]["value"].as_f64()), (Some("ann"), Some(55.0)));
    for taken in &seen {
        assert_eq!(taken.signature.as_deref(), Some(&*signature(taken)));
    }
    // Somebody else is somebody else; nothing was told twice.
    assert_eq!(ask(port, "bob", "x-make: 31\r\n").status(), 200);
    let seen = receiver.wait_for(4);
    assert_eq!((seen.len(), seen[3].json()["data"]["key"].as_str()), (4, Some("bob")));
    let log = proxy.log();
    assert!(log.contains("more than 0.3") && !log.contains(SECRET) && !log.contains("/hook"), "{log}");
}

fn signature(taken: &Taken) -> String {
    let base64 = base64::engine::general_purpose::STANDARD;
    let secret = base64.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let signed = format!("{}.{}.{}", taken.id, taken.timestamp, taken.body);
    format!("v1,{}", base64.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
}

#[test]
fn errors_limits_and_new_networks_are_told_and_nobody_waits() {
    let (upstream, receiver) = (BillingUpstream::start(), Receiver::start(&[200, 200, 200, 0]));
    let alert = format!(
        "when errors over 1m > 5%\n\t\twhen rate_limited over 1m > 5%\n\t\twhen new_network\n\t\twebhook http://127.0.0.1:{}/",
        receiver.port
    );
    let (_proxy, port) = start(&upstream, &alert);
    for n in 0..18 {
        assert_eq!(ask(port, "ann", "x-make: 1\r\nX-Forwarded-For: 192.0.2.1\r\n").status(), 200, "{n}");
    }
    // Of 19 calls a failure is no share yet, of 20 two are a tenth.
    assert_eq!(ask(port, "ann", "x-status: 503\r\nX-Forwarded-For: 192.0.2.2\r\n").status(), 503);
    assert_eq!(ask(port, "ann", "x-status: 503\r\nX-Forwarded-For: 192.0.2.3\r\n").status(), 503);
    let told = receiver.wait_for(1)[0].json();
    assert_eq!((told["data"]["key"].as_str(), told["data"]["value"].as_f64()), (Some(""), Some(0.1)));
    assert_eq!(told["data"]["condition"], "errors over 1m > 5%");
    for _ in 0..2 {
        assert_eq!(ask(port, "bob", "x-status: 429\r\nX-Forwarded-For: 198.51.100.1\r\n").status(), 429);
    }
    assert_eq!(receiver.wait_for(2)[1].json()["data"]["condition"], "rate_limited over 1m > 5%");
    assert_eq!(ask(port, "ann", "x-make: 1\r\nX-Forwarded-For: 203.0.113.77\r\n").status(), 200);
    let told = receiver.wait_for(3)[2].json();
    assert_eq!(told["data"]["network"], "203.0.113.0/24");
    assert!(receiver.seen.lock().unwrap()[2].signature.is_none());
    // The receiver hangs from here on: requests do not notice.
    let began = Instant::now();
    assert_eq!(ask(port, "bob", "x-make: 1\r\nX-Forwarded-For: 203.0.113.78\r\n").status(), 200);
    receiver.wait_for(4);
    for _ in 0..5 {
        assert_eq!(ask(port, "bob", "x-make: 1\r\nX-Forwarded-For: 203.0.113.78\r\n").status(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
