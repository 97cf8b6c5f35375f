//! The verdict on an HTTP/2 connection's frames does not depend on how their bytes arrive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::server::h2_frames::{FrameWatch, Verdict};

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let refused = |size: usize| {
        let mut watch = FrameWatch::new(0);
        bytes.chunks(size).any(|piece| watch.feed(piece, 0) != Verdict::Fine)
    };
    assert_eq!(refused(usize::from(size).max(1)), refused(bytes.len().max(1)));
});
