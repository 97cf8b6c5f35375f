//! How a conversation begins: what of its prompt stays the same while it grows, in any of the formats. Two requests with
//! one opening share the beginning of a provider's prompt cache.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use serde::Deserialize;

use super::peek;

/// Of a prompt that is one text so much counts: the text grows with the conversation.
const PLAIN_TEXT: usize = 1024;

/// The system prompt and the turns up to the first one of the user, or what the caller names as `prompt_cache_key`; at
/// most `limit` bytes of it, as they are written. `None` = there is no prompt. The body may be cut off behind.
#[must_use]
pub fn opening(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let names =
        ["prompt_cache_key", "system", "systemInstruction", "instructions", "messages", "input", "contents", "prompt"];
    let Ok([cache_key, system, instruction, instructions, messages, input, contents, prompt]) =
        peek::top_level(body, names)
    else {
        return of_a_part(body, limit);
    };
    let text = |range: Option<Range<usize>>| range.and_then(|r| body.get(r)).filter(|t| *t != b"null");
    let mut opening = Vec::new();
    if let Some(named) = text(cache_key) {
        add(&mut opening, named, limit);
        return Some(opening);
    }
    for part in [text(system), text(instruction), text(instructions)].into_iter().flatten() {
        add(&mut opening, part, limit);
    }
    if let Some(turns) = text(messages).or(text(input)).or(text(contents)).or(text(prompt)) {
        add(&mut opening, first_turns(turns), limit);
    }
    (!opening.is_empty()).then_some(opening)
}

/// Of a body too long to be read whole: from where the turns begin.
fn of_a_part(body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let names: [&[u8]; 4] = [b"\"messages\"", b"\"input\"", b"\"contents\"", b"\"prompt\""];
    let (at, name) = names.iter().find_map(|name| Some((memmem::find(body, name)?, name)))?;
    let value = body.get(at + name.len()..)?;
    let start = value.iter().position(|b| !b.is_ascii_whitespace() && *b != b':')?;
    let mut opening = Vec::new();
    add(&mut opening, first_turns(&value[start..]), limit);
    Some(opening)
}

fn add(opening: &mut Vec<u8>, part: &[u8], limit: usize) {
    let room = limit.saturating_sub(opening.len());
    opening.extend_from_slice(&part[..part.len().min(room)]);
}

#[derive(Deserialize)]
struct Turn<'t> {
    #[serde(borrow, default)]
    role: Option<Cow<'t, str>>,
}

/// The turns up to the first of the user; of a text its beginning.
fn first_turns(turns: &[u8]) -> &[u8] {
    let Some(mut at) = turns.starts_with(b"[").then_some(1) else {
        return &turns[..turns.len().min(PLAIN_TEXT)];
    };
    loop {
        let rest = &turns[at..];
        at += rest.iter().position(|b| !b.is_ascii_whitespace() && *b != b',').unwrap_or(rest.len());
        let mut read = serde_json::Deserializer::from_slice(&turns[at..]).into_iter::<Turn<'_>>();
        let Some(Ok(turn)) = read.next() else { return &turns[..at] };
        at += read.byte_offset();
        // Gemini leaves the user's role out where there is one turn.
        if turn.role.is_none_or(|role| role == "user") {
            return &turns[..at];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: &str = r#"{"role":"system","content":"Be brief."}, {"role":"user","content":"What is a [ { ?"}"#;

    fn of(body: &str) -> Option<Vec<u8>> {
        opening(body.as_bytes(), usize::MAX)
    }

    fn chat(turns: &str) -> Option<Vec<u8>> {
        of(&format!(r#"{{"model":"m","stream":true,"messages":[{turns}]}}"#))
    }

    #[test]
    fn a_conversation_keeps_its_opening_while_it_grows() {
        let first = chat(ASK);
        assert_eq!(first.as_deref(), Some(format!("[{ASK}").as_bytes()));
        assert_eq!(
            first,
            chat(&format!(r#"{ASK},{{"role":"assistant","content":"x"}},{{"role":"user","content":"y"}}"#))
        );
        assert_ne!(first, chat(&ASK.replace('?', "!")));
        assert_ne!(first, chat(&ASK.replace("brief", "long")));
        let anthropic = |more: &str| {
            of(&format!(r#"{{"system":"s","messages":[{{"role":"user","content":"q"}}{more}],"max_tokens":1}}"#))
        };
        assert_eq!(anthropic(""), anthropic(r#",{"role":"assistant","content":"a"}"#));
        assert!(anthropic("").unwrap().starts_with(b"\"s\"[{"));
        let responses = |more: &str| of(&format!(r#"{{"input":[{{"role":"user","content":"q"}}{more}]}}"#));
        assert_eq!(responses(""), responses(r#",{"type":"function_call"}"#));
        let gemini = |more: &str| of(&format!(r#"{{"contents":[{{"parts":[{{"text":"q"}}]}}{more}]}}"#));
        assert_eq!(gemini(""), gemini(r#",{"role":"model","parts":[]}"#));
        let text = |more: &str| of(&format!(r#"{{"prompt":"{}{more}"}}"#, "p".repeat(1024)));
        assert_eq!(text(""), text(" and more"));
    }

    #[test]
    fn what_the_caller_names_comes_first() {
        let named = |turns: &str| of(&format!(r#"{{"prompt_cache_key":"u1","messages":[{turns}]}}"#));
        assert_eq!(named(ASK).as_deref(), Some(&b"\"u1\""[..]));
        assert_eq!(named(ASK), named(""));
    }

    #[test]
    fn a_body_that_is_cut_off_has_the_opening_of_the_whole() {
        let whole =
            format!(r#"{{"model":"m","messages":[{ASK},{{"role":"assistant","content":"{}"}}]}}"#, "z".repeat(99));
        for end in whole.len() - 90..whole.len() {
            assert_eq!(of(&whole[..end]), of(&whole), "{end}");
        }
    }

    #[test]
    fn what_has_no_prompt_has_no_opening() {
        for body in ["", "{}", "[1]", "not json", r#"{"messages":null}"#, "{\"messages\"", r#"{"prompt":"#] {
            assert_eq!(of(body), None, "{body}");
        }
    }

    #[test]
    fn any_bytes_have_an_opening_within_the_limit_or_none() {
        let mut rng = fastrand::Rng::with_seed(11);
        let whole = format!(r#"{{"system":"s","messages":[{ASK}],"input":["#).into_bytes();
        for _ in 0..20_000 {
            let mut body = whole[..rng.usize(..=whole.len())].to_vec();
            for _ in 0..rng.usize(..4) {
                if let Some(byte) = rng.choice(0..body.len()).and_then(|at| body.get_mut(at)) {
                    *byte = rng.choose_multiple(br#"{}[]":,\ue0 "#.iter().copied(), 1)[0];
                }
            }
            let limit = rng.usize(..50);
            assert!(opening(&body, limit).is_none_or(|found| found.len() <= limit));
        }
    }
}
