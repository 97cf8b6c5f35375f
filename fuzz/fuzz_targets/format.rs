//! Formatting twice is formatting once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::syntax::format;

fuzz_target!(|text: &str| {
    let once = format(text);
    assert_eq!(format(&once), once);
});
