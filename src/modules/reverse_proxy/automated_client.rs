//! `tls_client_auth NAME`: a certificate that is obtained and renewed as a site's is, shown to upstreams.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use crate::client::LookedUp;
use crate::tls::ManagedStore;

/// `None` for an empty name. The name is looked after because the configuration says it: see `compile::automation`.
pub fn of(name: &str) -> Option<LookedUp> {
    let name = name.to_ascii_lowercase();
    (!name.is_empty()).then(|| LookedUp { resolver: Arc::new(Automated { name: name.clone() }), name })
}

#[derive(Debug)]
struct Automated {
    name: String,
}

impl ResolvesClientCert for Automated {
    /// None until it was obtained: the upstream then decides what becomes of a client without one.
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        ManagedStore::shared().get(&self.name).filter(|found| found.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
