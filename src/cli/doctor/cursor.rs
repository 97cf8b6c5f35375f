//! What Cursor asks and expects with "Override OpenAI Base URL".

use serde_json::{Value, json};

use super::Examination;
use super::gateway::ask_chat;
use super::report::CURSOR;
use super::site::{Answer, Ask};
use super::upstream::Upstream;

const FIX: &str = "`cursor_compat`";

pub async fn check(x: &mut Examination) {
    public(x);
    preflight(x).await;
    let Some(model) = x.model.clone() else {
        return x.report.skip(&[CURSOR], "cursor-chat", "costs tokens: name a model with --model");
    };
    match ask_chat(x, &model, "doctor-chat", true).await {
        Err(why) => x.report.fault(&[CURSOR], "cursor-stream", why, FIX),
        Ok(answer) => x.report.judge(&[CURSOR], "cursor-stream", stream_fault(&answer), FIX),
    }
    responses_shape(x, &model).await;
}

/// Cursor's servers ask, not the app.
fn public(x: &mut Examination) {
    let local = x.site.name == "localhost" || x.site.name.parse::<std::net::IpAddr>().is_ok_and(is_private);
    if x.rehearsed {
        return;
    }
    if local || !x.site.https {
        let why = "Cursor's servers ask, so the URL must be public and https".to_owned();
        x.report.warn(&[CURSOR], "public", why, "a site with a public name: certificates come by themselves");
    }
}

fn is_private(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Older desktop versions check the key from the app itself.
async fn preflight(x: &mut Examination) {
    let headers = [
        ("origin", "vscode-file://vscode-app"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = x.site.ask(Ask { method: "OPTIONS", path: "/v1/models", headers: &headers, ..Ask::default() }).await;
    if answer.is_ok_and(|a| a.status < 300 && a.headers.contains_key("access-control-allow-origin")) {
        x.report.ok(&[CURSOR], "preflight");
    } else {
        let why = "a CORS preflight gets no permission: the key check of older desktop versions fails".to_owned();
        x.report.warn(&[CURSOR], "preflight", why, "`cors`");
    }
}

/// One finish reason, after it at most the usage, then `[DONE]`; and no fields that say null.
fn stream_fault(answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("a streamed chat is answered {}: {}", answer.status, answer.beginning()));
    }
    let (events, done) = answer.events();
    let choice = |e: &Value| e["choices"].get(0).cloned().unwrap_or_default();
    let null = |e: &Value| {
        choice(e).get("finish_reason").is_some_and(Value::is_null) || e.get("usage").is_some_and(Value::is_null)
    };
    if events.iter().any(null) {
        return Some("events of the stream hold `\"finish_reason\":null` or `\"usage\":null`".to_owned());
    }
    let finishes: Vec<usize> =
        events.iter().enumerate().filter(|(_, e)| choice(e)["finish_reason"].is_string()).map(|(i, _)| i).collect();
    let [finish] = finishes[..] else {
        return Some(format!("the stream has {} finish reasons, Cursor wants one", finishes.len()));
    };
    if events[finish + 1..].iter().any(|e| !e["usage"].is_object()) {
        return Some("something else than the usage follows the finish reason".to_owned());
    }
    (!done).then(|| "the stream does not end with [DONE]".to_owned())
}

/// In agent mode it sends a Responses body to the chat path, and wants chunks of a chat.
async fn responses_shape(x: &mut Examination, model: &str) {
    let body = json!({
        "model": model, "stream": true, "input": [{"role": "user", "content": "doctor-chat"}],
        "tools": [{"type": "function", "name": "look", "description": "d", "parameters": {"type": "object", "properties": {}}}],
        "reasoning": {"effort": "low"}, "metadata": {"cursorConversationId": "doctor"},
    });
    let mark = x.upstream.as_ref().map(Upstream::mark);
    let ask = Ask { method: "POST", path: "/v1/chat/completions", body: Some(body.to_string()), ..Ask::default() };
    let answer = x.site.ask(Ask { token: x.token.as_deref(), ..ask }).await;
    let mut fault = match answer {
        Err(why) => Some(why),
        Ok(answer) if answer.status != 200 => {
            Some(format!("a Responses body on the chat path is answered {}: {}", answer.status, answer.beginning()))
        }
        Ok(answer) => {
            let (events, _) = answer.events();
            let chunks = events.iter().all(|e| e["object"] == "chat.completion.chunk");
            (events.is_empty() || !chunks)
                .then(|| "a Responses body on the chat path is not answered with chunks of a chat".to_owned())
        }
    };
    if let (None, Some(upstream), Some(mark)) = (&fault, &x.upstream, mark) {
        let sent = upstream
            .since(mark)
            .pop()
            .map(|r| (r.target, serde_json::from_slice::<Value>(&r.body).unwrap_or_default()));
        if let Some((target, sent)) = sent
            && target.contains("/chat/completions")
            && sent["messages"].as_array().is_none_or(Vec::is_empty)
        {
            fault = Some("a Responses body on the chat path goes up as it is, and the API refuses it".to_owned());
        }
    }
    x.report.judge(&[CURSOR], "cursor-agent", fault, FIX);
}
