//! Asking the gateway as its clients do: over a connection that is kept, with the answer's pieces and their times.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::base::body::Body;
use crate::client::{Address, Scheme, SendOptions, Target, TargetOptions, send};

/// Of one answer; more is cut.
const MAX_BODY: usize = 8 << 20;

/// For one request, its body included.
const PATIENCE: Duration = Duration::from_secs(20);

/// A site as its users name it.
pub struct Site {
    target: Target,
    host: HeaderValue,
    /// Path of the base URL, without a slash at its end and without `/v1`.
    prefix: String,
    pub https: bool,
    pub name: String,
    /// Everything it has answered, to look for what should not be there.
    told: RefCell<String>,
}

#[derive(Default)]
pub struct Ask<'a> {
    pub method: &'static str,
    /// Below the base URL.
    pub path: &'a str,
    pub token: Option<&'a str>,
    pub headers: &'a [(&'static str, &'a str)],
    pub body: Option<String>,
    /// Leave after so many pieces of the body.
    pub leave_after: Option<usize>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Between the first and the last piece of the body.
    pub spread: Duration,
    /// The body ended as its framing said.
    pub complete: bool,
}

impl Site {
    pub fn parse(url: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{url}` is not the URL of a site: {why}");
        let uri: Uri = url.parse().map_err(|_| bad("it should look like https://llm.example.com"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("it begins with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("a password in it would be seen by others"));
        }
        let name = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        let scheme = if https { Scheme::Https } else { Scheme::Http };
        let address = Address::Tcp { host: name.as_str().into(), port };
        let target = Target::new(TargetOptions::new(scheme, address)).map_err(|e| e.to_string())?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("its host is not valid"))?;
        let path = uri.path().trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        Ok(Self { target, host, prefix, https, name, told: RefCell::default() })
    }

    /// Asks for another host than the URL says.
    pub fn set_host(&mut self, host: &str) {
        if let Ok(host) = HeaderValue::from_str(host) {
            self.host = host;
        }
    }

    /// Has any answer so far held this text?
    pub fn has_told(&self, text: &str) -> bool {
        self.told.borrow().contains(text)
    }

    /// `Err` says why there is no answer, for a person.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Answer, String> {
        let what = format!("{} {}{}", ask.method, self.prefix, ask.path);
        match tokio::time::timeout(PATIENCE, self.exchange(ask)).await {
            Ok(Ok(answer)) => {
                let mut told = self.told.borrow_mut();
                for value in answer.headers.values() {
                    told.push_str(&String::from_utf8_lossy(value.as_bytes()));
                    told.push('\n');
                }
                told.push_str(&String::from_utf8_lossy(&answer.body));
                Ok(answer)
            }
            Ok(Err(error)) => Err(format!("{what}: {error}")),
            Err(_) => Err(format!("{what}: no whole answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, String> {
        let method = Method::from_bytes(ask.method.as_bytes()).map_err(|e| e.to_string())?;
        let mut request = Request::builder().method(method).uri(format!("{}{}", self.prefix, ask.path));
        request = request.header(header::HOST, &self.host).header(header::ACCEPT, "*/*");
        if let Some(token) = ask.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in ask.headers {
            request = request.header(HeaderName::from_static(name), *value);
        }
        let body = match ask.body {
            Some(text) => {
                request =
                    request.header(header::CONTENT_TYPE, "application/json").header(header::CONTENT_LENGTH, text.len());
                Body::from(text)
            }
            None => Body::Empty,
        };
        let request = request.body(body).map_err(|e| e.to_string())?;
        let sent = send(&self.target, request, SendOptions::default()).await.map_err(|e| e.error.to_string())?;
        let (head, mut body) = sent.response.into_parts();
        let mut answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Vec::new(),
            spread: Duration::ZERO,
            complete: false,
        };
        let (mut pieces, mut first) = (0, None);
        while answer.body.len() < MAX_BODY {
            let data: Bytes = match body.frame().await {
                None => {
                    answer.complete = true;
                    break;
                }
                Some(Err(_)) => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            if data.is_empty() {
                continue;
            }
            answer.body.extend_from_slice(&data);
            answer.spread = first.get_or_insert_with(Instant::now).elapsed();
            pieces += 1;
            if ask.leave_after.is_some_and(|most| pieces >= most) {
                break;
            }
        }
        Ok(answer)
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `Null` when it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The beginning of the body, for a message.
    pub fn beginning(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let mut shown: String = text.chars().take(80).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        shown
    }

    /// The JSON of each event of a stream, without `[DONE]`; whether `[DONE]` came, and came last.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let text = String::from_utf8_lossy(&self.body).replace("\r\n", "\n");
        let mut events = Vec::new();
        let mut done = false;
        for block in text.split("\n\n") {
            let data: Vec<&str> = block.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start).collect();
            if data.is_empty() {
                continue;
            }
            let data = data.join("\n");
            done = data.trim() == "[DONE]";
            if !done {
                events.push(serde_json::from_str(&data).unwrap_or_default());
            }
        }
        (events, done)
    }

    /// An error object as the OpenAI SDKs read it.
    pub fn has_openai_error(&self) -> bool {
        let error = &self.json()["error"];
        error["message"].is_string() && error["type"].is_string()
    }
}
