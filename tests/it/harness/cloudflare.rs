//! A stand-in for Cloudflare's API: zones and TXT records, which a Pebble's DNS server then knows.

use super::pebble::tell_dns;
use super::upstream::{Request, read_body, read_head, spawn};
use serde_json::{Value, json};
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// May edit; any other token is refused.
pub const TOKEN: &str = "cf-token-that-may-edit";
/// May read zones only.
pub const ZONE_TOKEN: &str = "cf-token-that-may-read";
/// The only zone.
pub const ZONE: &str = "zone.test";

pub struct Cloudflare {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: usize,
    /// Id, name, content.
    records: Vec<(String, String, String)>,
    asked: Vec<String>,
}

impl Cloudflare {
    /// `dns_management`: where the DNS server is told what to answer.
    pub fn start(dns_management: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                spawn(move || drop(serve(&stream, &shared, dns_management)));
            }
        });
        Self { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/client/v4", self.port)
    }

    /// Names of the records that are there.
    pub fn records(&self) -> Vec<String> {
        self.state.lock().unwrap().records.iter().map(|(_, name, _)| name.clone()).collect()
    }

    /// Everything it was asked for: `GET /client/v4/…`.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>, dns_management: u16) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_head(&mut reader)? {
        let body = read_body(&request, &mut reader, |_, _| Ok(()))?;
        let body: Value = serde_json::from_slice(&body.bytes).unwrap_or_default();
        let (status, answer) = answer(&request, &body, &mut state.lock().unwrap(), dns_management);
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes())?;
    }
    Ok(())
}

fn answer(request: &Request, body: &Value, state: &mut State, dns_management: u16) -> (u16, Value) {
    state.asked.push(format!("{} {}", request.method, request.target));
    let refused = |status, code: i64, message: &str| {
        (status, json!({"success": false, "errors": [{"code": code, "message": message}], "result": null}))
    };
    let done = |result: Value| (200, json!({"success": true, "errors": [], "messages": [], "result": result}));
    let token = request.header("authorization").and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    let path = request.path().strip_prefix("/client/v4").unwrap_or_default();
    // It is no friend: it says the token back.
    let denied = || refused(403, 10000, &format!("Authentication error for {token}"));
    if path == "/zones" {
        if token != TOKEN && token != ZONE_TOKEN {
            return denied();
        }
        let is_ours = request.target.ends_with(&format!("name={}", ZONE.replace('.', "%2E")));
        return done(if is_ours { json!([{"id": "z1", "name": ZONE}]) } else { json!([]) });
    }
    if token != TOKEN {
        return denied();
    }
    let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
    match (request.method.as_str(), path.strip_prefix("/zones/z1/dns_records")) {
        ("POST", Some("")) => {
            let (name, content) = (text("name"), text("content"));
            assert_eq!((body["type"].as_str(), body["ttl"].as_u64()), (Some("TXT"), Some(60)), "{body}");
            if state.records.iter().any(|(_, n, c)| (n, c) == (&name, &content)) {
                return refused(400, 81058, "An identical record already exists.");
            }
            state.next += 1;
            let id = format!("r{}", state.next);
            tell_dns(
                dns_management,
                "set-txt",
                &json!({"host": format!("{name}."), "value": content.trim_matches('"')}),
            );
            state.records.push((id.clone(), name, content));
            done(json!({"id": id}))
        }
        ("GET", Some("")) => {
            let found = state.records.iter().filter(|(_, name, _)| {
                let name = name.replace('.', "%2E").replace('_', "%5F").replace('-', "%2D");
                request.target.ends_with(&format!("name={name}"))
            });
            done(found.map(|(id, name, content)| json!({"id": id, "name": name, "content": content})).collect())
        }
        ("DELETE", Some(id)) => {
            let id = id.trim_start_matches('/');
            let Some(at) = state.records.iter().position(|(known, ..)| known == id) else {
                return refused(404, 81044, "Record does not exist.");
            };
            let (_, name, _) = state.records.remove(at);
            tell_dns(dns_management, "clear-txt", &json!({"host": format!("{name}.")}));
            done(json!({"id": id}))
        }
        _ => refused(404, 7003, "Could not route to the path."),
    }
}
