//! The certificate authorities of this machine, loaded once. `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// The system's roots. An image without any (a bare container) gets the Mozilla roots this program was built with.
pub fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "reading the system's certificate authorities");
        }
        Arc::new(store_of(found.certs))
    }))
}

fn store_of(certs: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let (_, unusable) = store.add_parsable_certificates(certs);
    if unusable > 0 {
        tracing::debug!(unusable, "some of the system's certificate authorities cannot be used");
    }
    if store.is_empty() {
        tracing::warn!("this system has no certificate authorities; using the built-in Mozilla roots");
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_system_gets_the_built_in_roots() {
        assert_eq!(store_of(Vec::new()).len(), webpki_roots::TLS_SERVER_ROOTS.len());
    }
}
