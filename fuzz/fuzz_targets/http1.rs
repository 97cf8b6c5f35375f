//! What an upstream sends never panics, and a body reads the same however it is cut.
#![no_main]

use bytes::Bytes;
use http::Method;
use libfuzzer_sys::fuzz_target;
use llmproxy::client::h1::chunked::{Chunked, Step};
use llmproxy::client::h1::head;

fn content(parts: &[&[u8]]) -> Result<(Vec<u8>, bool), &'static str> {
    let (mut chunked, mut out) = (Chunked::default(), Vec::new());
    for part in parts {
        let mut at = 0;
        loop {
            match chunked.step(part, &mut at)? {
                Step::Data(range) => out.extend_from_slice(&part[range]),
                Step::More => break,
                Step::End => return chunked.trailers().map(|_| (out, true)),
            }
        }
    }
    Ok((out, false))
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    if let Some(end) = head::end(bytes, 0) {
        if let Ok(mut parsed) = head::parse(&Bytes::copy_from_slice(&bytes[..end])) {
            let _ = head::Receiving::of(&mut parsed, &Method::GET);
        }
    }
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(content(&[bytes]), content(&[first, second]));
});
