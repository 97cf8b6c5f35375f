//! Any bytes are a signing request or refused; one that is read has a key that can be signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::modules::acme_server::csr::Csr;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(csr) = Csr::read(bytes) {
        assert!(!csr.public_key.is_empty());
    }
});
