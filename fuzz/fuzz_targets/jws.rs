//! Any bytes are a signed ACME request or refused; what is read is within what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::modules::acme_server::jws::Jws;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(jws) = Jws::read(bytes) {
        assert!(jws.message.len() < bytes.len() && jws.payload.len() < bytes.len());
    }
});
