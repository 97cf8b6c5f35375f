//! `alert`: says when something is out of the ordinary: in the log, and to webhooks.
//!
//! ```text
//! alert NAME {
//!     when spend over 1h > $10              # so much money within the last hour; `tokens over 1h > 2M` likewise
//!     when spend over 1h > 3x baseline 7d   # three times as much as in an average hour of the last seven days
//!     when errors over 5m > 5%              # answers of 500 and more, among at least 20 calls
//!     when rate_limited over 5m > 10%       # 429 from upstreams, likewise
//!     when budget team > 80%                # a call made it reach this share of a limit
//!     when new_network                      # a caller's token is used from a network where it was never used before
//!     by {http.auth.user.id}                # each caller for themselves; all together without it
//!     webhook https://hooks.example.com/llm {
//!         secret {$ALERT_SECRET}
//!     }
//!     hold_off 1h                           # not again about the same within this time (1h)
//! }
//! ```
//!
//! Every `when` is a condition of its own; one is enough. Counted are the calls to upstreams of the requests that pass here, when
//! they end. `over` may be left out: an hour for `spend` and `tokens`, five minutes for shares. Sums are kept in sixtieths
//! of their window. A baseline is told from once a seventh of it has been seen, and what came within the window itself is no
//! part of it; it begins anew when the program starts, and goes on over a reload. A network is a /24 of IPv4 or a /48 of IPv6; the
//! first one of a caller is learnt in silence. `budget` names a [`budget`](#budget) of the same requests and tells of the key
//! whose purse it is.
//!
//! The **log** has a warning `alert` with the name, the condition, the key, what was measured and against what. A **webhook** is
//! a `POST` of JSON:
//!
//! ```text
//! {"type": "llmproxy.alert", "timestamp": "2026-11-22T09:00:00Z",
//!  "text": "spend: ann: 12.4 within 1h, more than 10 (spend over 1h > $10)",
//!  "data": {"alert": "spend", "condition": "spend over 1h > $10", "key": "ann", "value": 12.4, "against": 10.0}}
//! ```
//!
//! It is signed as [Standard Webhooks](https://www.standardwebhooks.com) says, for which there are libraries: `webhook-id`,
//! `webhook-timestamp` and `webhook-signature: v1,BASE64`, an HMAC-SHA256 of `ID.TIMESTAMP.BODY`. A secret that begins with
//! `whsec_` is the key in base64, any other is the key itself; it may be `{$VAR}`, `{env.VAR}` or `{file./path}`. An answer of 2xx is success; after others, and
//! none within ten seconds, it is tried again after 1 s, 5 s, 30 s, 2 min and 10 min, but not after 4xx other than 408 and 429. Alerts wait in line, at most
//! 256 of them; what comes then is in the log alone. Requests never wait for any of this.

mod condition;
mod deliver;
mod parse;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::units::parse_duration;
use crate::client::ServiceUrl;
use crate::config::compile_cx::{CompileCx, CompileError, read};
use crate::config::nanos::Nanos;
use crate::config::registry::{Directive, Doc, HandlerModule};
use crate::config::types::Module;
use crate::http::placeholder::{Key, Template};
use crate::http::route::Handler;
use crate::state::alarm::Alarm;
use crate::state::tally;

use self::condition::Condition;
use self::deliver::Webhook;
use self::sink::{Alert, Rule, Watcher};

pub const DIRECTIVE: Directive = Directive {
    name: "alert",
    renamed_to: None,
    ordered: true,
    matcher: true,
    parse: parse::parse,
    doc: &Doc {
        summary: "Says when spending, errors or callers are out of the ordinary.",
        syntax: "alert [matcher] <name> { when <condition>  by <text>  webhook <url> { secret <secret> }  hold_off <duration> }",
        examples: &[
            "alert spend {\n\twhen spend > $10\n}",
            "alert unusual {\n\twhen spend over 1h > 3x baseline 7d\n\twhen tokens over 10m > 2M\n\twhen errors over 5m > 5%\n\twhen rate_limited > 10%\n\twhen budget team > 80%\n\twhen new_network\n\tby {http.auth.user.id}\n\twebhook https://hooks.example.com/llm {\n\t\tsecret whsec_c2VjcmV0IG9mIHRoZSBleGFtcGxl\n\t}\n\thold_off 30m\n}",
        ],
        rejected: &[
            ("alert", "wrong-argument-count"),
            ("alert spend", "alert-without-condition"),
            ("alert \"a b\" {\n\twhen spend > $10\n}", "invalid-value"),
            ("alert a {\n\twhen\n}", "wrong-argument-count"),
            ("alert a {\n\twhen money > $10\n}", "invalid-condition"),
            ("alert a {\n\twhen spend > 10\n}", "invalid-condition"),
            ("alert a {\n\twhen spend over soon > $10\n}", "invalid-condition"),
            ("alert a {\n\twhen spend over 1h > 3x\n}", "invalid-condition"),
            ("alert a {\n\twhen spend over 1h > 3x baseline 30m\n}", "invalid-condition"),
            ("alert a {\n\twhen errors > 5\n}", "invalid-condition"),
            ("alert a {\n\twhen budget > 80%\n}", "invalid-condition"),
            ("alert a {\n\twhen spend > $1\n\twebhook hooks.example.com\n}", "invalid-webhook-url"),
            (
                "alert a {\n\twhen spend > $1\n\twebhook https://a.test {\n\t\tsecret \"\"\n\t}\n}",
                "invalid-webhook-secret",
            ),
            ("alert a {\n\twhen spend > $1\n\thold_off soon\n}", "invalid-duration"),
            ("alert a {\n\twhen spend > $1\n\temail a@example.com\n}", "unknown-subdirective"),
        ],
        adapt_only: false,
    },
};

pub const HANDLER: HandlerModule = HandlerModule { id: "alert", compile };

const HOLD_OFF: Duration = Duration::from_hours(1);

/// The JSON form. No `Debug`: secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    name: String,
    /// In the words of the file.
    when: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    webhooks: Vec<WebhookConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold_off: Option<Nanos>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookConfig {
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

fn compile(module: &Module, cx: &mut CompileCx<'_>) -> Result<Handler, CompileError> {
    let config: Config = read(module, "handler").map_err(without_values)?;
    if !is_name(&config.name) {
        return Err(CompileError::new("invalid-value", NAME).within("name"));
    }
    if config.when.is_empty() {
        return Err(CompileError::new("alert-without-condition", format!("alert `{}` has no `when`", config.name)));
    }
    let mut rules = Vec::with_capacity(config.when.len());
    for (i, text) in config.when.iter().enumerate() {
        let words: Vec<&str> = text.split_whitespace().collect();
        let condition = Condition::parse(&words)
            .map_err(|wrong| CompileError::new("invalid-condition", wrong.message).within(i).within("when"))?;
        let alarm = Alarm::adopt(&format!("{}\n{text}", config.name));
        rules.push(Rule { text: text.as_str().into(), condition, alarm });
    }
    let mut webhooks = Vec::new();
    for (i, webhook) in config.webhooks.iter().enumerate() {
        webhooks.push(compile_webhook(webhook, cx).map_err(|e| e.within(i).within("webhooks"))?);
    }
    let hold_off = match config.hold_off {
        None => HOLD_OFF,
        Some(nanos) => nanos.positive().ok_or_else(|| {
            CompileError::new("invalid-duration", "`hold_off` is a time above zero").within("hold_off")
        })?,
    };
    let tally = tally::alert(&config.name);
    let alert = Alert { name: config.name.into(), rules, webhooks, hold_off: hold_off.as_secs().max(1), tally };
    let by = config.by.as_deref().map(Template::parse);
    Ok(Handler::Step(Box::new(Watcher::new(Arc::new(alert), by))))
}

fn compile_webhook(config: &WebhookConfig, cx: &mut CompileCx<'_>) -> Result<Arc<Webhook>, CompileError> {
    let invalid = |why: String| CompileError::new("invalid-webhook-url", format!("not the URL of a webhook: {why}"));
    let url = ServiceUrl::parse(&config.url).map_err(|why| invalid(why).within("url"))?;
    let secret = match &config.secret {
        None => None,
        Some(text) => Some(secret_of(text, cx).map_err(|e| e.within("secret"))?),
    };
    let webhook = Webhook::adopt(&config.url, url, secret).map_err(|why| invalid(why).within("url"))?;
    cx.background.push(Arc::clone(&webhook) as _);
    Ok(webhook)
}

/// The key of a secret: written out, or in a file that is read now and watched.
fn secret_of(text: &str, cx: &mut CompileCx<'_>) -> Result<Vec<u8>, CompileError> {
    let wrong = |why: &str| CompileError::new("invalid-webhook-secret", why.to_owned());
    let template = Template::parse(text);
    let value = match (template.as_static(), template.as_key()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(Key::File(path))) => {
            cx.watched.push(path.clone());
            std::fs::read_to_string(path)
                .map_err(|e| CompileError::new("unreadable-file", format!("{}: {e}", path.display())))?
        }
        (None, _) => return Err(wrong("a secret cannot be made from the request")),
    };
    deliver::key(value.trim()).ok_or_else(|| wrong("the secret of a webhook is empty, or no base64 behind `whsec_`"))
}

/// What serde says of a field that is there in the wrong form shows what is in it.
fn without_values(error: CompileError) -> CompileError {
    if error.message.starts_with("unknown field") {
        return error;
    }
    CompileError { message: "a field of `alert` has the wrong form".to_owned(), ..error }
}

const NAME: &str = "an alert's name is 1 to 64 letters, digits, `-`, `_` and `.`";

/// Names stand in logs, messages and metrics.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// Whole seconds of a time above zero.
fn seconds(text: &str) -> Option<u64> {
    let nanos = u64::try_from(parse_duration(text)?).ok()?;
    Some(nanos / 1_000_000_000).filter(|seconds| *seconds > 0)
}
