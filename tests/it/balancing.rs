//! Balancing and retries over real sockets: who is asked, how often, and with what body.

use crate::harness::client::{self, Connection, Response};
use crate::harness::process::{Proxy, Which, free_port};
use crate::harness::upstream::{Request, read_body, read_head, spawn};
use serde_json::json;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What an upstream does with a request.
enum Answer {
    Reply(u16, &'static str, &'static str),
    /// After so long, 200.
    Late(Duration),
    /// Closes the connection without a byte.
    Close,
    /// 200, a piece of the body, and no end.
    Cut,
    /// 200 and a piece of the body; the rest when the client leaves.
    Stream,
}

/// What an upstream saw.
struct Seen {
    key: String,
    body: Vec<u8>,
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

struct Origin {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                spawn(move || {
                    let _ = serve(&stream, &log, &*script);
                });
            }
        });
        Self { port, seen }
    }

    fn always(status: u16) -> Self {
        Self::start(move |_| Answer::Reply(status, "", "said"))
    }

    /// How often it was asked.
    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The keys it was asked with, in order.
    fn keys(&self) -> String {
        self.seen.lock().unwrap().iter().map(|seen| seen.key.as_str()).collect()
    }

    fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Seen>>, script: &Script) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_head(&mut reader)? {
        let body = read_body(&request, &mut reader, |_, _| Ok(()))?.bytes;
        let seen = Seen { key: key_of(&request), body };
        let answer = script(&seen);
        log.lock().unwrap().push(seen);
        let reply = |status: u16, lines: &str, body: &str| {
            format!("HTTP/1.1 {status} Said\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        match answer {
            Answer::Reply(status, lines, body) => out.write_all(reply(status, lines, body).as_bytes())?,
            Answer::Late(after) => {
                std::thread::sleep(after);
                out.write_all(reply(200, "", "late").as_bytes())?;
            }
            Answer::Close => return Ok(()),
            Answer::Cut => return out.write_all(b"HTTP/1.1 200 Said\r\nContent-Length: 99\r\n\r\npart"),
            Answer::Stream => {
                out.write_all(b"HTTP/1.1 200 Said\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")?;
                let _ = read_head(&mut reader);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn key_of(request: &Request) -> String {
    request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned()
}

fn start(site: &str) -> (Proxy, u16) {
    let port = free_port();
    (Proxy::start(Which::Llmproxy, &file(port, site), port), port)
}

fn file(port: u16, site: &str) -> String {
    format!("{{\n\tadmin off\n\tauto_https off\n}}\n\nhttp://:{port} {{\n\tbind 127.0.0.1\n\t{site}\n}}\n")
}

/// Two accounts, A and B, at one address; A comes first.
fn pool(origin: &Origin, options: &str) -> String {
    let account = |key: &str| {
        format!("to http://127.0.0.1:{} {{\n\t\t\theader_up Authorization \"Bearer {key}\"\n\t\t}}\n\t\t", origin.port)
    };
    format!("reverse_proxy {{\n\t\t{}{}lb_policy first\n\t\t{options}\n\t}}", account("A"), account("B"))
}

fn proxy_to(origins: &[&Origin], options: &str) -> String {
    let addresses: Vec<String> = origins.iter().map(|o| format!("127.0.0.1:{}", o.port)).collect();
    format!("reverse_proxy {} {{\n\t\t{options}\n\t}}", addresses.join(" "))
}

fn post(port: u16, body: &[u8]) -> Response {
    let head = format!("POST /v1/x HTTP/1.1\r\nHost: api.test\r\nContent-Length: {}\r\n\r\n", body.len());
    client::request(port, [head.as_bytes(), body].concat()).expect("an answer")
}

const LIMITED: &str = "Retry-After: 30\r\nContent-Type: application/json\r\n";
const RATE: &str = r#"{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}"#;
const SPENT: &str = r#"{"error":{"message":"no money","type":"insufficient_quota","code":"insufficient_quota"}}"#;

#[test]
fn a_limited_key_is_left_alone_also_after_a_reload() {
    let origin = Origin::start(|seen| match seen.key.as_str() {
        "A" => Answer::Reply(429, LIMITED, RATE),
        _ => Answer::Reply(200, "", "said"),
    });
    let options = "retry_on 429 503";
    let (proxy, port) = start(&pool(&origin, options));
    for _ in 0..3 {
        assert_eq!(post(port, b"{}").status(), 200);
    }
    assert_eq!(origin.keys(), "ABBB");
    let reloaded = format!("header X-Gen two\n\t{}", pool(&origin, options));
    std::fs::write(&proxy.config, file(port, &reloaded)).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while post(port, b"{}").header("x-gen").is_none() {
        assert!(Instant::now() < until, "not live:\n{}", proxy.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(post(port, b"{}").status(), 200);
    assert_eq!(origin.keys().matches('A').count(), 1, "{}", origin.keys());
}

#[test]
fn where_all_keys_are_limited_the_providers_answer_is_passed_on() {
    let origin = Origin::start(|_| Answer::Reply(429, LIMITED, RATE));
    let (_proxy, port) = start(&pool(&origin, "retry_on 429"));
    let response = post(port, b"{}");
    assert_eq!((response.status(), response.header("retry-after"), response.text().as_str()), (429, Some("30"), RATE));
    assert_eq!(origin.keys(), "AB");
    // Both are in cooldown: the one that is free soonest is asked, and it alone.
    assert_eq!(post(port, b"{}").status(), 429);
    assert_eq!(origin.asked(), 3);
}

#[test]
fn an_account_without_quota_is_not_asked_twice() {
    let origin = Origin::start(|seen| match seen.key.as_str() {
        "A" => Answer::Reply(429, "Content-Type: application/json\r\n", SPENT),
        _ => Answer::Reply(200, "", "said"),
    });
    let (_proxy, port) = start(&pool(&origin, "retry_on 429\n\t\tlb_retries 5"));
    assert_eq!(post(port, b"{}").status(), 200);
    assert_eq!(post(port, b"{}").status(), 200);
    assert_eq!(origin.keys(), "ABB");

    let spent = Origin::start(|_| Answer::Reply(429, "Content-Type: application/json\r\n", SPENT));
    let (_proxy, port) = start(&pool(&spent, "retry_on 429\n\t\tlb_retries 5"));
    let response = post(port, b"{}");
    assert_eq!((response.status(), response.text().as_str(), spent.keys().as_str()), (429, SPENT, "AB"));
}

#[test]
fn a_status_is_tried_elsewhere_and_the_last_answer_stands() {
    let (bad, good) = (Origin::always(503), Origin::always(200));
    let (_proxy, port) = start(&proxy_to(&[&bad, &good], "lb_policy first\n\t\tretry_on 503"));
    assert_eq!(post(port, b"abc").status(), 200);
    assert_eq!(good.seen.lock().unwrap()[0].body, b"abc");
    assert_eq!((bad.asked(), good.asked()), (1, 1));

    let (one, two) = (Origin::always(500), Origin::always(503));
    let (_proxy, port) = start(&proxy_to(&[&one, &two], "lb_policy first\n\t\tretry_on 500 503"));
    let response = post(port, b"abc");
    assert_eq!((response.status(), response.text().as_str()), (503, "said"));
    assert_eq!((one.asked(), two.asked()), (1, 1));

    // An upstream that cannot be reached does not hide what the other one said.
    let (dead, site) = (free_port(), |dead: u16| {
        format!("reverse_proxy 127.0.0.1:{} 127.0.0.1:{dead} {{\n\t\tlb_policy first\n\t\tretry_on 500\n\t}}", one.port)
    });
    let (_proxy, port) = start(&site(dead));
    assert_eq!(post(port, b"abc").status(), 500);
}

#[test]
fn a_condition_on_the_answer_is_tried_again() {
    let bad = Origin::start(|_| Answer::Reply(503, "X-Busy: yes\r\n", "said"));
    let good = Origin::always(200);
    let options = "lb_policy round_robin\n\t\tlb_retries 1\n\t\tlb_retry_match {\n\t\t\tmethod POST\n\t\t\texpression `{rp.status_code} >= 500 && {rp.header.X-Busy} == \"yes\"`\n\t\t}";
    let (_proxy, port) = start(&proxy_to(&[&good, &bad], options));
    // The turn begins with the second.
    assert_eq!(post(port, b"abc").status(), 200);
    assert_eq!((bad.asked(), good.asked()), (1, 1));
    assert_eq!(good.seen.lock().unwrap()[0].body, b"abc");
    let answers: Vec<u16> = (0..4).map(|_| client::get(port, "/").status()).collect();
    assert_eq!(answers.iter().filter(|status| **status == 503).count(), 2, "not a POST: {answers:?}");
}

#[test]
fn a_failed_upstream_is_not_chosen_again_while_another_is_free() {
    let (bad, good) = (Origin::start(|_| Answer::Close), Origin::always(200));
    let get = |port| client::get(port, "/").status();
    let (_proxy, port) = start(&proxy_to(&[&bad, &good], "lb_policy first\n\t\tlb_retries 2"));
    assert_eq!(get(port), 502, "Caddy's way");
    let options = "lb_policy first\n\t\tlb_retries 2\n\t\tretry_exclude_failed on";
    let (_proxy, port) = start(&proxy_to(&[&bad, &good], options));
    bad.forget();
    assert_eq!(get(port), 200);
    assert_eq!((bad.asked(), good.asked()), (1, 1));
    // A POST that the upstream has seen may have been acted on: it is not sent again.
    assert_eq!(post(port, b"x").status(), 502);
    assert_eq!((bad.asked(), good.asked()), (2, 1));
}

#[test]
fn a_large_body_is_sent_again_within_the_bound_and_not_beyond() {
    for (kib, options, status, asked) in
        [(900, "", 200, 1), (2048, "", 503, 0), (2048, "\n\t\trequest_buffers 3MiB", 200, 1)]
    {
        let (bad, good) = (Origin::always(503), Origin::always(200));
        let (_proxy, port) = start(&proxy_to(&[&bad, &good], &format!("lb_policy first\n\t\tretry_on 503{options}")));
        let body: Vec<u8> = (0..kib * 1024_u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(post(port, &body).status(), status, "{kib} {options}");
        assert_eq!((bad.asked(), good.asked()), (1, asked), "{kib} {options}");
        assert!(good.seen.lock().unwrap().iter().all(|seen| seen.body == body), "{kib}");
    }
    // Chunked: the length is not known beforehand.
    let (bad, good) = (Origin::always(503), Origin::always(200));
    let (_proxy, port) = start(&proxy_to(&[&bad, &good], "lb_policy first\n\t\tretry_on 503"));
    let chunk = "x".repeat(4096);
    let chunks = format!("1000\r\n{chunk}\r\n").repeat(200);
    let head = "POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(client::request(port, format!("{head}{chunks}0\r\n\r\n")).unwrap().status(), 200);
    assert_eq!(good.seen.lock().unwrap()[0].body.len(), 200 * 4096);
}

#[test]
fn what_has_begun_is_not_begun_again() {
    let (cut, good) = (Origin::start(|_| Answer::Cut), Origin::always(200));
    let options = "lb_policy first\n\t\tlb_retries 3\n\t\tretry_on 500 502 503";
    let (_proxy, port) = start(&proxy_to(&[&cut, &good], options));
    let response = client::get(port, "/");
    assert!(!response.complete && response.status() == 200);
    assert_eq!((cut.asked(), good.asked()), (1, 0));
}

#[test]
fn streams_under_way_count_for_least_conn() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::start(|_| Answer::Stream)).collect();
    let (_proxy, port) = start(&proxy_to(&origins.iter().collect::<Vec<_>>(), "lb_policy least_conn"));
    let open = |_| {
        let mut connection = Connection::open(port);
        connection.send("GET /stream HTTP/1.1\r\nHost: api.test\r\n\r\n");
        assert_eq!(connection.head(false).unwrap().status, 200);
        connection
    };
    let streams: Vec<Connection> = (0..9).map(open).collect();
    assert_eq!(origins.iter().map(Origin::asked).collect::<Vec<_>>(), [3, 3, 3]);
    drop(streams);
}

#[test]
fn a_slow_upstream_gets_little() {
    let (slow, quick) = (Origin::start(|_| Answer::Late(Duration::from_millis(150))), Origin::always(200));
    let (_proxy, port) = start(&proxy_to(&[&slow, &quick], "lb_policy peak_ewma"));
    for _ in 0..40 {
        assert_eq!(client::get(port, "/").status(), 200);
    }
    assert!((1..=5).contains(&slow.asked()), "{}", slow.asked());
}

#[test]
fn a_conversation_stays_with_its_upstream() {
    let origins: Vec<Origin> = (0..4).map(|_| Origin::always(200)).collect();
    let (_proxy, port) = start(&proxy_to(&origins.iter().collect::<Vec<_>>(), "lb_policy sticky"));
    let mut used = std::collections::BTreeSet::new();
    for conversation in 0..12 {
        let mut messages = vec![
            json!({"role": "system", "content": "be brief"}),
            json!({"role": "user", "content": format!("question {conversation}")}),
        ];
        let mut homes = std::collections::BTreeSet::new();
        for turn in 0..4 {
            let body = json!({"model": "m", "temperature": turn, "messages": messages}).to_string();
            assert_eq!(post(port, body.as_bytes()).status(), 200);
            let home = origins.iter().position(|o| o.asked() > 0).unwrap();
            assert_eq!(origins[home].seen.lock().unwrap()[0].body, body.as_bytes());
            homes.insert(home);
            origins.iter().for_each(Origin::forget);
            messages.push(json!({"role": "assistant", "content": "x".repeat(5000)}));
            messages.push(json!({"role": "user", "content": "and then?"}));
        }
        assert_eq!(homes.len(), 1, "conversation {conversation} went to {homes:?}");
        used.append(&mut homes);
    }
    assert!(used.len() > 1, "all went to {used:?}");
}
