//! Any body has an opening within the limit, or none; finding it does not depend on the limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::llm::opening::opening;

fuzz_target!(|body: &[u8]| {
    let short = opening(body, 16);
    let long = opening(body, usize::MAX);
    assert_eq!(short.is_some(), long.is_some());
    if let (Some(short), Some(long)) = (short, long) {
        assert!(short.len() <= 16 && long.starts_with(&short));
    }
});
