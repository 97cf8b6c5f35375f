//! The verdict on a connection's bytes does not depend on how they arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::server::framing::{FramingWatch, Verdict};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let ambiguous = |size: usize| {
        let mut watch = FramingWatch::default();
        bytes.chunks(size).any(|piece| watch.feed(piece) == Verdict::Ambiguous)
    };
    assert_eq!(ambiguous(usize::from(size).max(1)), ambiguous(bytes.len().max(1)));
});
