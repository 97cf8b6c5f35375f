//! A CA that speaks ACME over plain HTTP and misbehaves on request: for what no real one can be made to do, and for
//! renewal information, which Pebble does not have. It verifies nothing.

use super::upstream::{read_body, read_head};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SubjectPublicKeyInfo};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Html,
    Garbage,
    /// Answers of many megabytes.
    Huge,
    /// Answers that do not come.
    Silent,
    /// So many nonces are refused.
    BadNonces(usize),
    /// Orders are never done.
    Stuck,
    /// No challenge is ever passed.
    InvalidChallenge,
    /// Certificates for a key of its own.
    OtherKey,
    OtherName,
    Expired,
    /// Orders are refused, with so many seconds to wait.
    RateLimited(u64),
    /// The next order is refused: it knows no accounts any more.
    ForgetsAccounts,
    /// Orders that replace something are refused.
    RefusesReplaces,
}

/// Runs until its process ends.
pub struct Ca {
    pub port: u16,
    shared: Arc<Mutex<State>>,
}

pub struct State {
    pub fault: Fault,
    /// Days from now on which renewals are wanted, from and to.
    pub window: Option<(f64, f64)>,
    /// How long certificates are good.
    pub lifetime: Duration,
    /// Put into certificates as their OCSP responder.
    pub responder: Option<String>,
    /// Every request: `POST order`.
    pub asked: Vec<String>,
    /// What was ordered.
    pub orders: Vec<Value>,
    /// Signing requests, DER.
    pub requests: Vec<Vec<u8>>,
    /// Key ids of external accounts.
    pub external: Vec<String>,
    issued: HashMap<usize, String>,
    roots: [CertifiedIssuer<'static, KeyPair>; 2],
    nonces: usize,
    port: u16,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn answer(status: u16, body: impl ToString) -> Answer {
    Answer { status, headers: vec![("content-type", "application/json".into())], body: body.to_string() }
}

fn problem(status: u16, kind: &str) -> Answer {
    answer(
        status,
        json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "so it is", "status": status}),
    )
}

impl Answer {
    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

impl Ca {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            fault: Fault::None,
            window: None,
            lifetime: Duration::from_hours(24 * 90),
            responder: None,
            asked: Vec::new(),
            orders: Vec::new(),
            requests: Vec::new(),
            external: Vec::new(),
            issued: HashMap::new(),
            roots: ["First Root", "Second Root"].map(root),
            nonces: 0,
            port,
        };
        let shared = Arc::new(Mutex::new(state));
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/dir", self.port)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap()
    }

    pub fn set(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// What its certificates lead to, PEM.
    pub fn root(&self) -> String {
        self.state().roots[0].pem()
    }

    /// The certificate and the key that sign, PEM.
    pub fn signer(&self) -> (String, String) {
        let state = self.state();
        (state.roots[0].pem(), state.roots[0].key().serialize_pem())
    }

    /// A certificate for a site and its key, PEM, made without an order.
    pub fn issue(&self, name: &str) -> (String, String) {
        let state = self.state();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.custom_extensions.extend(state.responder.as_deref().map(responder));
        (params.signed_by(&key, &state.roots[0]).unwrap().pem(), key.serialize_pem())
    }

    /// How often something was asked, such as `POST order`.
    pub fn count(&self, what: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == what).count()
    }
}

fn root(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn serve(mut stream: TcpStream, shared: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(request) = read_head(&mut reader)? else { return Ok(()) };
    let body = read_body(&request, &mut reader, |_, _| Ok(()))?;
    let fault = shared.lock().unwrap().fault;
    let answer = match fault {
        Fault::Silent => {
            std::thread::sleep(Duration::from_secs(20));
            return Ok(());
        }
        Fault::Html => answer(200, "<html><body>Sign in to the Wi-Fi</body></html>"),
        Fault::Garbage => answer(200, "\u{0}{{{\"newNonce\": 7, \u{fffd}"),
        Fault::Huge => answer(200, "[1,".repeat(4 << 20)),
        _ => shared.lock().unwrap().answer(&request.method, request.path().trim_start_matches('/'), &body.bytes),
    };
    write!(
        stream,
        "HTTP/1.1 {} Said\r\ncontent-length: {}\r\nconnection: close\r\n",
        answer.status,
        answer.body.len()
    )?;
    for (name, value) in answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(answer.body.as_bytes())?;
    }
    Ok(())
}

/// The payload of a signed request.
fn payload(body: &[u8]) -> Value {
    let decode = |text: &Value| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text.as_str()?).ok()?).ok();
    let signed: Value = serde_json::from_slice(body).unwrap_or_default();
    decode(&signed["payload"]).unwrap_or_default()
}

impl State {
    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let (what, number) = path.split_once('/').unwrap_or((path, ""));
        self.asked.push(format!("{method} {what}"));
        self.nonces += 1;
        let nonce = format!("nonce-{}", self.nonces);
        if method == "POST"
            && let Fault::BadNonces(left @ 1..) = self.fault
        {
            self.fault = Fault::BadNonces(left - 1);
            return problem(400, "badNonce").with("replay-nonce", nonce);
        }
        let payload = payload(body);
        let number: usize = number.split('/').next().unwrap_or_default().parse().unwrap_or(0);
        let order = |state: &Self| state.order(number);
        let answer = match (method, what) {
            ("GET", "dir") => {
                let mut directory = json!({
                    "newNonce": self.url("nonce"), "newAccount": self.url("account"), "newOrder": self.url("order"),
                    "revokeCert": self.url("revoke"), "keyChange": self.url("key"),
                });
                if self.window.is_some() {
                    directory["renewalInfo"] = self.url("renewal").into();
                }
                answer(200, directory)
            }
            ("GET", "renewal") => {
                let (from, to) = self.window.unwrap_or_default();
                let at = |days: f64| {
                    let at = time::OffsetDateTime::now_utc() + time::Duration::seconds_f64(days * 86400.0);
                    at.format(&time::format_description::well_known::Rfc3339).unwrap()
                };
                let told =
                    json!({"suggestedWindow": {"start": at(from), "end": at(to)}, "explanationURL": self.url("why")});
                answer(200, told).with("retry-after", 21600)
            }
            ("HEAD", "nonce") => answer(200, ""),
            ("POST", "account") => {
                let external = payload["externalAccountBinding"]["protected"].as_str().unwrap_or_default();
                let external: Value =
                    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(external).unwrap()).unwrap_or_default();
                self.external.extend(external["kid"].as_str().map(str::to_owned));
                let url = self.url(&format!("account/{}", self.nonces));
                answer(201, json!({"status": "valid"})).with("location", url)
            }
            ("POST", "order") if number == 0 => return self.new_order(payload).with("replay-nonce", nonce),
            ("POST", "order") => answer(200, order(self)),
            ("POST", "authz") => {
                let challenge = json!({
                    "type": "http-01", "url": self.url("challenge/1"), "token": "token", "status": "invalid",
                    "error": {"type": "urn:ietf:params:acme:error:connection", "detail": "nobody answers"},
                });
                let asked = self.asked.iter().any(|asked| asked == "POST challenge");
                let status = if asked { "invalid" } else { "pending" };
                let name = self.orders.last().map(|order| order["identifiers"][0].clone());
                answer(200, json!({"status": status, "identifier": name, "challenges": [challenge]}))
            }
            ("POST", "challenge") => answer(
                200,
                json!({"type": "http-01", "url": self.url("challenge/1"), "token": "token", "status": "processing"}),
            ),
            ("POST", "finalize") => {
                self.sign(number, &URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap_or_default()).unwrap());
                answer(200, order(self))
            }
            ("POST", "cert") => {
                let leaf = self.issued.get(&number).cloned().unwrap_or_default();
                let other = path.ends_with("/other");
                let chain = leaf + &self.roots[usize::from(other)].pem();
                let mut answer = answer(200, chain);
                answer.headers = vec![("content-type", "application/pem-certificate-chain".into())];
                answer.with("link", format!("<{}>;rel=\"alternate\"", self.url(&format!("cert/{number}/other"))))
            }
            _ => problem(404, "malformed"),
        };
        answer.with("replay-nonce", nonce)
    }

    fn new_order(&mut self, payload: Value) -> Answer {
        match self.fault {
            Fault::RateLimited(seconds) => return problem(429, "rateLimited").with("retry-after", seconds),
            Fault::ForgetsAccounts => {
                self.fault = Fault::None;
                return problem(400, "accountDoesNotExist");
            }
            Fault::RefusesReplaces if payload.get("replaces").is_some() => return problem(409, "alreadyReplaced"),
            _ => {}
        }
        self.orders.push(payload);
        let number = self.orders.len();
        answer(201, self.order(number)).with("location", self.url(&format!("order/{number}")))
    }

    fn order(&self, number: usize) -> Value {
        let ordered = self.orders.get(number - 1).cloned().unwrap_or_default();
        let (signed, challenged) =
            (self.issued.contains_key(&number), self.asked.iter().any(|asked| asked == "POST challenge"));
        let status = match self.fault {
            Fault::InvalidChallenge if challenged => "invalid",
            Fault::InvalidChallenge => "pending",
            Fault::Stuck if signed => "processing",
            _ if signed => "valid",
            _ => "ready",
        };
        let authorizations = if self.fault == Fault::InvalidChallenge { vec![self.url("authz/1")] } else { Vec::new() };
        let mut order = json!({
            "status": status, "identifiers": ordered["identifiers"], "authorizations": authorizations,
            "finalize": self.url(&format!("finalize/{number}")),
        });
        if signed {
            order["certificate"] = self.url(&format!("cert/{number}")).into();
        }
        if let Some(replaces) = ordered.get("replaces") {
            order["replaces"] = replaces.clone();
        }
        order
    }

    fn sign(&mut self, number: usize, csr: &[u8]) {
        use x509_parser::prelude::FromDer;
        self.requests.push(csr.to_vec());
        let (_, read) = x509_parser::certification_request::X509CertificationRequest::from_der(csr).unwrap();
        let key = SubjectPublicKeyInfo::from_der(read.certification_request_info.subject_pki.raw).unwrap();
        let ordered = &self.orders[number - 1];
        let name = ordered["identifiers"][0]["value"].as_str().unwrap();
        let name = if self.fault == Fault::OtherName { "another.test" } else { name };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::seconds(5);
        params.not_after = now + self.lifetime;
        if self.fault == Fault::Expired {
            (params.not_before, params.not_after) = (now - time::Duration::days(9), now - time::Duration::days(1));
        }
        if let Some(url) = &self.responder {
            params.custom_extensions.push(responder(url));
        }
        let made = match self.fault {
            Fault::OtherKey => params.signed_by(&KeyPair::generate().unwrap(), &self.roots[0]),
            _ => params.signed_by(&key, &self.roots[0]),
        };
        self.issued.insert(number, made.unwrap().pem());
    }
}

/// "Authority information access" with an OCSP responder.
pub fn responder(url: &str) -> rcgen::CustomExtension {
    let length = |n: usize| u8::try_from(n).unwrap();
    let mut access = vec![0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x86, length(url.len())];
    access.extend(url.as_bytes());
    let mut content = vec![0x30, length(access.len() + 2), 0x30, length(access.len())];
    content.extend(access);
    rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}
