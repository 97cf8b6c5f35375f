//! `encode`, beside the real Caddy (behaviours 55 and 73): the same requests to the same configuration.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port};
use crate::harness::upstream::Upstream;

fn site(port: u16, upstream: &Upstream) -> String {
    let long = "a".repeat(600);
    format!(
        "{{\n\tadmin off\n\tauto_https off\n}}\nhttp://127.0.0.1:{port} {{\n\tencode\n\theader /tag ETag `\"abc\"`\n\theader /weak ETag `W/\"abc\"`\n\
         \trespond /tag `{long}`\n\trespond /weak `{long}`\n\trespond /short `{}`\n\
         \theader /kept Cache-Control \"private, no-transform\"\n\trespond /kept `{long}`\n\
         \theader /png Content-Type image/png\n\trespond /png `{long}`\n\trespond /missing `{long}` 404\n\
         \treverse_proxy {}\n}}\n",
        "a".repeat(512),
        upstream.address(),
    )
}

fn decoded(coding: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader: Box<dyn Read + '_> = match coding {
        None => return bytes.to_vec(),
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(bytes)),
        Some("zstd") => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        Some("br") => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Some(other) => panic!("{other}"),
    };
    // What a flush has made readable, also where more is to come.
    let mut piece = [0; 512];
    while let Ok(n @ 1..) = reader.read(&mut piece) {
        out.extend_from_slice(&piece[..n]);
    }
    out
}

/// What an answer says of its compression, and its text.
fn told(port: u16, path: &str, fields: &str) -> String {
    let answer = client::request(port, format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n"));
    let Ok(answer) = answer else { return format!("{path}: cut") };
    let coding = answer.header("content-encoding");
    let text = String::from_utf8(decoded(coding, &answer.body)).unwrap();
    let mut lines = vec![format!("{path} {fields:?} {}", answer.status())];
    for name in ["content-encoding", "content-type", "etag", "accept-ranges"] {
        lines.push(format!("{name}: {}", answer.header(name).unwrap_or("-")));
    }
    lines.push(format!("vary: {:?}", answer.head.headers_named("vary").collect::<Vec<_>>()));
    lines.push(text);
    lines.join("\n")
}

const GZIP: &str = "Accept-Encoding: gzip\r\n";

fn questions() -> Vec<(&'static str, String)> {
    let mut all: Vec<(&str, String)> = [
        "/tag",
        "/weak",
        "/short",
        "/kept",
        "/png",
        "/missing",
        "/slow?n=100&ms=0",
        "/chunked?ms=1",
        "/sse?ms=1",
        "/pieces/200?a=b",
    ]
    .map(|path| (path, GZIP.to_owned()))
    .into();
    for accepted in ["", "gzip, zstd", "gzip;q=1, zstd;q=0.5", "br", "*", "gzip;q=0", "identity, GZIP;q=0.5", "zstd"] {
        all.push(("/tag", format!("Accept-Encoding: {accepted}\r\n")));
    }
    all.push(("/tag", String::new()));
    all.push(("/tag", format!("{GZIP}Cache-Control: no-transform\r\n")));
    all.push(("/tag", format!("{GZIP}Sec-WebSocket-Key: x\r\n")));
    all.push(("/status/304?ETag=%22q%22", GZIP.to_owned()));
    all.push(("/status/206?Content-Type=text/plain", GZIP.to_owned()));
    all.push(("/slow?n=100&ms=0&x=1", format!("{GZIP}Range: bytes=0-9\r\n")));
    all.push(("/cut?n=2", GZIP.to_owned()));
    all
}

#[test]
fn answers_are_compressed_as_caddy_does() {
    let upstream = Upstream::start("u");
    let all = |which| {
        let port = free_port();
        let _proxy = Proxy::start(which, &site(port, &upstream), port);
        questions().iter().map(|(path, fields)| told(port, path, fields)).collect::<Vec<_>>()
    };
    let ours = all(Which::Llmproxy);
    // Not only equal to another's: what must be, is.
    let of = |start: &str| ours.iter().find(|told| told.starts_with(start)).unwrap_or_else(|| panic!("{start}"));
    assert!(of("/tag").contains("content-encoding: gzip") && of("/tag").contains("etag: \"abc-gzip\""));
    assert!(of("/tag").ends_with(&"a".repeat(600)));
    assert!(of("/sse").contains("content-encoding: gzip") && of("/sse").contains("data: 2"));
    for plain in ["/short", "/kept", "/png", "/chunked"] {
        assert!(of(plain).contains("content-encoding: -"), "{}", of(plain));
    }
    if caddy_or_skip() {
        for (ours, caddys) in ours.iter().zip(all(Which::Caddy)) {
            assert_eq!(*ours, caddys);
        }
    }
}

#[test]
fn events_leave_at_once_and_a_leaving_client_is_noticed() {
    let upstream = Upstream::start("u");
    let port = free_port();
    let _proxy = Proxy::start(Which::Llmproxy, &site(port, &upstream), port);
    for coding in ["gzip", "zstd"] {
        let mut client = Connection::open(port);
        client.send(format!("GET /sse?n=0&ms=300 HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: {coding}\r\n\r\n"));
        assert_eq!(client.head(false).unwrap().header("content-encoding"), Some(coding));
        let (mut bytes, started) = (Vec::new(), Instant::now());
        for event in 0..3 {
            bytes.extend(client.piece().unwrap());
            let text = String::from_utf8(decoded(Some(coding), &bytes)).unwrap();
            assert!(text.ends_with(&format!("data: {event}\n\n")), "{coding} {text:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    let left = upstream
        .wait_for(Duration::from_secs(10), |event| matches!(event, crate::harness::upstream::Event::Left { .. }));
    assert!(left.is_some());
}

#[test]
fn br_is_offered_where_it_is_named() {
    let upstream = Upstream::start("u");
    let port = free_port();
    let site = site(port, &upstream).replace("\tencode\n", "\tencode br gzip\n");
    let _proxy = Proxy::start(Which::Llmproxy, &site, port);
    let answer = told(port, "/tag", "Accept-Encoding: gzip, deflate, br, zstd\r\n");
    assert!(answer.contains("content-encoding: br") && answer.ends_with(&"a".repeat(600)), "{answer}");
    assert!(told(port, "/tag", GZIP).contains("content-encoding: gzip"));
}
