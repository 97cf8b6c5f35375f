//! A request head over HTTP/1 is refused or says in one way only how long the body behind it is.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use llmproxy::client::h1::head::Receiving;
use llmproxy::server::h1::request_head::parse;

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = parse(&Bytes::copy_from_slice(bytes)) else { return };
    let count = |name| head.parts.headers.get_all(name).iter().count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    assert!(lengths + codings <= 1);
    assert_eq!(head.body == Receiving::Chunked, codings == 1);
});
