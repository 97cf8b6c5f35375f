//! What every client needs: a door with a lock, a list of models, answers and streams as the API gives them.

use serde_json::{Value, json};

use super::Examination;
use super::report::{CLIENTS, CONTINUE, CURSOR, GATEWAY, SDK};
use super::site::{Answer, Ask};
use super::upstream::{TEXT, unknown_object};

/// A connection can be made at all.
pub async fn reachable(x: &mut Examination) -> bool {
    match x.site.ask(Ask { method: "GET", path: "/v1/models", ..Ask::default() }).await {
        Ok(_) => true,
        Err(why) => {
            x.report.fault(&CLIENTS, "reachable", why, "is it running, and is this its URL?");
            false
        }
    }
}

/// Nobody comes in without the token, and who is refused is told so in a way that SDKs understand.
pub async fn door(x: &mut Examination) {
    let without = x.site.ask(Ask { method: "GET", path: "/v1/models", ..Ask::default() }).await;
    let wrong = Ask { method: "GET", path: "/v1/models", token: Some("sk-llmproxy-doctor-wrong"), ..Ask::default() };
    let wrong = x.site.ask(wrong).await;
    for answer in [without, wrong] {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return x.report.fault(&[GATEWAY], "door", why, ""),
        };
        if answer.status < 400 {
            let why = format!("a request without a valid token is answered {}", answer.status);
            return x.report.warn(
                &[GATEWAY],
                "door",
                why,
                "`auth_token {$TOKEN}`, or a network that keeps strangers out",
            );
        }
        if answer.status == 401 && !answer.has_openai_error() {
            let why = format!("401 is no error object of the API: {}", answer.beginning());
            return x.report.warn(
                &[SDK],
                "door",
                why,
                "let `auth_token` answer, instead of `respond` or an error page",
            );
        }
    }
    x.report.ok(&[GATEWAY, SDK], "door");
}

/// Does a request without a token come in?
pub async fn locked(x: &Examination) -> bool {
    let answer = x.site.ask(Ask { method: "GET", path: "/v1/models", ..Ask::default() }).await;
    answer.is_ok_and(|a| matches!(a.status, 401 | 403))
}

/// `false` when the doctor does not get in, so that nothing further can be said.
pub async fn models(x: &mut Examination) -> bool {
    let ask = Ask { method: "GET", path: "/v1/models", token: x.token.as_deref(), ..Ask::default() };
    let why = match x.site.ask(ask).await {
        Err(why) => Some(why),
        Ok(answer) if matches!(answer.status, 401 | 403) => {
            let token = if x.token.is_some() { "the token" } else { "no token" };
            let why = format!("with {token} GET /v1/models is answered {}", answer.status);
            x.report.fault(&CLIENTS, "models", why, "set LLMPROXY_TOKEN to a token that the site knows");
            return false;
        }
        Ok(answer) => {
            let list = answer.json();
            let entries = list["data"].as_array();
            if answer.status != 200 {
                Some(format!("GET /v1/models is answered {}: {}", answer.status, answer.beginning()))
            } else if answer.body.is_empty() {
                Some("GET /v1/models is answered 200 with nothing: no route of the site is for it".to_owned())
            } else if !entries.is_some_and(|all| all.iter().all(|m| m["id"].is_string())) {
                Some(format!("GET /v1/models is no list of models: {}", answer.beginning()))
            } else if entries.is_some_and(Vec::is_empty) {
                Some("the list of models is empty".to_owned())
            } else {
                None
            }
        }
    };
    x.report.judge(
        &[SDK, CURSOR, CONTINUE],
        "models",
        why,
        "`models`, or a `reverse_proxy` that reaches the upstream's list",
    );
    true
}

/// OPTIONS without a token is answered by the gateway, and not sent on with its key.
pub async fn options(x: &mut Examination) {
    const FIX: &str = "`auth_token` for OPTIONS too (and `cors` for pages that may ask)";
    if !locked(x).await {
        return x.report.skip(&[GATEWAY], "options", "requests without a token come in anyway");
    }
    let mark = x.upstream.as_ref().map(super::upstream::Upstream::mark);
    let preflight = [
        ("origin", "https://doctor.invalid"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let mut why = None;
    for headers in [&preflight[..], &[]] {
        let answer =
            x.site.ask(Ask { method: "OPTIONS", path: "/v1/chat/completions", headers, ..Ask::default() }).await;
        // Headers that only the API itself sets.
        let from_api = ["openai-version", "openai-processing-ms", "openai-organization", "anthropic-organization-id"];
        if answer.is_ok_and(|a| from_api.iter().any(|name| a.headers.contains_key(*name))) {
            why = Some("OPTIONS without a token is answered by the upstream".to_owned());
        }
    }
    if let (Some(upstream), Some(mark)) = (&x.upstream, mark)
        && let Some(seen) = upstream.since(mark).iter().find(|r| r.method == "OPTIONS")
    {
        let key = if seen.header("authorization").is_some() { ", with the upstream's key" } else { "" };
        why = Some(format!("OPTIONS without a token is sent to the upstream{key}"));
    }
    x.report.judge(&[GATEWAY], "options", why, FIX);
}

/// A chat, whole and streamed. With the doctor as upstream, every character of it is compared.
pub async fn chat(x: &mut Examination) {
    let Some(model) = x.model.clone() else {
        return x.report.skip(&[SDK], "chat", "costs tokens: name a model with --model");
    };
    let ours = x.upstream.is_some();
    let mark = x.upstream.as_ref().map(super::upstream::Upstream::mark);
    let answer = ask_chat(x, &model, "doctor-chat", false).await;
    if let Ok(answer) = &answer
        && let Some(why) = model_refused(answer, &model)
    {
        // The checks to come would blame one thing after the other for it.
        x.model = None;
        return x.report.fault(&[SDK], "chat", why, "--model NAME, one that the site serves and the token may use");
    }
    if let (Some(upstream), Some(mark)) = (&x.upstream, mark)
        && upstream.since(mark).is_empty()
    {
        let shown = answer.map_or_else(|why| why, |a| format!("answered {}: {}", a.status, a.beginning()));
        let why = format!("a chat does not come to the doctor's upstream: {shown}");
        return x.report.fault(
            &[SDK],
            "chat",
            why,
            "point `reverse_proxy` at --upstream-listen, and set LLMPROXY_TOKEN",
        );
    }
    let why = match answer {
        Err(why) => Some(why),
        Ok(answer) => whole_fault(&answer, ours),
    };
    x.report.judge(&[SDK, CURSOR], "chat", why, "leave bodies alone, or edit them as JSON (`cursor_compat` does)");
    match ask_chat(x, &model, "doctor-chat", true).await {
        Err(why) => x.report.fault(&[SDK], "stream", why, ""),
        Ok(answer) => {
            let fix = "no compression, no buffering and no edits of the text of a stream; `cursor_compat` edits events";
            x.report.judge(&[SDK, CURSOR], "stream", stream_fault(&answer, ours), fix);
        }
    }
}

/// The site has rules about models, and this is none of its models.
fn model_refused(answer: &Answer, model: &str) -> Option<String> {
    let told = answer.json();
    let code = told["error"]["code"].as_str().filter(|c| matches!(*c, "model_not_allowed" | "model_not_found"))?;
    Some(format!("a chat with the model `{model}` is answered {} {code}: nothing more can be tried", answer.status))
}

/// A question about `topic`, which the doctor's upstream looks at.
pub async fn ask_chat(x: &Examination, model: &str, topic: &str, stream: bool) -> Result<Answer, String> {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": topic}]});
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    let ask = Ask { method: "POST", path: "/v1/chat/completions", body: Some(body.to_string()), ..Ask::default() };
    x.site.ask(Ask { token: x.token.as_deref(), ..ask }).await
}

fn whole_fault(answer: &Answer, ours: bool) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("a chat is answered {}: {}", answer.status, answer.beginning()));
    }
    if !answer.complete {
        return Some("the answer of a chat is cut (is a wrong Content-Length kept?)".to_owned());
    }
    let body = answer.json();
    let message = &body["choices"][0]["message"];
    let Some(content) = message["content"].as_str() else {
        return Some(format!("the answer of a chat is none: {}", answer.beginning()));
    };
    if ours && (content != TEXT.concat() || message["x_doctor"] != unknown_object()) {
        return Some(
            "text inside an answer is rewritten: what looks like a field was removed from its content".to_owned(),
        );
    }
    None
}

fn stream_fault(answer: &Answer, ours: bool) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("a streamed chat is answered {}: {}", answer.status, answer.beginning()));
    }
    if let Some(encoding) = answer.header("content-encoding") {
        return Some(format!("the stream is compressed ({encoding}) though nobody asked for that"));
    }
    let kind = answer.header("content-type").unwrap_or("nothing");
    if !kind.starts_with("text/event-stream") {
        return Some(format!("the stream is of type {kind}, not text/event-stream"));
    }
    let (events, done) = answer.events();
    if events.iter().any(Value::is_null) {
        return Some("an event of the stream is no JSON any more".to_owned());
    }
    if !done || !answer.complete {
        return Some("the stream does not end with [DONE]".to_owned());
    }
    if !ours {
        return None;
    }
    if answer.body.windows(3).any(|w| w == "\u{fffd}".as_bytes()) || std::str::from_utf8(&answer.body).is_err() {
        return Some(
            "a character of several bytes that comes in two reads is damaged (UTF-8 decoded read by read)".to_owned(),
        );
    }
    let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    if text != TEXT.concat() {
        return Some(
            "text inside a stream is rewritten: what looks like a field was removed from its content".to_owned(),
        );
    }
    // A filter that works on reads misses what is split over two.
    let choices: Vec<&Value> = events.iter().filter_map(|e| e["choices"].get(0)).collect();
    let with_null = choices.iter().filter(|c| c.get("finish_reason").is_some_and(Value::is_null)).count();
    let without = choices.iter().filter(|c| c.get("finish_reason").is_none()).count();
    if with_null > 0 && without > 0 {
        return Some(format!(
            "`\"finish_reason\":null` is taken out of {without} events and missed in {with_null}: where two reads part it"
        ));
    }
    (answer.spread.as_millis() < 100).then(|| "the stream is held back and comes all at once".to_owned())
}
