//! A request that is JSON goes up as JSON; an answer cut anywhere has at most one `[DONE]`, at its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::llm::cursor::request::convert;
use llmproxy::llm::cursor::stream::Stream;
use llmproxy::llm::cursor::{Options, Plan, Reasoning, answer};
use llmproxy::llm::model_glob::ModelGlobs;
use llmproxy::llm::sse::Decoder;
use serde::de::IgnoredAny;

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, bytes) = input;
    let reasoning = [Reasoning::Keep, Reasoning::Think, Reasoning::Hide][usize::from(choice % 3)];
    let options = Options { reasoning, suffixes: true, literal: ModelGlobs::default() };
    let is_json = |bytes: &[u8]| serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    if let Ok((Some(body), _)) = convert(bytes, &options)
        && is_json(bytes)
    {
        assert!(is_json(&body), "{}", String::from_utf8_lossy(&body));
    }
    let plan = Plan { reasoning, custom_tools: vec!["ApplyPatch".to_owned()] };
    if let Some(body) = answer::whole(bytes, &plan)
        && is_json(bytes)
    {
        assert!(is_json(&body), "{}", String::from_utf8_lossy(&body));
    }
    let (mut decoder, mut stream, mut out) = (Decoder::new(1 << 16), Stream::new(plan), Vec::new());
    for chunk in bytes.chunks(usize::from(choice).max(1)) {
        decoder.feed(bytes::Bytes::copy_from_slice(chunk));
        while let Some(Ok(event)) = decoder.next() {
            stream.event(event, |b| out.extend_from_slice(&b));
        }
    }
    if let Some(event) = decoder.finish() {
        stream.event(event, |b| out.extend_from_slice(&b));
    }
    stream.end(Err("cut"), |b| out.extend_from_slice(&b));
    let mut decoder = Decoder::new(1 << 20);
    decoder.feed(out.into());
    let mut done = false;
    while let Some(Ok(event)) = decoder.next() {
        assert!(!done, "an event behind [DONE]");
        done = event.data().is_some_and(|d| d.trim_ascii() == b"[DONE]");
    }
});
