//! Counts of an answer do not depend on where it is cut, its parts are never larger than the whole, and what is hidden of a
//! stream is all that changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::llm::usage::hidden::Hider;
use llmproxy::llm::usage::{Answer, Endpoint, Framing, Prompt, Told, request};

fn read<'a>(framing: Framing, chunks: impl Iterator<Item = &'a [u8]>) -> (Told, u64, bool) {
    let mut answer = Answer::new(framing);
    chunks.for_each(|chunk| answer.feed(chunk));
    answer.end();
    (answer.told(), answer.text().bytes(), answer.is_finished())
}

fn hidden<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut hider, mut out) = (Hider::default(), Vec::new());
    for chunk in chunks {
        hider.feed(bytes::Bytes::copy_from_slice(chunk), |piece| out.extend_from_slice(&piece));
    }
    hider.end(|piece| out.extend_from_slice(&piece));
    out
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, body) = input;
    let size = usize::from(size).max(1);
    for framing in [Framing::Whole, Framing::Events, Framing::Lines] {
        let (told, text, finished) = read(framing, std::iter::once(body));
        assert_eq!(read(framing, body.chunks(size)), (told, text, finished));
        let tokens = told.tokens;
        assert!(tokens.cached + tokens.cache_write + tokens.cache_write_1h <= tokens.input);
        assert!(tokens.reasoning <= tokens.output && tokens.audio_output <= tokens.output);
        assert!(text <= body.len() as u64 * 4);
    }
    assert_eq!(hidden(body.chunks(size)), hidden(std::iter::once(body)));
    if !body.windows(7).any(|w| w == b"\"usage\"") {
        assert_eq!(hidden(std::iter::once(body)), body);
    }
    let _ = (request::read(body), Prompt::read(body, Endpoint::Chat).quick());
    if let Some(with) = request::with_usage(body) {
        assert!(with.len() > body.len() - 8 && request::with_usage(&with).is_none());
    }
});
