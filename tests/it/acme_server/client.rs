//! A client of ACME that does as the test says, also what no client should.

use crate::harness::client::{Response, request};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key of an account.
pub struct Key(EcdsaKeyPair);

impl Key {
    pub fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({"crv": "P-256", "kty": "EC", "x": b64(&point[1..33]), "y": b64(&point[33..])})
    }

    /// serde_json sorts the members, as RFC 7638 wants them.
    pub fn thumbprint(&self) -> String {
        b64(Sha256::digest(self.jwk().to_string()))
    }

    pub fn sign(&self, head: &Value, payload: &str) -> Value {
        let (protected, payload) = (b64(head.to_string()), b64(payload));
        let message = format!("{protected}.{payload}");
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        json!({"protected": protected, "payload": payload, "signature": b64(signature)})
    }
}

/// A client with its account.
pub struct Client {
    pub port: u16,
    pub key: Key,
    /// Empty before [`Client::register`].
    pub account: String,
}

impl Client {
    pub fn new(port: u16) -> Self {
        Self { port, key: Key::new(), account: String::new() }
    }

    pub fn registered(port: u16) -> Self {
        let mut client = Self::new(port);
        let answer = client.register(&json!({"termsOfServiceAgreed": true, "contact": ["mailto:a@b.test"]}));
        assert_eq!(answer.status(), 201, "{}", answer.text());
        client
    }

    pub fn register(&mut self, payload: &Value) -> Response {
        let answer = self.post_by_key("new-account", &payload.to_string());
        if answer.status() < 300 {
            self.account = answer.header("location").unwrap().to_owned();
        }
        answer
    }

    pub fn url(&self, path: &str) -> String {
        if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("http://127.0.0.1:{}/acme/local/{path}", self.port)
        }
    }

    pub fn nonce(&self) -> String {
        let answer = self.send("HEAD", "new-nonce", "");
        answer.header("replay-nonce").unwrap().to_owned()
    }

    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, "")
    }

    /// A request of the account; `payload` empty for POST-as-GET.
    pub fn post(&self, path: &str, payload: &str) -> Response {
        let head = json!({"alg": "ES256", "nonce": self.nonce(), "url": self.url(path), "kid": self.account});
        self.post_signed(path, &head, payload)
    }

    pub fn post_by_key(&self, path: &str, payload: &str) -> Response {
        let head = json!({"alg": "ES256", "nonce": self.nonce(), "url": self.url(path), "jwk": self.key.jwk()});
        self.post_signed(path, &head, payload)
    }

    pub fn post_signed(&self, path: &str, head: &Value, payload: &str) -> Response {
        self.send("POST", path, &self.key.sign(head, payload).to_string())
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> Response {
        let url = self.url(path);
        let target = url.splitn(4, '/').nth(3).unwrap();
        let answer = request(
            self.port,
            format!(
                "{method} /{target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/jose+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                self.port,
                body.len(),
            ),
        )
        .unwrap();
        let ours = target.starts_with("acme/");
        assert_eq!(answer.header("replay-nonce").is_some(), ours, "{method} {path}: {}", answer.text());
        answer
    }

    pub fn order(&self, names: &[&str]) -> Response {
        self.order_with(names, json!({}))
    }

    pub fn order_with(&self, names: &[&str], mut payload: Value) -> Response {
        let kind = |name: &str| if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
        payload["identifiers"] = names.iter().map(|n| json!({"type": kind(n), "value": n})).collect();
        self.post("new-order", &payload.to_string())
    }

    /// Proves every name of an order, and waits until it is decided.
    pub fn prove(&self, order: &Response, web: &Web, method: &str) -> Value {
        let url = order.header("location").unwrap().to_owned();
        for authorization in order.json()["authorizations"].as_array().unwrap() {
            let authorization = self.post(authorization.as_str().unwrap(), "").json();
            let challenge =
                authorization["challenges"].as_array().unwrap().iter().find(|c| c["type"] == method).unwrap();
            let token = challenge["token"].as_str().unwrap();
            web.answer(token, &format!("{token}.{}", self.key.thumbprint()));
            let answer = self.post(challenge["url"].as_str().unwrap(), "{}");
            assert_eq!(answer.status(), 200, "{}", answer.text());
            assert!(answer.head.headers_named("link").any(|l| l.contains("/authz/") && l.ends_with("rel=\"up\"")));
        }
        let began = Instant::now();
        loop {
            let order = self.post(&url, "").json();
            if order["status"] != "pending" {
                return order;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{order}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A certificate for names, with the answer of its order.
    pub fn obtain(&self, names: &[&str], web: &Web) -> (Value, Response) {
        let order = self.order(names);
        assert_eq!(order.status(), 201, "{}", order.text());
        let ready = self.prove(&order, web, "http-01");
        assert_eq!(ready["status"], "ready", "{ready}");
        let done = self.post(ready["finalize"].as_str().unwrap(), &json!({"csr": csr(names)}).to_string());
        assert_eq!(done.status(), 200, "{}", done.text());
        let done = done.json();
        let certificate = self.post(done["certificate"].as_str().unwrap(), "");
        assert_eq!(certificate.header("content-type"), Some("application/pem-certificate-chain"));
        (done, certificate)
    }
}

/// A signing request for names with a key of its own, base64url.
pub fn csr(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    b64(params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().der())
}

/// Answers HTTP-01 challenges.
pub struct Web {
    pub port: u16,
    answers: Arc<Mutex<HashMap<String, String>>>,
}

impl Web {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", crate::harness::process::free_port())).unwrap();
        let (port, answers) = (listener.local_addr().unwrap().port(), Arc::<Mutex<HashMap<String, String>>>::default());
        let known = Arc::clone(&answers);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let path = line.split(' ').nth(1).unwrap_or_default();
                let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
                let answer = known.lock().unwrap().get(token).cloned();
                let head = match answer.as_deref() {
                    Some(to) if to.starts_with("http") => format!("302 Found\r\nLocation: {to}"),
                    Some(_) => "200 OK".to_owned(),
                    None => "404 Not Found".to_owned(),
                };
                let body = answer.unwrap_or_default();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { port, answers }
    }

    pub fn answer(&self, token: &str, with: &str) {
        self.answers.lock().unwrap().insert(token.to_owned(), with.to_owned());
    }
}
