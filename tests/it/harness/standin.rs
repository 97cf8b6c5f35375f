//! A stand-in for `api.openai.com`: TLS under a CA of its own, the API's manners where a proxy can get them wrong.
//!
//! - any `Host` but `api.openai.com` is answered 403, as the real front does;
//! - without a key, 401 and the API's own JSON error;
//! - `/v1/models`, `/v1/chat/completions` (plain, and streamed word by word), `/v1/embeddings`.
//!
//! It also speaks CONNECT, so that a configuration with `https://api.openai.com` runs unchanged: the proxy under test
//! gets `HTTPS_PROXY` and `SSL_CERT_FILE` in its environment ([`Standin::environment`]).

use super::upstream::{Request, read_body, read_head, spawn};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const KEY: &str = "sk-standin";

/// What the API says without a key. It must reach the client unchanged, spaces and all.
pub const NO_KEY: &str = r#"{
    "error": {
        "message": "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        "type": "invalid_request_error",
        "param": null,
        "code": null
    }
}
"#;

/// The words of a streamed answer, sent [`PAUSE`] apart.
pub const WORDS: [&str; 4] = ["Hello", " from", " the", " stand-in"];
pub const PAUSE: Duration = Duration::from_millis(80);

pub struct Standin {
    pub port: u16,
    directory: tempfile::TempDir,
    names: Arc<Mutex<Vec<Option<String>>>>,
}

impl Standin {
    pub fn start() -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.certificate(&["api.openai.com", "localhost"]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&names);
        spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                spawn(move || drop(serve(stream, config, &seen)));
            }
        });
        Self { port, directory, names }
    }

    /// The CA's certificate, PEM.
    pub fn authority_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Environment under which `https://api.openai.com` is this stand-in.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let authority = self.authority_file().display().to_string();
        [("HTTPS_PROXY", format!("http://127.0.0.1:{}", self.port)), ("SSL_CERT_FILE", authority)]
    }

    /// The server names that TLS clients asked for, one per connection.
    pub fn server_names(&self) -> Vec<Option<String>> {
        self.names.lock().unwrap().clone()
    }
}

/// A certificate authority for a test.
pub struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "llmproxy tests");
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        let issuer = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn certificate(&self, names: &[&str]) -> (rcgen::Certificate, rcgen::KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    names: &Mutex<Vec<Option<String>>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first)?;
    if first == *b"C" {
        let connect = read_head_slowly(&stream)?;
        if !connect.starts_with("CONNECT api.openai.com:443 ") {
            return (&stream).write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
        (&stream).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    }
    let mut tls =
        rustls::StreamOwned::new(rustls::ServerConnection::new(config).map_err(std::io::Error::other)?, stream);
    tls.flush()?;
    let mut reader = BufReader::new(tls);
    let mut named = false;
    while let Some(request) = read_head(&mut reader)? {
        if !named {
            names.lock().unwrap().push(reader.get_ref().conn.server_name().map(str::to_owned));
            named = true;
        }
        let body = read_body(&request, &mut reader, |reader, bytes| reader.get_mut().write_all(bytes))?;
        answer(&request, &body.bytes, reader.get_mut())?;
    }
    Ok(())
}

/// Byte by byte: what follows the head belongs to TLS.
fn read_head_slowly(mut stream: &TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn answer(request: &Request, body: &[u8], out: &mut impl Write) -> std::io::Result<()> {
    if request.header("host") != Some("api.openai.com") {
        return reply(out, 403, "text/html", "<html>error code: 1003</html>");
    }
    match request.header("authorization").map(|value| value.strip_prefix("Bearer ")) {
        None => return reply(out, 401, "application/json; charset=utf-8", NO_KEY),
        Some(key) if key != Some(KEY) => {
            let error = json!({"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}});
            return reply(out, 401, "application/json", &error.to_string());
        }
        Some(_) => {}
    }
    let asked: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match (request.method.as_str(), request.path()) {
        ("GET", "/v1/models") => {
            let model = json!({"id": "standin-1", "object": "model", "created": 1, "owned_by": "tests"});
            reply(out, 200, "application/json", &json!({"object": "list", "data": [model]}).to_string())
        }
        ("POST", "/v1/embeddings") => {
            let vector = json!({"object": "embedding", "index": 0, "embedding": [0.25, -0.5]});
            let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
            let answer = json!({"object": "list", "data": [vector], "model": asked["model"], "usage": usage});
            reply(out, 200, "application/json", &answer.to_string())
        }
        ("POST", "/v1/chat/completions") if asked["stream"] == true => streamed(out, &asked),
        ("POST", "/v1/chat/completions") => {
            let message = json!({"role": "assistant", "content": WORDS.concat()});
            let answer = json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            });
            reply(out, 200, "application/json", &answer.to_string())
        }
        _ => reply(
            out,
            404,
            "application/json",
            &json!({"error": {"message": "no such route", "type": "invalid_request_error"}}).to_string(),
        ),
    }
}

fn streamed(out: &mut impl Write, asked: &serde_json::Value) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Request-Id: req-1\r\nTransfer-Encoding: chunked\r\n\r\n";
    out.write_all(head.as_bytes())?;
    out.flush()?;
    for (n, word) in WORDS.iter().enumerate() {
        if n > 0 {
            std::thread::sleep(PAUSE);
        }
        let choice = json!({"index": 0, "delta": {"content": word}, "finish_reason": null});
        event(out, &json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], "choices": [choice]}).to_string())?;
    }
    let choice = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    event(out, &json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"], "choices": [choice]}).to_string())?;
    event(out, "[DONE]")?;
    out.write_all(b"0\r\n\r\n")?;
    out.flush()
}

fn event(out: &mut impl Write, data: &str) -> std::io::Result<()> {
    out.write_all(format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).as_bytes())?;
    out.flush()
}

fn reply(out: &mut impl Write, status: u16, kind: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nX-Request-Id: req-1\r\nContent-Length: {length}\r\n\r\n"
    );
    out.write_all((head + body).as_bytes())?;
    out.flush()
}
