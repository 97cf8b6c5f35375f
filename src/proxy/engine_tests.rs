//! The engine against real sockets.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::client::{Address, Scheme, TargetOptions};
use crate::http::exchange::{Duplex, PendingUpgrade, Response};
use crate::http::headers::HeaderOps;
use crate::http::matcher::MatcherSets;
use crate::http::response_matcher::ResponseMatcher;
use crate::http::route::{Handler, Route, RouteList};
use crate::http::status::StatusSource;
use crate::proxy::state::Turn;
use crate::proxy::testing::{block_on, chunks, exchange};
use crate::proxy::upstream::{Settings, TransportTemplate};

/// An upstream that answers every request with `answer` and keeps what it was sent.
struct Origin {
    address: String,
    seen: Rc<RefCell<Vec<String>>>,
}

impl Origin {
    /// An empty answer closes the connection instead.
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, answer, Rc::clone(&log)));
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: &'static str, seen: Rc<RefCell<Vec<String>>>) {
    while let Some(request) = read_request(&mut stream).await {
        seen.borrow_mut().push(request);
        if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Head and body of one request; the body by its content-length or its last chunk.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut buf = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok()))
                .unwrap_or(0);
            let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
            if (chunked && body.ends_with("0\r\n\r\n")) || (!chunked && body.len() >= length) {
                return Some(text);
            }
        }
        match stream.read(&mut buf).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => text.push_str(std::str::from_utf8(&buf[..n]).unwrap()),
        }
    }
}

/// An address where nothing listens.
async fn dead() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

fn engine(upstreams: &[&str]) -> Engine {
    let mut options = TargetOptions::new(Scheme::Http, Address::Tcp { host: "".into(), port: 0 });
    options.timeouts.response_header = Some(Duration::from_millis(300));
    let transport =
        Arc::new(TransportTemplate { options, scheme: Scheme::Http, except_ports: Vec::new(), server_name: None });
    Engine {
        upstreams: upstreams.iter().map(|u| Upstream::new(u, &transport, Settings::default()).unwrap()).collect(),
        dynamic: None,
        policy: Policy::First,
        retry: RetryRules::default(),
        cooldown: None,
        passive: None,
        rewrite: None,
        header_up: None,
        header_down: None,
        trusted_proxies: Box::default(),
        compression: true,
        request_buffer: None,
        response_buffer: None,
        handle_response: Box::default(),
        stream_rules: StreamRules::default(),
        stream_timeout: None,
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-up: v1\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\nok";

async fn respond(engine: &Engine, ex: &mut Exchange) -> Response {
    match engine.call(ex).await {
        Flow::Respond(response) => response,
        Flow::Fail(error) => panic!("failed: {} {}", error.status, error.message),
        _ => panic!("no response"),
    }
}

async fn fail(engine: &Engine, ex: &mut Exchange) -> u16 {
    match engine.call(ex).await {
        Flow::Fail(error) => error.status,
        _ => panic!("did not fail"),
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn passive() -> Passive {
    Passive { fail_duration: Duration::from_secs(10), max_fails: 1, statuses: Box::new([5]), latency: None }
}

fn ops(lines: &[(&str, &str)]) -> CompiledHeaderOps {
    let mut ops = HeaderOps::default();
    for (field, value) in lines {
        ops.add_line(field, value, None).unwrap();
    }
    ops.compile().unwrap()
}

#[test]
fn a_request_and_its_answer_lose_only_what_is_for_one_hop() {
    block_on(async {
        let origin = Origin::start(OK).await;
        let mut engine = engine(&[&origin.address]);
        engine.header_up = Some(ops(&[("X-To", "{http.reverse_proxy.upstream.hostport}")]));
        engine.header_down = Some((ops(&[("-X-Up", ""), ("X-New", "n")]), None));
        let mut ex = exchange("GET", "/a?b=c");
        let response = respond(&engine, &mut ex).await;
        assert!(!response.headers().contains_key("x-hop") && !response.headers().contains_key("x-up"));
        assert_eq!(response.headers()["x-new"], "n");
        assert_eq!(response.headers()["via"], "1.1 llmproxy");
        assert_eq!(text(response).await, "ok");
        let seen = origin.seen().remove(0);
        assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\nhost: a.test\r\n"), "{seen}");
        assert!(seen.contains(&format!("x-to: {}\r\n", origin.address)), "{seen}");
        assert!(!ex.server_header);
        // The request is as the client sent it for whoever looks next.
        assert_eq!(ex.headers.len(), 1);
    });
}

#[test]
fn a_dead_upstream_is_502_and_retries_alone_do_not_leave_it() {
    block_on(async {
        let (dead, origin) = (dead().await, Origin::start(OK).await);
        let mut engine = engine(&[&dead, &origin.address]);
        assert_eq!(fail(&engine, &mut exchange("GET", "/")).await, 502);
        engine.retry.retries = 2;
        assert_eq!(fail(&engine, &mut exchange("GET", "/")).await, 502);
        engine.passive = Some(passive());
        let mut ex = exchange("POST", "/");
        ex.headers.insert("content-length", HeaderValue::from_static("7"));
        ex.body = chunks(&["abc", "defg"]);
        assert_eq!(respond(&engine, &mut ex).await.status(), 200);
        let seen = origin.seen().remove(0);
        assert!(seen.contains("content-length: 7\r\n") && seen.ends_with("\r\n\r\nabcdefg"), "{seen}");
        assert_eq!(ex.upstream.as_ref().unwrap().retries, 1);
    });
}

#[test]
fn round_robin_with_retries_passes_a_dead_one_by() {
    block_on(async {
        let (dead, origin) = (dead().await, Origin::start(OK).await);
        let mut engine = engine(&[&dead, &origin.address]);
        engine.policy = Policy::RoundRobin(Turn::adopt("engine-test"));
        engine.retry.retries = 2;
        for method in ["GET", "GET", "POST"] {
            assert_eq!(respond(&engine, &mut exchange(method, "/")).await.status(), 200);
        }
    });
}

#[test]
fn a_post_that_was_seen_is_not_sent_again() {
    block_on(async {
        let origin = Origin::start("").await;
        let mut engine = engine(&[&origin.address]);
        engine.retry.retries = 1;
        let mut ex = exchange("POST", "/");
        ex.body = Body::Full(Bytes::from_static(b"x"));
        assert_eq!(fail(&engine, &mut ex).await, 502);
        assert_eq!(origin.seen().len(), 1);
        assert_eq!(fail(&engine, &mut exchange("GET", "/")).await, 502);
        assert_eq!(origin.seen().len(), 3);
    });
}

#[test]
fn trying_by_time_ends_after_it() {
    block_on(async {
        let dead = dead().await;
        let mut engine = engine(&[&dead]);
        engine.retry.try_duration = Duration::from_millis(100);
        engine.retry.try_interval = Duration::from_millis(30);
        let began = Instant::now();
        assert_eq!(fail(&engine, &mut exchange("GET", "/")).await, 502);
        assert!((100..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    });
}

#[test]
fn no_upstream_is_503_and_a_silent_one_504() {
    block_on(async {
        assert_eq!(fail(&engine(&[]), &mut exchange("GET", "/")).await, 503);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(fail(&engine(&[&address]), &mut exchange("GET", "/")).await, 504);
    });
}

#[test]
fn an_unhealthy_status_sends_the_next_request_elsewhere() {
    block_on(async {
        let bad = Origin::start("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        let good = Origin::start(OK).await;
        let mut engine = engine(&[&bad.address, &good.address]);
        engine.passive = Some(passive());
        assert_eq!(respond(&engine, &mut exchange("GET", "/")).await.status(), 503);
        assert_eq!(respond(&engine, &mut exchange("GET", "/")).await.status(), 200);
    });
}

/// Answers with what routes can see of the upstream's response.
struct Show;
impl crate::http::handler::Step for Show {
    fn run(&self, ex: &mut Exchange) -> Flow {
        let t = crate::http::placeholder::Template::parse(
            "{http.reverse_proxy.status_code} {http.reverse_proxy.header.X-Up}",
        );
        let shown = t.render(&*ex, crate::http::placeholder::Unknown::Literal).into_owned();
        Flow::Respond(Response::new(shown.into()))
    }
}

#[test]
fn response_handlers_replace_the_status_or_answer_instead() {
    block_on(async {
        let origin = Origin::start("HTTP/1.1 404 No\r\ncontent-length: 3\r\nx-up: v\r\n\r\nnot").await;
        let mut engine = engine(&[&origin.address]);
        let matcher = ResponseMatcher { status_code: Some(vec![4]), headers: None };
        let handler = |status, routes| ResponseHandler { matcher: Some(matcher.compile().unwrap()), status, routes };
        engine.handle_response = Box::new([handler(StatusSource::Fixed(StatusCode::OK), RouteList::default())]);
        let response = respond(&engine, &mut exchange("GET", "/")).await;
        assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, "not"));

        engine.handle_response = Box::new([handler(StatusSource::Unset, RouteList::default())]);
        let mut ex = exchange("GET", "/");
        assert!(matches!(engine.call(&mut ex).await, Flow::Next));
        assert!(ex.held_response.is_none() && ex.server_header);

        let route = Route {
            matchers: MatcherSets::default(),
            handlers: Box::new([Handler::Step(Box::new(Show))]),
            group: None,
            terminal: false,
        };
        let routes = RouteList { routes: Box::new([route]), ..RouteList::default() };
        engine.handle_response = Box::new([handler(StatusSource::Unset, routes)]);
        assert_eq!(text(respond(&engine, &mut exchange("GET", "/")).await).await, "404 v");
    });
}

#[test]
fn a_body_that_an_upstream_has_is_not_left_away_for_the_next() {
    block_on(async {
        let origin = Origin::start("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
        let mut ex = exchange("POST", "/");
        ex.body = chunks(&["a", "b"]);
        assert_eq!(fail(&engine(&[&dead().await]), &mut ex).await, 502);
        assert!(!ex.body_spent, "it never left");
        assert_eq!(respond(&engine(&[&origin.address]), &mut ex).await.status(), 404);
        assert_eq!(fail(&engine(&[&origin.address]), &mut ex).await, 502);
        assert_eq!(origin.seen().len(), 1);
        ex.body = Body::from("another");
        assert_eq!(respond(&engine(&[&origin.address]), &mut ex).await.status(), 404);
    });
}

#[test]
fn trailers_pass_both_ways() {
    block_on(async {
        let answer =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 9\r\n\r\n";
        let origin = Origin::start(answer).await;
        let mut ex = exchange("GET", "/");
        ex.headers.insert("te", HeaderValue::from_static("trailers"));
        let response = respond(&engine(&[&origin.address]), &mut ex).await;
        assert_eq!(response.headers()["trailer"], "x-sum");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-sum"], "9");
        assert!(origin.seen()[0].contains("te: trailers\r\n"));
    });
}

#[test]
fn a_body_cut_short_is_an_error() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart").await.unwrap();
        });
        let response = respond(&engine(&[&address]), &mut exchange("GET", "/")).await;
        assert!(response.into_body().collect().await.is_err());
    });
}

#[test]
fn dropping_the_request_closes_the_upstream() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let engine = engine(&[&listener.local_addr().unwrap().to_string()]);
        let (mut stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            _ = async { engine.call(&mut exchange("GET", "/")).await } => panic!("answered"),
        };
        // The exchange was dropped with the losing branch.
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok());
    });
}

#[test]
fn a_body_is_held_where_the_configuration_says_so() {
    block_on(async {
        let origin = Origin::start("").await;
        let mut engine = engine(&[&origin.address]);
        engine.retry.retries = 1;
        engine.request_buffer = Some(Buffer::All);
        let matchers: Box<[crate::http::matcher::MatcherSet]> = Box::new([Box::default()]);
        engine.retry.matchers = Some(MatcherSets(matchers));
        let mut ex = exchange("POST", "/");
        ex.body = chunks(&["ab", "cd"]);
        assert_eq!(fail(&engine, &mut ex).await, 502);
        let seen = origin.seen();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|s| s.contains("content-length: 4\r\n") && s.ends_with("\r\n\r\nabcd")), "{seen:?}");
    });
}

#[test]
fn operations_cannot_make_the_length_lie() {
    block_on(async {
        let origin = Origin::start(OK).await;
        let mut engine = engine(&[&origin.address]);
        engine.header_up = Some(ops(&[("Content-Length", "1"), ("Transfer-Encoding", "chunked")]));
        let mut ex = exchange("POST", "/");
        ex.body = Body::Full(Bytes::from_static(b"four"));
        respond(&engine, &mut ex).await;
        let seen = origin.seen().remove(0);
        assert!(seen.contains("content-length: 4\r\n") && !seen.contains("transfer-encoding"), "{seen}");
    });
}

struct ClientSide(DuplexStream);

impl PendingUpgrade for ClientSide {
    fn upgraded(
        self: Box<Self>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, crate::base::error::ProxyError>>>> {
        Box::pin(async move { Ok(Box::new(self.0) as Box<dyn Duplex>) })
    }
}

#[test]
fn an_upgrade_joins_both_connections() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await.unwrap();
            assert!(request.contains("upgrade: websocket\r\n"), "{request}");
            let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello ";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut buf = [0; 4];
            stream.read_exact(&mut buf).await.unwrap();
            stream.write_all(&buf).await.unwrap();
        });
        let mut ex = exchange("GET", "/");
        ex.headers.insert(http::header::CONNECTION, HeaderValue::from_static("Upgrade"));
        ex.headers.insert(HeaderName::from_static("upgrade"), HeaderValue::from_static("websocket"));
        let (mut client, ours) = tokio::io::duplex(64);
        ex.upgrade = Some(Box::new(ClientSide(ours)));
        let response = respond(&engine(&[&address]), &mut ex).await;
        assert_eq!(response.status(), 101);
        client.write_all(b"ping").await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hello ping");
    });
}

#[test]
fn a_switch_that_was_not_asked_for_is_502() {
    block_on(async {
        let origin =
            Origin::start("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n").await;
        assert_eq!(fail(&engine(&[&origin.address]), &mut exchange("GET", "/")).await, 502);
    });
}

#[test]
fn each_upstream_gets_its_own_headers() {
    block_on(async {
        let (a, b) = (Origin::start(OK).await, Origin::start(OK).await);
        let mut engine = engine(&[&a.address, &b.address]);
        engine.policy = Policy::RoundRobin(Turn::adopt("own headers"));
        engine.header_up = Some(ops(&[("authorization", "common"), ("x-common", "1")]));
        for (upstream, key) in engine.upstreams.iter_mut().zip(["key-a", "key-b"]) {
            upstream.own.header_up = Some(ops(&[("authorization", key)]));
        }
        engine.upstreams[1].own.names_host = true;
        for _ in 0..2 {
            respond(&engine, &mut exchange("GET", "/")).await;
        }
        for (origin, key, host) in [(&a, "key-a", "a.test"), (&b, "key-b", &*b.address)] {
            let seen = origin.seen();
            assert_eq!(seen.len(), 1);
            let head = seen[0].to_ascii_lowercase();
            assert!(head.contains(&format!("authorization: {key}\r\n")) && head.contains("x-common: 1"), "{head}");
            assert!(!head.contains("common\r\n") && head.contains(&format!("host: {host}\r\n")), "{head}");
        }
    });
}

#[test]
fn one_in_cooldown_is_left_alone_while_another_is_free() {
    let mut rng = fastrand::Rng::with_seed(9);
    let names = ["cooling-a.test:1", "cooling-b.test:1", "cooling-c.test:1"];
    let mut engine = engine(&names);
    engine.cooldown = Some(Cooldown { longest: Duration::from_mins(10) });
    let ex = exchange("GET", "/");
    let plan = engine.plan(&ex).unwrap();
    let mut now = Instant::now();
    for policy in [Policy::Random, Policy::RoundRobin(Turn::adopt("cooling")), Policy::LeastConn, Policy::PeakEwma] {
        engine.policy = policy;
        for _ in 0..2000 {
            now += Duration::from_millis(rng.u64(..400));
            if rng.u8(..3) == 0 {
                let wait = Duration::from_millis(rng.u64(1..3000));
                engine.upstreams[rng.usize(..3)].state.cooling.start(now, wait);
            }
            let mut past = Past::begin(now);
            let spent = (rng.u8(..4) == 0).then(|| rng.usize(..3));
            if let Some(spent) = spent {
                past.tried.add(&engine.upstreams[spent].state, Outlook::Hopeless);
            }
            let left: Vec<_> = engine.upstreams.iter().map(|u| u.state.cooling.left(now)).collect();
            let chosen = engine.choose(&engine.upstreams, &ex, &plan, &past, now).unwrap().index;
            assert_ne!(Some(chosen), spent);
            let others = (0..3).filter(|i| Some(*i) != spent);
            // `None`, free, is less than any time.
            let soonest = others.clone().map(|i| left[i]).min().unwrap();
            assert!(left[chosen] == soonest, "{left:?} {chosen}");
            assert!(
                engine.has_another(&engine.upstreams, &plan, &past, now) == others.clone().any(|i| left[i].is_none())
            );
        }
    }
}
