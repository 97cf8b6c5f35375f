//! What the clients of the Ollama API ask before the first word: version, models, what each model can do; then a chat.

use serde_json::{Value, json};

use super::Examination;
use super::gateway::locked;
use super::report::{CONTINUE, COPILOT, GATEWAY, OPEN_WEBUI, ZED};
use super::site::{Answer, Ask};
use super::upstream::{TEXT, Upstream};

const FIX: &str = "`ollama_compat` in the Proxyfile; if it is there under a path, name that with --ollama-path";

/// Copilot refuses older servers.
const COPILOT_NEEDS: [u64; 3] = [0, 6, 4];

pub async fn discovery(x: &mut Examination) {
    // Copilot sends no Authorization with these; the others do when they have a key.
    let open = match get(x, "/api/version", false).await {
        Ok(answer) if matches!(answer.status, 401 | 403) => {
            let why = format!(
                "GET {}/api/version is answered {} without a token, and Copilot sends none",
                x.ollama, answer.status
            );
            x.report.fault(
                &[COPILOT],
                "copilot-key",
                why,
                "`secret NAME PATH` in `ollama_compat`, and that path in Copilot's URL",
            );
            false
        }
        _ => {
            x.report.ok(&[COPILOT], "copilot-key");
            true
        }
    };
    if let (Ok(version), Ok(tags)) = (get(x, "/api/version", !open).await, get(x, "/api/tags", !open).await)
        && matches!((version.status, tags.status), (404 | 405, 404 | 405))
    {
        let place = if x.ollama.is_empty() { "at the root of the site" } else { &x.ollama };
        let why = format!("there is no Ollama API {place}");
        x.report.fault(&[COPILOT, ZED, OPEN_WEBUI, CONTINUE], "ollama", why, FIX);
        x.no_ollama = true;
        return;
    }
    let version = get(x, "/api/version", !open).await;
    let fault = version_fault(version);
    x.report.judge(&[COPILOT, OPEN_WEBUI], "version", fault, FIX);

    let tags = get(x, "/api/tags", !open).await.map(|a| (a.status, a.json(), a.beginning()));
    let listed = match &tags {
        Ok((200, body, _)) => body["models"].as_array().cloned().unwrap_or_default(),
        _ => Vec::new(),
    };
    if listed.is_empty() {
        let why = match tags {
            Ok((status, _, beginning)) => format!("GET {}/api/tags lists no model ({status}): {beginning}", x.ollama),
            Err(why) => why,
        };
        x.report.fault(&[COPILOT, ZED, OPEN_WEBUI, CONTINUE], "tags", why, FIX);
        return;
    }
    let missing = missing_in(&listed, &["model"]);
    x.report.judge(&[COPILOT], "tags", missing, FIX);
    let missing = missing_in(&listed, &["name", "model"]);
    x.report.judge(&[OPEN_WEBUI, CONTINUE], "tags", missing, FIX);
    let missing = missing_in(&listed, &ZED_FIELDS);
    x.report.judge(&[ZED], "tags", missing.map(|m| format!("{m}; Zed drops the whole list")), FIX);

    let id = listed[0]["model"].as_str().or_else(|| listed[0]["name"].as_str()).unwrap_or_default().to_owned();
    show(x, &id, open).await;
    let wanted = x.model.clone().unwrap_or_default();
    let mut ids = listed.iter().filter_map(|entry| entry["model"].as_str());
    x.listed = ids.find(|id| id.split(':').next() == wanted.split(':').next()).map(ToOwned::to_owned);
    let ps = get(x, "/api/ps", !open).await;
    let fault = match ps {
        Ok(answer) if answer.status == 200 && answer.json()["models"].is_array() => None,
        Ok(answer) => Some(format!("GET {}/api/ps is answered {}: {}", x.ollama, answer.status, answer.beginning())),
        Err(why) => Some(why),
    };
    x.report.judge(&[OPEN_WEBUI], "ps", fault, FIX);
    if open {
        scope(x).await;
    }
}

/// What Zed cannot do without, as pointers into an entry.
const ZED_FIELDS: [&str; 8] = [
    "name",
    "modified_at",
    "size",
    "digest",
    "details/format",
    "details/family",
    "details/parameter_size",
    "details/quantization_level",
];

fn missing_in(entries: &[Value], fields: &[&str]) -> Option<String> {
    let has = |entry: &Value, field: &str| {
        entry.pointer(&format!("/{field}")).is_some_and(|v| if field == "size" { v.is_u64() } else { v.is_string() })
    };
    let missing: Vec<&str> = fields.iter().filter(|f| !entries.iter().all(|e| has(e, f))).copied().collect();
    (!missing.is_empty()).then(|| format!("entries of /api/tags lack {}", missing.join(", ")))
}

fn version_fault(answer: Result<Answer, String>) -> Option<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Some(why),
    };
    let body = answer.json();
    let Some(version) = body["version"].as_str().filter(|_| answer.status == 200) else {
        let shown = answer.beginning();
        return Some(format!("no /api/version (answered {}: {shown}): Copilot then lists no model", answer.status));
    };
    let numbers: Option<Vec<u64>> = version.split('.').map(|n| n.parse().ok()).collect();
    match numbers {
        None => Some(format!("the version {version:?} is not digits and dots")),
        Some(n) if n.iter().any(|part| *part > 0) && n[..] < COPILOT_NEEDS[..] => {
            Some(format!("the version {version} is older than the 0.6.4 that Copilot asks for"))
        }
        Some(_) => None,
    }
}

async fn show(x: &mut Examination, id: &str, open: bool) {
    let shown = match post(x, "/api/show", &json!({"model": id}), !open).await {
        Ok(answer) if answer.status == 200 => answer.json(),
        Ok(answer) => {
            let why =
                format!("POST {}/api/show of {id} is answered {}: {}", x.ollama, answer.status, answer.beginning());
            return x.report.fault(&[COPILOT, ZED, CONTINUE], "show", why, FIX);
        }
        Err(why) => return x.report.fault(&[COPILOT, ZED, CONTINUE], "show", why, FIX),
    };
    let capabilities = shown["capabilities"].as_array();
    let fault =
        capabilities.is_none().then(|| format!("/api/show of {id} has no capabilities: Copilot skips the model"));
    x.report.judge(&[COPILOT, ZED], "capabilities", fault, FIX);
    if capabilities.is_some_and(|all| !all.iter().any(|c| c == "tools")) {
        let why = format!("{id} has no `tools`: not for agents");
        x.report.warn(
            &[COPILOT],
            "tools",
            why,
            "`model GLOB { capabilities completion tools }` in `ollama_compat`, if it can",
        );
    }
    let architecture = shown["model_info"]["general.architecture"].as_str().unwrap_or_default();
    let context = shown["model_info"][format!("{architecture}.context_length")].as_u64().filter(|n| *n > 0);
    let fault = context.is_none().then(|| {
        format!("/api/show of {id} tells no context length (`{architecture}.context_length`): Copilot gives it 28,672 tokens of input")
    });
    x.report.judge(&[COPILOT], "context", fault, "`model GLOB { context TOKENS }` in `ollama_compat`");

    let by_name = post(x, "/api/show", &json!({"name": id}), !open).await;
    let fault = match by_name {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("/api/show by the old field `name` is answered {}", answer.status)),
        Err(why) => Some(why),
    };
    x.report.judge(&[CONTINUE], "show-by-name", fault, FIX);
    let nobody = post(x, "/api/show", &json!({"model": "llmproxy-doctor-no-such-model"}), !open).await;
    if nobody.is_ok_and(|a| a.status == 200) {
        let why = "/api/show answers for a model that does not exist: one body for every name".to_owned();
        x.report.warn(&[COPILOT, ZED], "show-any", why, FIX);
    }
}

/// A path that opens without a token must not open everything.
async fn scope(x: &mut Examination) {
    if !locked(x).await {
        return;
    }
    let mark = x.upstream.as_ref().map(Upstream::mark);
    let mut opened = None;
    for path in ["/v1/files", "/v1/fine_tuning/jobs"] {
        let path = format!("{}{path}", x.ollama);
        let answer = x.site.ask(Ask { method: "GET", path: &path, ..Ask::default() }).await;
        if answer.is_ok_and(|a| a.status == 200) {
            opened = Some(path);
        }
    }
    if let (Some(upstream), Some(mark)) = (&x.upstream, mark)
        && let Some(seen) = upstream.since(mark).first()
    {
        opened = Some(seen.target.clone());
    }
    let why = opened.map(|path| format!("without a token, {path} is open: whoever knows the path has the whole key"));
    x.report.judge(&[GATEWAY], "secret-scope", why, "`ollama_compat { secret NAME PATH }`, which opens inference only");
}

/// A chat as Ollama streams it, and Copilot's, which asks the OpenAI route on the same base.
pub async fn chat(x: &mut Examination) {
    if x.no_ollama {
        return;
    }
    let Some(model) = x.listed.clone().or_else(|| x.model.clone()).filter(|_| x.model.is_some()) else {
        return x.report.skip(
            &[COPILOT, ZED, OPEN_WEBUI, CONTINUE],
            "ollama-chat",
            "costs tokens: name a model with --model",
        );
    };
    let with_token = get(x, "/api/version", false).await.is_ok_and(|a| matches!(a.status, 401 | 403));
    let messages = json!([{"role": "user", "content": "doctor-chat"}]);
    let body = json!({"model": model, "messages": messages, "stream": true, "keep_alive": -1});
    let fault = match post(x, "/api/chat", &body, with_token).await {
        Err(why) => Some(why),
        Ok(answer) => lines_fault(&answer, x.upstream.is_some()),
    };
    x.report.judge(&[ZED, OPEN_WEBUI, CONTINUE], "ollama-chat", fault, FIX);

    let body = json!({"model": model, "messages": messages, "stream": true, "stream_options": {"include_usage": true}});
    // Copilot without a key sends the scheme alone.
    let (token, headers) =
        if with_token { (x.token.as_deref(), &[][..]) } else { (None, &[("authorization", "Bearer")][..]) };
    let path = format!("{}/v1/chat/completions", x.ollama);
    let ask = Ask { method: "POST", path: &path, token, headers, body: Some(body.to_string()), ..Ask::default() };
    let fault = match x.site.ask(ask).await {
        Err(why) => Some(why),
        Ok(answer) if answer.status != 200 => {
            Some(format!("POST {path} is answered {}: {}", answer.status, answer.beginning()))
        }
        Ok(answer) => (!answer.events().1).then(|| format!("POST {path} does not stream as OpenAI does")),
    };
    x.report.judge(&[COPILOT], "copilot-chat", fault, FIX);
}

fn lines_fault(answer: &Answer, ours: bool) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("POST /api/chat is answered {}: {}", answer.status, answer.beginning()));
    }
    let text = String::from_utf8_lossy(&answer.body);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    let whole = |l: &Value| {
        l["model"].is_string()
            && l["created_at"].is_string()
            && l["message"]["role"].is_string()
            && l["done"].is_boolean()
    };
    if lines.is_empty() || !lines.iter().all(whole) {
        return Some("a line of /api/chat lacks model, created_at, message.role or done".to_owned());
    }
    if lines.last().is_none_or(|l| l["done"] != true) {
        return Some("the stream of /api/chat does not end with done:true".to_owned());
    }
    let said: String = lines.iter().filter_map(|l| l["message"]["content"].as_str()).collect();
    (ours && said != TEXT.concat()).then(|| "the text of /api/chat is not what the upstream said".to_owned())
}

async fn get(x: &Examination, path: &str, with_token: bool) -> Result<Answer, String> {
    let path = format!("{}{path}", x.ollama);
    let token = x.token.as_deref().filter(|_| with_token);
    x.site.ask(Ask { method: "GET", path: &path, token, ..Ask::default() }).await
}

async fn post(x: &Examination, path: &str, body: &Value, with_token: bool) -> Result<Answer, String> {
    let path = format!("{}{path}", x.ollama);
    let token = x.token.as_deref().filter(|_| with_token);
    x.site.ask(Ask { method: "POST", path: &path, token, body: Some(body.to_string()), ..Ask::default() }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, String> {
        let body = body.as_bytes().to_vec();
        Ok(Answer { status, headers: http::HeaderMap::new(), body, spread: std::time::Duration::ZERO, complete: true })
    }

    #[test]
    fn versions_are_judged_as_copilot_and_open_webui_do() {
        for fine in ["0.6.4", "0.12.6", "1.0.0", "0.0.0"] {
            assert_eq!(version_fault(answer(200, &json!({"version": fine}).to_string())), None, "{fine}");
        }
        for bad in ["0.6.3", "0.5.99", "latest", "0.6.x", ""] {
            assert!(version_fault(answer(200, &json!({"version": bad}).to_string())).is_some(), "{bad}");
        }
        for (status, body) in [(404, "{\"version\":\"1.0.0\"}"), (200, "<html>"), (200, "{}"), (200, "{\"version\":1}")]
        {
            assert!(version_fault(answer(status, body)).is_some(), "{status} {body}");
        }
    }

    #[test]
    fn each_field_that_zed_needs_is_missed() {
        let entry = json!({
            "name": "m", "modified_at": "t", "size": 1, "digest": "d",
            "details": {"format": "f", "family": "f", "parameter_size": "1B", "quantization_level": "Q"},
        });
        assert_eq!(missing_in(std::slice::from_ref(&entry), &ZED_FIELDS), None);
        for field in ZED_FIELDS {
            let mut without = entry.clone();
            if let Some(place) = without.pointer_mut(&format!("/{field}")) {
                *place = Value::Null;
            }
            let told = missing_in(&[entry.clone(), without], &ZED_FIELDS).unwrap();
            assert!(told.ends_with(field), "{told}");
        }
    }

    #[test]
    fn lines_must_end_with_done() {
        let line = |done: bool| {
            let message = json!({"role": "assistant", "content": "x"});
            json!({"model": "m", "created_at": "t", "message": message, "done": done}).to_string()
        };
        let judge = |body: String| lines_fault(&answer(200, &body).unwrap(), false);
        assert_eq!(judge(format!("{}\n{}\n", line(false), line(true))), None);
        for bad in [format!("{}\n", line(false)), String::new(), format!("{}\n\n{}\n", line(false), line(true))] {
            assert!(judge(bad.clone()).is_some(), "{bad}");
        }
    }
}
