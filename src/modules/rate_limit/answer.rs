//! What callers are told: how much is left on every answer, and when to come again on a refusal.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use super::HANDLER;
use super::gate::{Gate, ZoneGate};
use crate::base::units::format_duration;
use crate::http::error::{HandlerError, Refusal as Words};
use crate::http::exchange::{Exchange, Response};
use crate::http::stage::{Stage, SyncStage};
use crate::state::limit::{Left, Limit, Limits, Refusal, Standing};

const EXCEEDED: &str = "http.rate_limit.exceeded.name";

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Limit, remaining, reset; for requests and for tokens.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// What official clients wait at most; told more, they do not wait but come again at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// When nobody can tell: an open request ends when it ends.
const SOON: Duration = Duration::from_secs(1);

/// What is left, of the zone that has the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told(Standing);

impl Told {
    pub fn add(&mut self, standing: &Standing) {
        let least = |a: Option<Left>, b: Option<Left>| match (a, b) {
            (Some(a), Some(b)) => Some(if (b.remaining, b.limit) < (a.remaining, a.limit) { b } else { a }),
            (a, b) => a.or(b),
        };
        self.0.requests = least(self.0.requests, standing.requests);
        self.0.tokens = least(self.0.tokens, standing.tokens);
    }

    /// Has the answer tell it.
    pub fn attach(self, ex: &mut Exchange) {
        if self != Self::default() {
            ex.stages.push(Stage::Sync(Box::new(self)));
        }
    }

    fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let of = |names: [HeaderName; 3], left: Option<Left>| {
            left.into_iter().flat_map(move |left| {
                let [limit, remaining, reset] = names.clone();
                let values = [
                    (limit, Some(HeaderValue::from(left.limit))),
                    (remaining, Some(HeaderValue::from(left.remaining))),
                    (reset, HeaderValue::from_str(&shown(left.reset)).ok()),
                ];
                values.into_iter().filter_map(|(name, value)| Some((name, value?)))
            })
        };
        of(REQUESTS, self.0.requests).chain(of(TOKENS, self.0.tokens))
    }
}

impl SyncStage for Told {
    fn apply(self: Box<Self>, _: &mut Exchange, response: &mut Response) {
        // Another `rate_limit` may have told already; what an upstream says of its own limits is none of the caller's.
        let mut told = *self;
        if let Some(other) = response.extensions().get::<Self>() {
            told.add(&other.0);
        }
        for (name, value) in told.fields() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(told);
    }
}

/// The error that a refused request becomes.
pub fn refuse(gate: &Gate, zone: &ZoneGate, refusal: &Refusal, ex: &mut Exchange) -> HandlerError {
    let wait = match refusal.wait {
        None if refusal.never => None,
        wait => Some(jittered(wait.unwrap_or(SOON), gate.jitter)),
    };
    log(gate, zone, wait, ex);
    ex.set_extra(EXCEEDED, zone.name.to_string());
    let mut error = HandlerError::new(429, HANDLER.id, format!("rate limit exceeded: zone {}", zone.name));
    // As in Caddy, what is told stands on the answers of error routes too.
    let headers = &mut ex.early_headers;
    if let Some(wait) = wait {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if zone.tells {
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(whole_millis(wait)));
        }
        let worth_it = wait.is_some_and(|wait| wait <= PATIENCE);
        headers.insert(SHOULD_RETRY, HeaderValue::from_static(if worth_it { "true" } else { "false" }));
        headers.extend(Told(refusal.standing).fields());
    }
    // Elsewhere the answer is as the plugin's.
    if ex.error_dialect().is_some() {
        error.refusal = Some(words(zone, refusal, wait));
    }
    error
}

fn words(zone: &ZoneGate, refusal: &Refusal, wait: Option<Duration>) -> Words {
    let limits: &Limits = &zone.limits;
    let window = format_duration(i64::try_from(limits.window).unwrap_or(i64::MAX));
    let what = match refusal.limit {
        Limit::Events => format!("Rate limit reached: {} requests per {window}.", limits.events.unwrap_or(0)),
        Limit::Tokens if refusal.never => {
            format!("Request too large: at most {} tokens per {window} are allowed.", limits.tokens.unwrap_or(0))
        }
        Limit::Tokens => format!("Rate limit reached: {} tokens per {window}.", limits.tokens.unwrap_or(0)),
        Limit::Concurrent => {
            format!("Too many requests at a time: at most {} may be open.", limits.concurrent.unwrap_or(0))
        }
        Limit::Rate => "Rate limit reached: requests come too fast.".to_owned(),
    };
    let message = match wait {
        Some(wait) => format!("{what} Please try again in {}.", shown(wait)),
        None => what,
    };
    let kind = if refusal.limit == Limit::Tokens { "tokens" } else { "requests" };
    Words { message: message.into(), code: Some("rate_limit_exceeded"), kind: Some(kind), param: None }
}

fn log(gate: &Gate, zone: &ZoneGate, wait: Option<Duration>, ex: &Exchange) {
    let remote_ip = ex.peer_ip().map(|ip| ip.to_string()).unwrap_or_default();
    let wait_ms = whole_millis(wait.unwrap_or_default());
    let name = &*zone.name;
    if gate.log_key {
        let key = zone.key_text(ex);
        tracing::info!(zone = name, wait_ms, remote_ip, key = &*key, "rate limit exceeded");
    } else {
        tracing::info!(zone = name, wait_ms, remote_ip, "rate limit exceeded");
    }
}

fn jittered(wait: Duration, jitter: f64) -> Duration {
    if jitter > 0.0 { wait.mul_f64(1.0 + fastrand::f64() * jitter) } else { wait }
}

/// Rounded up, and never nothing: coming at once would be too early.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn whole_millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// As Go prints it, in milliseconds rounded up: `6m0s`, `1.5s`, `12ms`.
fn shown(wait: Duration) -> String {
    format_duration(i64::try_from(whole_millis(wait)).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        let seconds = |millis| whole_seconds(Duration::from_millis(millis));
        assert_eq!([seconds(0), seconds(1), seconds(1000), seconds(1001), seconds(60_000)], [1, 1, 1, 2, 60]);
        assert_eq!(shown(Duration::from_mins(6)), "6m0s");
        assert_eq!(shown(Duration::from_nanos(11_000_001)), "12ms");
        assert_eq!(shown(Duration::ZERO), "0s");
        let jittered: Vec<_> = (0..100).map(|_| jittered(Duration::from_secs(10), 0.2)).collect();
        assert!(jittered.iter().all(|wait| (10.0..=12.0).contains(&wait.as_secs_f64())));
        assert!(jittered.iter().any(|wait| wait.as_secs_f64() > 10.5));
    }
}
