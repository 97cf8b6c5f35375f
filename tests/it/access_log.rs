//! The access log through the real binary: the lines are Caddy's, nothing is lost across a reload or a moved file, and
//! no credential is in any of them.

use crate::harness::client::{self, Connection};
use crate::harness::process::{Proxy, Which, caddy_or_skip, free_port, run_within};
use crate::harness::upstream::Upstream;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(20);

/// The entries of a log file once there are so many.
fn entries(file: &Path, count: usize) -> Vec<Value> {
    let until = Instant::now() + WITHIN;
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        if lines.len() >= count {
            let parsed = lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
            return parsed.collect();
        }
        assert!(Instant::now() < until, "{count} entries wanted in {}, there is:\n{text}", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn global(port: u16) -> String {
    format!("{{\n\tadmin off\n\tauto_https off\n\thttp_port {port}\n}}\n")
}

/// What differs from one run to the next, or is ours by intent.
fn normalised(mut entry: Value) -> Value {
    fn sorted(value: &mut Value) {
        // Go writes headers in random order.
        if let Value::Object(map) = value {
            let mut pairs: Vec<_> = std::mem::take(map).into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            *map = Map::from_iter(pairs);
        }
    }
    let object = entry.as_object_mut().unwrap();
    assert!(object["ts"].as_f64().is_some_and(|ts| ts > 1.7e9), "{object:?}");
    assert!(object["duration"].as_f64().is_some_and(|d| d > 0.0 && d < 60.0), "{object:?}");
    object.insert("ts".into(), json!(0));
    object.insert("duration".into(), json!(0));
    let port = object["request"]["remote_port"].as_str().unwrap().parse::<u16>();
    assert!(port.is_ok(), "{object:?}");
    object["request"]["remote_port"] = json!("0");
    sorted(&mut object["request"]["headers"]);
    if let Some(headers) = object.get_mut("resp_headers") {
        if let Some(server) = headers.get_mut("Server").filter(|s| **s == json!(["llmproxy"])) {
            *server = json!(["Caddy"]);
        }
        if let Some(via) = headers.get_mut("Via") {
            *via = json!(["1.1 Caddy"]);
        }
        // Go's way of keeping its server from adding a content type.
        if headers.get("Content-Type") == Some(&json!([])) {
            headers.as_object_mut().unwrap().remove("Content-Type");
        }
        sorted(headers);
    }
    entry
}

/// The keys of an entry as they stand, headers left out.
fn order_of_fields(line: &str) -> Vec<String> {
    struct Keys(Vec<String>);
    impl<'de> serde::Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Keys;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let mut keys = Vec::new();
                    while let Some(key) = map.next_key::<String>()? {
                        if key == "request" {
                            keys.extend(map.next_value::<Keys>()?.0);
                        } else {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        keys.push(key);
                    }
                    Ok(Keys(keys))
                }
            }
            d.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Keys>(line).unwrap().0
}

#[test]
fn entries_are_caddys() {
    if !caddy_or_skip() {
        return;
    }
    let upstream = Upstream::start("U");
    let run = |which| {
        let port = free_port();
        let config = global(port)
            + &format!(
                "http://a.test:{port} {{\n\
                 \tlog {{\n\t\toutput file access.json\n\t}}\n\
                 \tlog_append tenant {{header.X-Tenant}}\n\
                 \tlog_append num 5\n\
                 \tlog_skip /quiet\n\
                 \theader X-Foo bar\n\
                 \theader +X-Foo baz\n\
                 \trequest_header X-Secret from-config\n\
                 \trequest_header -X-Tenant\n\
                 \thandle /err {{\n\t\terror boom 503\n\t}}\n\
                 \thandle /teapot {{\n\t\trespond 418\n\t}}\n\
                 \thandle /nothing {{\n\t\theader X-Only this\n\t}}\n\
                 \thandle /up/* {{\n\t\turi strip_prefix /up\n\t\treverse_proxy {}\n\t}}\n\
                 \thandle {{\n\t\trespond \"hi <b>\"\n\t}}\n}}\n",
                upstream.address()
            );
        let proxy = Proxy::start(which, &config, port);
        let host = format!("Host: a.test:{port}\r\n");
        for head in [
            "GET /p?a=1&b=2 HTTP/1.1\r\nX-Tenant: acme<\"&>\\é\r\nX-Many: 1\r\nX-Many: 2\r\nx-oDD-.name: q\r\nAuthorization: Bearer s\r\nCookie: a=1\r\nCookie: b=2\r\nProxy-Authorization: s\r\n",
            "GET /quiet HTTP/1.1\r\n",
            "GET /err HTTP/1.1\r\n",
            "GET /teapot?x HTTP/1.1\r\n",
            "GET /nothing HTTP/1.1\r\n",
            "POST /up/status/201?q=%41 HTTP/1.1\r\nContent-Length: 3\r\n",
            "POST /up/status/200 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let body = if head.contains("Length: 3") {
                "abc"
            } else if head.contains("chunked") {
                "3\r\nabc\r\n0\r\n\r\n"
            } else {
                ""
            };
            client::request(port, format!("{head}{host}\r\n{body}")).expect("an answer");
        }
        let file = proxy.directory.path().join("access.json");
        // Each request had a connection of its own: the order is that of threads.
        let shown = |entry| serde_json::to_string(&normalised(entry)).unwrap().replace(&port.to_string(), "PORT");
        let mut lines: Vec<String> = entries(&file, 6).into_iter().map(shown).collect();
        lines.sort();
        let mut orders: Vec<Vec<String>> =
            std::fs::read_to_string(&file).unwrap().lines().map(order_of_fields).collect();
        orders.sort();
        orders.dedup();
        (lines, orders)
    };
    let (ours, theirs) = (run(Which::Llmproxy), run(Which::Caddy));
    for (ours, theirs) in ours.0.iter().zip(&theirs.0) {
        assert_eq!(ours, theirs, "\n  ours: {ours}\ntheirs: {theirs}");
    }
    assert_eq!(ours.0.len(), theirs.0.len());
    assert_eq!(ours.1, theirs.1);
}

#[test]
fn nothing_is_lost_when_the_file_moves_and_the_configuration_is_reloaded() {
    let port = free_port();
    let config = |generation: &str| {
        global(port)
            + &format!(
                "http://:{port} {{\n\tlog {{\n\t\toutput file access.json\n\t}}\n\trespond /wait {generation}\n\trespond {generation}\n}}\n"
            )
    };
    let proxy = Proxy::start(Which::Llmproxy, &config("one"), port);
    let folder = proxy.directory.path();
    let (file, moved) = (folder.join("access.json"), folder.join("moved.json"));
    let ask = |from: usize, to: usize| (from..to).for_each(|n| drop(client::get(port, &format!("/{n}"))));
    ask(0, 20);
    entries(&file, 20);
    std::fs::write(&proxy.config, config("two")).unwrap();
    let until = Instant::now() + WITHIN;
    let mut next = 20;
    while client::get(port, &format!("/{next}")).text() != "two" {
        next += 1;
        assert!(Instant::now() < until, "the reload is not live:\n{}", proxy.log());
    }
    next += 1;
    std::fs::rename(&file, &moved).unwrap();
    // The path is looked at once a second at most.
    let until = Instant::now() + WITHIN;
    while !file.exists() {
        ask(next, next + 1);
        next += 1;
        assert!(Instant::now() < until, "the file was not opened anew");
        std::thread::sleep(Duration::from_millis(50));
    }
    ask(next, next + 20);
    next += 20;
    let until = Instant::now() + WITHIN;
    loop {
        let mut asked: Vec<usize> = [&moved, &file]
            .iter()
            .flat_map(|f| entries(f, 0))
            .map(|e| e["request"]["uri"].as_str().unwrap()[1..].parse().unwrap())
            .collect();
        if asked.len() >= next || Instant::now() > until {
            asked.sort_unstable();
            assert_eq!(asked, (0..next).collect::<Vec<_>>());
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn lines_are_written_before_the_end_of_the_program() {
    let port = free_port();
    let site = format!("http://:{port} {{\n\tlog {{\n\t\toutput file access.json\n\t}}\n\trespond ok\n}}\n");
    let mut proxy = Proxy::start(Which::Llmproxy, &(global(port) + &site), port);
    for _ in 0..50 {
        client::get(port, "/");
    }
    let mut stop = proxy.command(Which::Llmproxy);
    let output = run_within(stop.arg("stop"), WITHIN);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(proxy.ends_within(WITHIN).is_some(), "does not stop");
    let text = std::fs::read_to_string(proxy.directory.path().join("access.json")).unwrap();
    assert_eq!(text.lines().count(), 50);
    let log = proxy.log();
    assert!(log.contains("\"msg\":\"stopping\""), "{log}");
}

#[test]
fn a_client_that_leaves_is_logged() {
    let upstream = Upstream::start("U");
    let port = free_port();
    let site = format!(
        "http://:{port} {{\n\tlog {{\n\t\toutput file access.json\n\t}}\n\treverse_proxy {}\n}}\n",
        upstream.address()
    );
    let proxy = Proxy::start(Which::Llmproxy, &(global(port) + &site), port);
    let file = proxy.directory.path().join("access.json");
    let mut early = Connection::open(port);
    early.send("GET /hang?ms=20000 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!(upstream.wait_for(WITHIN, |_| true).is_some(), "the request does not arrive");
    drop(early);
    assert_eq!(entries(&file, 1)[0]["status"], 499);
    let mut late = Connection::open(port);
    late.send("GET /sse?n=0&ms=10 HTTP/1.1\r\nHost: a.test\r\n\r\n");
    late.head(false).unwrap();
    late.piece().unwrap();
    drop(late);
    let entries = entries(&file, 2);
    assert_eq!(entries[1]["status"], 200);
    assert!(entries[1]["size"].as_u64().unwrap() > 0);
}

#[test]
fn no_credential_is_in_any_output() {
    const SECRET: &str = "sUpErSeCrEt";
    let upstream = Upstream::start("U");
    let port = free_port();
    let dead = free_port();
    let config = format!(
        "{{\n\tadmin off\n\tauto_https off\n\thttp_port {port}\n\tdebug\n}}\n\
         http://a.test:{port} {{\n\
         \tlog {{\n\t\toutput file access.json\n\t}}\n\
         \tlog second {{\n\t\toutput file access.txt\n\t\tformat console\n\t}}\n\
         \tlog third {{\n\t\toutput stderr\n\t}}\n\
         \trequest_header X-From-Config {{env.SECRET}}\n\
         \tbasic_auth /private {{\n\t\tbob $2a$04$Bf0Ur0yB8zWvkVnyOrGg9OX0KPkrIVFcjGsVtSzI8NXJvR/7kmJuS\n\t}}\n\
         \thandle /dead {{\n\t\treverse_proxy 127.0.0.1:{dead} {{\n\t\t\theader_up X-Up {{env.SECRET}}\n\t\t}}\n\t}}\n\
         \thandle /err {{\n\t\terror oh 500\n\t}}\n\
         \treverse_proxy {}\n}}\n",
        upstream.address()
    );
    let proxy = Proxy::start_with(Which::Llmproxy, "Proxyfile", &config, port, |command| {
        command.env("SECRET", SECRET);
    });
    let basic = "Ym9iOnNVcEVyU2VDckV0";
    let credentials = format!(
        "Authorization: Bearer {SECRET}\r\nProxy-Authorization: Basic {SECRET}\r\nCookie: a={SECRET}\r\nCookie: b={SECRET}\r\n\
         X-Api-Key: {SECRET}\r\napi-key: {SECRET}\r\nx-goog-api-key: {SECRET}\r\n"
    );
    let query = format!("key={SECRET}&api_key={SECRET}&access_token={SECRET}&%6Bey={SECRET}");
    let mut answered = 0;
    for path in ["/seen/200", "/dead", "/err", "/private", "/nowhere"] {
        let head =
            format!("POST {path}?{query} HTTP/1.1\r\nHost: a.test\r\n{credentials}Content-Length: 11\r\n\r\n{SECRET}");
        answered += usize::from(client::request(port, head).is_ok());
    }
    let set_cookie = format!("GET /reply?Set-Cookie=a%3D{SECRET} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    // The upstream says the cookie back; the request names it in a parameter that no one could know for a secret.
    let set_cookie = set_cookie.replace(SECRET, "COOKIEVALUE");
    answered += usize::from(client::request(port, set_cookie).is_ok());
    let wrong = format!("GET /private HTTP/1.1\r\nHost: a.test\r\nAuthorization: Basic {basic}\r\n\r\n");
    answered += usize::from(client::request(port, wrong).is_ok());
    for broken in [
        format!("GET /?{query} HTTP/1.1\r\nHost: a.test\r\nAuthorization Bearer {SECRET}\r\n\r\n"),
        format!("GET /?{query} HTTP/1.1\r\nHost: a.test\r\nAuthorization: {SECRET}\r\nContent-Length: x\r\n\r\n"),
        format!("GET /?{query} HTTP/9.1\r\nHost: {SECRET}\r\n\r\n"),
    ] {
        let _ = client::request(port, broken);
    }
    let folder = proxy.directory.path();
    assert_eq!(entries(&folder.join("access.json"), answered).len(), answered);
    let mut outputs = vec![("the process log", proxy.log())];
    for name in ["access.json", "access.txt"] {
        outputs.push((name, std::fs::read_to_string(folder.join(name)).unwrap()));
    }
    for (name, text) in &outputs {
        assert!(!text.is_empty(), "nothing in {name}");
        assert!(!text.contains(SECRET), "a credential in {name}:\n{text}");
        assert!(!text.contains(basic), "a credential in {name}:\n{text}");
    }
    let (_, json) = &outputs[1];
    let cookie: Vec<&str> = json.lines().filter(|line| line.contains("Set-Cookie=a%3DCOOKIEVALUE")).collect();
    assert_eq!(cookie.len(), 1);
    assert!(cookie[0].contains("\"Set-Cookie\":[\"REDACTED\"]"), "{}", cookie[0]);
    assert!(outputs[0].1.contains("http.log.error"), "errors are logged:\n{}", outputs[0].1);
}
