//! What is told of a body without parsing it agrees with a parser that reads all of it; forms of any bytes are survived.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::llm::peek::{Flaw, top_level};
use llmproxy::llm::multipart;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let peeked = top_level(bytes, ["model"]);
    if let Ok([Some(range)]) = &peeked {
        assert!(range.end <= bytes.len());
    }
    if let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(bytes) {
        let named: Vec<&Value> =
            fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("model")).map(|(_, value)| value).collect();
        match peeked {
            // A name that comes twice is one field to the parser.
            Err(Flaw::Duplicate) => assert!(!named.is_empty()),
            Err(flaw) => panic!("{flaw:?} of a JSON object"),
            Ok([None]) => assert!(named.is_empty()),
            Ok([Some(range)]) => {
                let read: Value = serde_json::from_slice(&bytes[range]).expect("a value");
                assert_eq!(named, [&read]);
            }
        }
    }
    if let Ok(Some(range)) = multipart::part(bytes, "XX", "model") {
        assert!(range.start <= range.end && range.end <= bytes.len());
    }
});
