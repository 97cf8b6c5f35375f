//! A stream cut anywhere gives the same events, and no byte of it is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::llm::sse::Decoder;

/// Data of the events that have some, and all bytes as they came.
fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut decoder = Decoder::new(1 << 20);
    let (mut data, mut raw) = (Vec::new(), Vec::new());
    let mut take = |event: llmproxy::llm::sse::Event| {
        raw.extend_from_slice(event.raw());
        data.extend(event.data().map(std::borrow::Cow::into_owned));
        let _ = (event.id(), event.name(), event.retry(), event.data_span());
    };
    for chunk in chunks {
        decoder.feed(bytes::Bytes::copy_from_slice(chunk));
        while let Some(Ok(event)) = decoder.next() {
            take(event);
        }
    }
    if let Some(event) = decoder.finish() {
        take(event);
    }
    (data, raw)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let cut = read(bytes.chunks(usize::from(size).max(1)));
    assert_eq!(cut, read(std::iter::once(bytes)));
    assert_eq!(cut.1, bytes);
});
