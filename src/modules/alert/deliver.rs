//! Brings alerts to a webhook: signed, one after the other, again when it fails, and never in a request's way.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::client::{ServiceUrl, Target, simple};
use crate::config::background::Background;
use crate::llm::date::rfc3339;
use crate::telemetry::encoder;

/// Alerts that wait.
const MOST: usize = 256;

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Before each further attempt.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
];

/// A webhook with what waits for it. No `Debug`: its secret, and often its URL.
pub struct Webhook {
    identity: String,
    target: Target,
    url: ServiceUrl,
    secret: Option<hmac::Key>,
    queue: Mutex<VecDeque<Message>>,
    woken: Notify,
    /// Alerts that found no room, or were given up.
    pub lost: AtomicU64,
}

#[derive(Clone)]
struct Message {
    id: String,
    body: Bytes,
}

/// The key that a secret stands for; `None` when it is none.
pub fn key(secret: &str) -> Option<Vec<u8>> {
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => secret.as_bytes().to_vec(),
    };
    Some(key).filter(|key| !key.is_empty())
}

impl Webhook {
    /// The webhook of this URL and secret: the one that is at work, with what waits for it, while some configuration has
    /// it.
    ///
    /// # Errors
    /// When nothing can be sent there.
    pub fn adopt(written: &str, url: ServiceUrl, secret: Option<Vec<u8>>) -> Result<Arc<Self>, String> {
        static KNOWN: LazyLock<Mutex<HashMap<String, Weak<Webhook>>>> = LazyLock::new(Mutex::default);
        let secret = secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, &secret));
        let mark = secret.as_ref().map_or_else(String::new, |key| STANDARD.encode(hmac::sign(key, b"identity")));
        let identity = format!("webhook {written} {mark}");
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(webhook) = known.get(&identity).and_then(Weak::upgrade) {
            return Ok(webhook);
        }
        known.retain(|_, webhook| webhook.strong_count() > 0);
        let webhook = Arc::new(Self {
            identity: identity.clone(),
            target: url.target()?,
            url,
            secret,
            queue: Mutex::default(),
            woken: Notify::new(),
            lost: AtomicU64::new(0),
        });
        known.insert(identity, Arc::downgrade(&webhook));
        Ok(webhook)
    }

    /// Puts an alert in line.
    pub fn send(&self, text: &str, data: &Map<String, Value>) {
        let timestamp = rfc3339(encoder::now() / 1_000_000_000);
        let body = json!({"type": "llmproxy.alert", "timestamp": timestamp, "text": text, "data": data});
        let id = format!("msg_{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let mut queue = self.queue();
        if queue.len() >= MOST {
            drop(queue);
            return self.lose("too many alerts wait for a webhook: this one is in the log alone");
        }
        queue.push_back(Message { id, body: body.to_string().into() });
        drop(queue);
        self.woken.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says so without the URL: that often is a secret itself.
    fn lose(&self, why: &str) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(target: "alert", webhook = self.target.label(), lost, "{why}");
    }

    async fn deliver(&self, message: &Message) {
        let mut pauses = PAUSES.iter();
        loop {
            let why = match self.attempt(message).await {
                Ok(()) => return,
                Err(Failure::Final(why)) => return self.lose(&format!("a webhook refuses an alert: {why}")),
                Err(Failure::Passing(why)) => why,
            };
            let Some(pause) = pauses.next() else {
                return self.lose(&format!("a webhook does not take an alert, it is given up: {why}"));
            };
            tracing::warn!(target: "alert", webhook = self.target.label(), "a webhook does not take an alert: {why}");
            tokio::time::sleep(*pause).await;
        }
    }

    async fn attempt(&self, message: &Message) -> Result<(), Failure> {
        let request =
            self.request(message, encoder::now() / 1_000_000_000).map_err(|e| Failure::Final(e.to_string()))?;
        let response = simple::begin(&self.target, request, 0, PATIENCE).await;
        let status = response.map_err(|e| Failure::Passing(e.to_string()))?.status();
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Passing(status.to_string())),
            status if status.is_client_error() => Err(Failure::Final(status.to_string())),
            status => Err(Failure::Passing(status.to_string())),
        }
    }

    /// Signed anew with each attempt, for receivers refuse what is old.
    fn request(&self, message: &Message, unix: i64) -> Result<Request<Bytes>, http::Error> {
        let mut request = Request::post(&self.url.path)
            .header(header::HOST, &self.url.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, message.body.len())
            .header(header::USER_AGENT, "llmproxy")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", unix);
        if let Some(secret) = &self.secret {
            let mut signed = hmac::Context::with_key(secret);
            signed.update(format!("{}.{unix}.", message.id).as_bytes());
            signed.update(&message.body);
            let signature = HeaderValue::try_from(format!("v1,{}", STANDARD.encode(signed.sign())))?;
            request = request.header("webhook-signature", signature);
        }
        request.body(message.body.clone())
    }
}

enum Failure {
    /// Trying again does not help.
    Final(String),
    Passing(String),
}

impl Background for Webhook {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            loop {
                // It stays in line until it is done with: a configuration that takes over goes on with it.
                let next = self.queue().front().cloned();
                match next {
                    None => self.woken.notified().await,
                    Some(message) => {
                        self.deliver(&message).await;
                        self.queue().pop_front();
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let url = "https://a.test/hook";
        let secret = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let webhook = Webhook::adopt(url, ServiceUrl::parse(url).unwrap(), Some(secret)).unwrap();
        let message = Message { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(), body: r#"{"test": 2432232314}"#.into() };
        let request = webhook.request(&message, 1_614_265_330).unwrap();
        assert_eq!(request.headers()["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!((request.uri().path(), &request.headers()["host"]), ("/hook", &HeaderValue::from_static("a.test")));
    }

    #[test]
    fn secrets_are_keys() {
        assert_eq!(key("plain").as_deref(), Some(&b"plain"[..]));
        assert_eq!(key("whsec_AQID").as_deref(), Some(&[1, 2, 3][..]));
        for wrong in ["", "whsec_", "whsec_?"] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_a_reload_finds_it() {
        let url = "https://full.test/hook";
        let adopt = || Webhook::adopt(url, ServiceUrl::parse(url).unwrap(), None).unwrap();
        let webhook = adopt();
        for _ in 0..MOST + 3 {
            webhook.send("text", &Map::new());
        }
        assert_eq!((adopt().queue().len(), adopt().lost.load(Ordering::Relaxed)), (MOST, 3));
    }
}
