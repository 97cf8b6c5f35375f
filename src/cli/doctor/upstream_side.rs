//! What only the upstream can tell: what goes up, over how many connections, and what becomes of its refusals.

use std::time::Duration;

use serde_json::json;

use super::Examination;
use super::gateway::{ask_chat, locked};
use super::report::{CLIENTS, GATEWAY, SDK};
use super::site::Ask;
use super::upstream::RETRY_AFTER;

/// From the documentation range, so nobody's.
const FORGED: &str = "203.0.113.77";

/// Requests in a row, over one connection of the client.
const IN_A_ROW: usize = 8;

pub async fn check(x: &mut Examination) {
    let (Some(upstream), Some(model)) = (x.upstream.take(), x.model.clone()) else {
        let why = "it takes a chat that the upstream sees: --upstream-listen or a rehearsal, and --model";
        for name in ["forwarded-for", "token-up", "connections", "cancel", "unreachable"] {
            x.report.skip(&[GATEWAY], name, why);
        }
        return;
    };
    // A client that says it is somebody else.
    let mark = upstream.mark();
    let body = json!({"model": model, "messages": [{"role": "user", "content": "doctor-forwarded"}]}).to_string();
    let headers = [("x-forwarded-for", FORGED), ("x-real-ip", FORGED), ("forwarded", "for=203.0.113.77")];
    let ask = Ask { method: "POST", path: "/v1/chat/completions", headers: &headers, ..Ask::default() };
    let _ = x.site.ask(Ask { token: x.token.as_deref(), body: Some(body), ..ask }).await;
    let seen = upstream.since(mark);
    let leaked = seen.iter().find_map(|r| r.header("x-forwarded-for").filter(|v| v.contains(FORGED)));
    let why = leaked.map(|_| "the X-Forwarded-For that a client sends goes up to the API".to_owned());
    let fix = "`reverse_proxy` takes it off, unless `trusted_proxies` names the client; `header_up -X-Forwarded-For` sends none";
    x.report.judge(&[GATEWAY], "forwarded-for", why, fix);

    // One connection of the client, one of the upstream.
    let mark = upstream.mark();
    for _ in 0..IN_A_ROW {
        let _ = ask_chat(x, &model, "doctor-row", false).await;
    }
    let row = upstream.since(mark);
    let mut connections: Vec<usize> = row.iter().map(|r| r.connection).collect();
    connections.sort_unstable();
    connections.dedup();
    let wasteful = row.len() > 1 && connections.len() >= row.len();
    let why = wasteful.then(|| format!("{} requests in a row took {} connections", row.len(), connections.len()));
    x.report.judge(&[GATEWAY], "connections", why, "`keepalive` on for the transport (it is by default)");

    rate_limit(x, &model).await;

    // A client that leaves.
    let body = json!({"model": model, "messages": [{"role": "user", "content": "doctor-endless"}], "stream": true})
        .to_string();
    let ask = Ask { method: "POST", path: "/v1/chat/completions", leave_after: Some(2), ..Ask::default() };
    let left = upstream.left();
    let answered = x.site.ask(Ask { token: x.token.as_deref(), body: Some(body), ..ask }).await;
    for _ in 0..300 {
        if upstream.left() > left {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let goes_on = answered.is_ok_and(|a| a.status == 200) && upstream.left() == left;
    let why = goes_on.then(|| "a client that leaves does not stop the upstream, which bills on".to_owned());
    x.report.judge(&[GATEWAY], "cancel", why, "`reverse_proxy` stops it");

    let locked = locked(x).await;
    secrets(x, locked, &upstream.since(0));

    upstream.close().await;
    let fix = "`reverse_proxy` answers 502 in the caller's dialect; let `handle_errors` not turn it into text";
    let why = match ask_chat(x, &model, "doctor-unreachable", false).await {
        Err(why) => Some(why),
        Ok(answer) if !matches!(answer.status, 502..=504) => Some(format!(
            "an upstream that cannot be reached is answered {}, not 502: {}",
            answer.status,
            answer.beginning()
        )),
        Ok(answer) => (!answer.has_openai_error()).then(|| {
            format!("an upstream that cannot be reached is no error object of the API: {}", answer.beginning())
        }),
    };
    x.report.judge(&CLIENTS, "unreachable", why, fix);
}

async fn rate_limit(x: &mut Examination, model: &str) {
    let why = match ask_chat(x, model, "doctor-429", false).await {
        Err(why) => Some(why),
        Ok(answer) if answer.status != 429 => Some(format!("429 of the upstream becomes {}", answer.status)),
        Ok(answer) if answer.header("retry-after") != Some(RETRY_AFTER) => {
            Some("429 loses its Retry-After: SDKs then guess when to ask again".to_owned())
        }
        Ok(answer) => (!answer.has_openai_error()).then(|| "429 loses its error object".to_owned()),
    };
    x.report.judge(&[SDK], "rate-limit", why, "let the upstream's refusals pass");
}

/// The client's token never goes up, the upstream's key never comes down.
fn secrets(x: &mut Examination, locked: bool, seen: &[super::upstream::Seen]) {
    match x.token.clone() {
        None => x.report.skip(&[GATEWAY], "token-up", "no token was given"),
        Some(_) if !locked => {
            x.report.skip(&[GATEWAY], "token-up", "the gateway asks for none, and passes the client's own key");
        }
        Some(token) => {
            let place = seen.iter().find_map(|r| r.place_of(&token));
            let why = place.map(|place| format!("the client's token goes up, in {place}"));
            x.report.judge(
                &[GATEWAY],
                "token-up",
                why,
                "`auth_token`, which takes it off; `header_up Authorization` sets the upstream's",
            );
        }
    }
    let keys = seen.iter().filter_map(|r| r.header("authorization").or_else(|| r.header("x-api-key")));
    let told = keys.map(|k| k.trim_start_matches("Bearer ")).filter(|k| k.len() > 5).any(|key| x.site.has_told(key));
    let why = told.then(|| "the upstream's key is in an answer to a client".to_owned());
    x.report.judge(&[GATEWAY], "key-down", why, "find the header or error page that shows it");
}
