//! A record as a person reads it, and as JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::load::{Body, Record, Side, header};
use super::safe;
use crate::llm::readable::{self, Readable};
use crate::telemetry::transcript::Line;

/// Shorter pauses in a stream are not worth a word.
const GAP: f64 = 1.0;

/// One line of a folder's list.
pub fn entry(record: &Record, name: &str) -> String {
    let request = record.client.request.as_ref();
    let method = request.and_then(|r| r.method.as_deref()).unwrap_or("-");
    let target = request.and_then(|r| r.target.as_deref()).unwrap_or("-");
    let status = status(&record.client).map_or("---".to_owned(), |s| s.to_string());
    let took = record.end.as_ref().map_or("under way".to_owned(), |end| format!("{:.3} s", end.at));
    let user = record.user.as_deref().map(|u| format!("  user {u}")).unwrap_or_default();
    let notes = notes(record);
    let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join("; ")) };
    format!("{}\n", safe::line(&format!("{name}  {status}  {took:>9}  {method} {target}{user}{notes}")))
}

pub fn json_entry(record: &Record, name: &str) -> String {
    let request = record.client.request.as_ref();
    let entry = json!({
        "file": name,
        "id": record.id,
        "time": record.time,
        "user": record.user,
        "method": request.and_then(|r| r.method.as_deref()),
        "target": request.and_then(|r| r.target.as_deref()),
        "status": status(&record.client),
        "seconds": record.end.as_ref().map(|end| end.at),
        "notes": notes(record),
    });
    safe::json(&format!("{entry}\n"))
}

pub fn json(record: &Record) -> String {
    let value = json!({
        "id": record.id,
        "time": record.time,
        "user": record.user,
        "seconds": record.end.as_ref().map(|end| end.at),
        "notes": notes(record),
        "client": side_json(&record.client),
        "upstreams": record.upstreams.iter().map(side_json).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&value).map(|text| safe::json(&text) + "\n").unwrap_or_default()
}

/// `raw`: every piece of a body with its time, in place of what it says.
pub fn text(record: &Record, raw: bool) -> String {
    let mut out = format!("{}  request {}", safe::line(&record.time), safe::line(&record.id));
    if let Some(user) = &record.user {
        out += &format!("  user {}", safe::line(user));
    }
    out.push('\n');
    for note in notes(record) {
        out += &format!("! {}\n", safe::line(&note));
    }
    let peer = |side: &Side| safe::line(side.request.as_ref().and_then(|r| r.peer.as_deref()).unwrap_or("?"));
    let client = &record.client;
    title(&mut out, &format!("request of the client {}", peer(client)));
    request(&mut out, client, None, raw);
    for side in &record.upstreams {
        title(&mut out, &format!("request to the upstream {}", peer(side)));
        request(&mut out, side, Some(&client.sent), raw);
        title(&mut out, &format!("answer of the upstream {}", peer(side)));
        response(&mut out, side, Some(&client.received), raw);
    }
    title(&mut out, "answer to the client");
    response(&mut out, client, None, raw);
    out
}

fn title(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n=== {text} ===");
}

fn request(out: &mut String, side: &Side, same_as: Option<&Body>, raw: bool) {
    let Some(head) = &side.request else {
        out.push_str("(not recorded)\n");
        return;
    };
    let text = |field: &Option<String>| safe::line(field.as_deref().unwrap_or("-"));
    let _ = writeln!(out, "{} {} {}", text(&head.method), text(&head.target), text(&head.version));
    headers(out, head);
    body(out, Some(head), &side.sent, same_as, raw, "as the client sent it");
}

fn response(out: &mut String, side: &Side, same_as: Option<&Body>, raw: bool) {
    for error in &side.errors {
        let _ = writeln!(out, "error after {:.3} s: {}", error.at, safe::line(error.error.as_deref().unwrap_or("")));
    }
    let Some(head) = &side.response else {
        if side.errors.is_empty() {
            out.push_str("(none)\n");
        }
        return;
    };
    let _ = writeln!(out, "{} after {:.3} s", head.status.unwrap_or(0), head.at);
    headers(out, head);
    body(out, Some(head), &side.received, same_as, raw, "as the client got it");
}

fn headers(out: &mut String, head: &Line) {
    for (name, value) in head.headers.iter().flatten() {
        let _ = writeln!(out, "{}: {}", safe::line(name), safe::line(value));
    }
}

fn body(out: &mut String, head: Option<&Line>, body: &Body, same_as: Option<&Body>, raw: bool, as_other: &str) {
    let Some(head) = head else { return };
    if body.is_empty() && body.end.as_ref().is_none_or(|end| end.bytes == Some(0)) {
        return;
    }
    let _ = writeln!(out, "\n{}", timeline(head, body));
    if raw {
        for (at, data) in &body.pieces {
            let _ = writeln!(out, "+{at:.3} {}", safe::line(&String::from_utf8_lossy(data)));
        }
        return;
    }
    if same_as.is_some_and(|other| !other.is_empty() && other.bytes() == body.bytes()) {
        let _ = writeln!(out, "({as_other})");
        return;
    }
    let bytes = Side::readable(Some(head), body);
    let kind = header(head, "content-type").unwrap_or("");
    // A request's JSON is read as it is; an answer's is read for what it says, too.
    let said = head.status.and_then(|_| readable::read(kind, &bytes));
    match said {
        Some(said) if said.is_worth_it() => {
            if kind.contains("json") && !kind.contains("ndjson") {
                out.push_str(&pretty(&bytes));
            }
            spoken(out, &said);
        }
        _ => out.push_str(&pretty(&bytes)),
    }
}

/// JSON indented, all else as it is.
fn pretty(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    let mut text = safe::lines(&if is_json { indented(&text) } else { text.into_owned() });
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A valid JSON text with line ends and indentation, and every name, number and order as it was: what is looked at is
/// what was sent.
fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        // Deeper than a screen is wide, more blanks say nothing.
        out.extend(std::iter::repeat_n("  ", depth.min(40)));
    };
    let mut rest = text.trim_start().chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = rest.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// When the pieces came and how it ended.
fn timeline(head: &Line, body: &Body) -> String {
    let mut out = String::new();
    if let (Some((first, _)), Some((last, _))) = (body.pieces.first(), body.pieces.last()) {
        let count = body.pieces.len();
        let pieces = if count == 1 { "1 piece".to_owned() } else { format!("{count} pieces in {:.3} s", last - first) };
        let _ = write!(out, "{pieces}, {} bytes, the first after {first:.3} s", body.len());
    }
    let times = std::iter::once(head.at).chain(body.pieces.iter().map(|(at, _)| *at));
    let gaps = times.clone().zip(times.skip(1)).map(|(before, after)| (after - before, before));
    if let Some((pause, at)) = gaps.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(pause, _)| *pause >= GAP) {
        let _ = write!(out, "; longest pause {pause:.3} s from {at:.3} s");
    }
    let end = match &body.end {
        None => "; no end recorded".to_owned(),
        Some(end) => match end.how.as_deref() {
            Some("complete") => format!("; complete after {:.3} s", end.at),
            Some("gone") => format!("; cut after {:.3} s: the reader left", end.at),
            _ => format!("; broken after {:.3} s: {}", end.at, safe::line(end.error.as_deref().unwrap_or("?"))),
        },
    };
    format!("[{}]", (out + &end).trim_start_matches("; "))
}

fn spoken(out: &mut String, said: &Readable) {
    let events = if said.events == 1 { String::new() } else { format!("{} events", said.events) };
    let mut facts = Vec::from_iter((!events.is_empty()).then_some(events));
    facts.extend(said.model.as_ref().map(|m| format!("model {m}")));
    facts.extend(said.usage.as_ref().map(|u| format!("usage {u}")));
    if !said.finished {
        facts.push("the stream's own end is missing".to_owned());
    }
    if said.unreadable > 0 {
        facts.push(format!("{} events are no JSON", said.unreadable));
    }
    if !facts.is_empty() {
        let _ = writeln!(out, "[{}]", safe::line(&facts.join(", ")));
    }
    for error in &said.errors {
        let _ = writeln!(out, "error in the answer: {}", safe::line(error));
    }
    let many = said.choices.len() > 1;
    for (index, choice) in &said.choices {
        if many {
            let _ = writeln!(out, "--- choice {index} ---");
        }
        if !choice.reasoning.is_empty() {
            let _ = writeln!(out, "--- reasoning ---\n{}", safe::lines(&choice.reasoning));
        }
        if !choice.text.is_empty() {
            let _ = writeln!(out, "--- text ---\n{}", safe::lines(&choice.text));
        }
        for call in choice.tool_calls.values() {
            let _ = writeln!(out, "--- call of {} ---\n{}", safe::line(&call.name), safe::lines(&call.arguments));
        }
        if !choice.finish_reasons.is_empty() {
            let _ = writeln!(out, "--- finished: {} ---", safe::line(&choice.finish_reasons.join(", ")));
        }
    }
}

fn status(side: &Side) -> Option<u16> {
    side.response.as_ref().and_then(|r| r.status)
}

/// What a reader should know of the record as a whole.
fn notes(record: &Record) -> Vec<String> {
    let mut notes = Vec::new();
    match &record.end {
        None => notes.push("this record has no end: the request is under way, or llmproxy was stopped".to_owned()),
        Some(end) => {
            if let Some(gaps) = end.gaps {
                notes.push(format!("{gaps} events are missing: the disk did not keep up"));
            }
            if end.truncated {
                notes.push("truncated: there was more than a record may hold".to_owned());
            }
        }
    }
    let retries = record.upstreams.len().saturating_sub(1);
    if retries > 0 {
        notes.push(format!("{} attempts", retries + 1));
    }
    match record.client.received.end.as_ref().and_then(|e| e.how.as_deref()) {
        Some("gone") => notes.push("the client left before the end".to_owned()),
        Some("failed") => notes.push("the answer broke off".to_owned()),
        _ => {}
    }
    notes
}

fn side_json(side: &Side) -> Value {
    let said = side.response.as_ref().and_then(|head| {
        readable::read(header(head, "content-type").unwrap_or(""), &Side::readable(Some(head), &side.received))
    });
    json!({
        "peer": side.request.as_ref().and_then(|r| r.peer.as_deref()),
        "request": side.request.as_ref().map(|head| json!({
            "method": head.method, "target": head.target, "version": head.version, "headers": head.headers,
            "body": body_json(Some(head), &side.sent),
        })),
        "response": side.response.as_ref().map(|head| json!({
            "status": head.status, "seconds": head.at, "headers": head.headers,
            "body": body_json(Some(head), &side.received), "says": said,
        })),
        "errors": side.errors.iter().filter_map(|e| e.error.as_deref()).collect::<Vec<_>>(),
    })
}

fn body_json(head: Option<&Line>, body: &Body) -> Value {
    let bytes = Side::readable(head, body);
    let content =
        serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    json!({
        "content": content,
        "pieces": body.pieces.len(),
        "first_seconds": body.pieces.first().map(|(at, _)| at),
        "last_seconds": body.pieces.last().map(|(at, _)| at),
        "bytes": body.end.as_ref().and_then(|e| e.bytes),
        "end": body.end.as_ref().and_then(|e| e.how.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_json_says_what_was_sent() {
        let text = r#" {"z":1.50,"a":[ ],"a":{"k":"x,\"}:y"}, "n":[1,2] } "#;
        let out = indented(text);
        assert_eq!(
            out,
            "{\n  \"z\": 1.50,\n  \"a\": [],\n  \"a\": {\n    \"k\": \"x,\\\"}:y\"\n  },\n  \"n\": [\n    1,\n    2\n  ]\n}"
        );
        assert_eq!(pretty(b"{not json\x1b"), "{not json\\u{1b}\n");
    }

    #[test]
    fn a_timeline_tells_pauses_and_ends() {
        let head = Line { at: 0.5, ..Line::default() };
        let end = |how: &str| Some(Line { at: 9.0, how: Some(how.to_owned()), ..Line::default() });
        let body = Body { pieces: vec![(0.6, vec![0; 3]), (4.6, vec![0; 2])], end: end("gone") };
        let said = timeline(&head, &body);
        let expected = "[2 pieces in 4.000 s, 5 bytes, the first after 0.600 s; longest pause 4.000 s from 0.600 s; \
                        cut after 9.000 s: the reader left]";
        assert_eq!(said, expected);
        let body = Body { pieces: Vec::new(), end: end("complete") };
        assert_eq!(timeline(&head, &body), "[complete after 9.000 s]");
    }
}
