//! What more bytes say never changes a verdict on a PROXY header, and a header is never longer than its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::server::proxy_protocol::{Parsed, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    for end in 1..bytes.len().min(512) {
        let verdict = parse(&bytes[..end]);
        assert!(verdict == Parsed::Partial || verdict == whole);
    }
    if let Parsed::Header(length, _) = whole {
        assert!(length <= bytes.len());
        assert_eq!(parse(&bytes[..length]), whole);
    }
});
