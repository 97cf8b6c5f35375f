//! An OCSP responder's answer: whatever it is, it is read or refused, and nothing that is changed is believed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmproxy::tls::ocsp::Query;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;

const CHAIN: &[u8] = concat!(
    include_str!("../../tests/fixtures/ocsp/leaf.crt"),
    include_str!("../../tests/fixtures/ocsp/root.crt")
)
.as_bytes();
const GOOD: &[u8] = include_bytes!("../../tests/fixtures/ocsp/good.der");

fuzz_target!(|input: (u16, u8, &[u8])| {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(CHAIN).filter_map(Result::ok).collect();
    let Some(query) = Query::of(&chain) else { panic!("the chain is good") };
    // A moment at which the good answer is good.
    let Ok(now) = OffsetDateTime::from_unix_timestamp(1_795_290_000) else { return };
    let (at, flip, bytes) = input;
    let _ = query.read(bytes, now);
    let mut changed = GOOD.to_vec();
    let at = usize::from(at) % changed.len();
    changed[at] ^= flip;
    assert!(flip == 0 || query.read(&changed, now).is_err());
});
