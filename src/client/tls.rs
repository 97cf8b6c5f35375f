//! TLS towards upstreams: trust, client certificate, curves and ALPN become one shared rustls configuration.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use rustls::client::ResolvesClientCert;
use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::ConfigError;
use super::roots::system_roots;
use super::target::Versions;
use super::verify::{AcceptAny, TrustOnly};

#[derive(Clone, Debug, Default)]
pub struct TlsClientOptions {
    pub trust: Trust,
    /// Accept any certificate. Signatures of the handshake are still checked, as in Go.
    pub insecure_skip_verify: bool,
    pub identity: Option<ClientIdentity>,
    /// A client certificate looked up at each handshake, in the place of `identity`.
    pub looked_up: Option<LookedUp>,
    /// Key exchange groups in order of preference; empty takes the defaults.
    pub curves: Vec<Curve>,
}

#[derive(Clone, Debug, Default)]
pub enum Trust {
    #[default]
    System,
    /// These roots and no others.
    Only(Vec<RootSource>),
}

#[derive(Clone, Debug)]
pub enum RootSource {
    PemFile(PathBuf),
    Pem(Vec<u8>),
    Der(Vec<u8>),
}

/// A client certificate chain and its key, both PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    pub chain: Vec<u8>,
    pub key: Zeroizing<Vec<u8>>,
}

/// Where a client certificate is found that is renewed while the program runs.
#[derive(Clone, Debug)]
pub struct LookedUp {
    /// Which one: equal names find the same certificate.
    pub name: String,
    pub resolver: Arc<dyn ResolvesClientCert>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientIdentity(..)")
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Curve {
    X25519MlKem768,
    X25519,
    Secp256r1,
    Secp384r1,
}

impl Curve {
    /// Caddy's names. `None` for an unknown one, and for `secp521r1`, which the cryptography library lacks.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "x25519mlkem768" => Self::X25519MlKem768,
            "x25519" => Self::X25519,
            "secp256r1" => Self::Secp256r1,
            "secp384r1" => Self::Secp384r1,
            _ => return None,
        })
    }

    fn group(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519MlKem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            Self::X25519 => aws_lc_rs::kx_group::X25519,
            Self::Secp256r1 => aws_lc_rs::kx_group::SECP256R1,
            Self::Secp384r1 => aws_lc_rs::kx_group::SECP384R1,
        }
    }
}

/// A ready configuration. Two built from the same material are one, so TLS sessions and pools survive a reload.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    h1_config: Arc<ClientConfig>,
    digest: [u8; 32],
}

impl TlsClient {
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The same, offering HTTP/1.1 alone.
    pub(super) fn h1_config(&self) -> &Arc<ClientConfig> {
        &self.h1_config
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl TlsClientOptions {
    /// Reads the files named. `versions` decides what ALPN offers.
    pub fn build(&self, versions: Versions) -> Result<TlsClient, ConfigError> {
        let roots = self.read_roots()?;
        let digest = self.digest_with(roots.as_deref(), versions);
        let mut cache = cache();
        cache.retain(|_, weak| weak.strong_count() > 0);
        let config = match cache.get(&digest).and_then(Weak::upgrade) {
            Some(config) => config,
            None => Arc::new(self.config(roots, versions)?),
        };
        cache.insert(digest, Arc::downgrade(&config));
        let h1_config = if versions.h1 && versions.h2 {
            let mut only = (*config).clone(); // shares the session store
            only.alpn_protocols = alpn(Versions { h1: true, h2: false });
            Arc::new(only)
        } else {
            Arc::clone(&config)
        };
        Ok(TlsClient { config, h1_config, digest })
    }

    fn config(
        &self,
        roots: Option<Vec<CertificateDer<'static>>>,
        versions: Versions,
    ) -> Result<ClientConfig, ConfigError> {
        let mut provider = aws_lc_rs::default_provider();
        if !self.curves.is_empty() {
            provider.kx_groups = self.curves.iter().map(|c| c.group()).collect();
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| ConfigError(format!("TLS options cannot be used together: {e}")))?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny::new(&provider)))
        } else {
            match roots {
                None => builder.with_root_certificates(system_roots()),
                // An authority that has made no root yet: nobody is believed until it has.
                Some(certs) if certs.is_empty() => builder.with_root_certificates(RootCertStore::empty()),
                Some(certs) => {
                    let verifier = TrustOnly::new(certs, &provider)?;
                    builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
                }
            }
        };
        let mut config = match (&self.looked_up, &self.identity) {
            (Some(looked_up), _) => builder.with_client_cert_resolver(Arc::clone(&looked_up.resolver)),
            (None, None) => builder.with_no_client_auth(),
            (None, Some(identity)) => {
                let chain = certificates(&identity.chain, "the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key)
                    .map_err(|_| ConfigError("the client certificate's key is not a PEM private key".into()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| ConfigError(format!("the client certificate cannot be used: {e}")))?
            }
        };
        config.alpn_protocols = alpn(versions);
        Ok(config)
    }

    fn read_roots(&self) -> Result<Option<Vec<CertificateDer<'static>>>, ConfigError> {
        let Trust::Only(sources) = &self.trust else { return Ok(None) };
        let mut certs = Vec::new();
        for source in sources {
            match source {
                RootSource::Der(der) => certs.push(CertificateDer::from(der.clone())),
                RootSource::Pem(pem) => certs.extend(certificates(pem, "the trusted certificates")?),
                RootSource::PemFile(path) => {
                    let name = path.display().to_string();
                    let pem = std::fs::read(path).map_err(|e| ConfigError(format!("cannot read `{name}`: {e}")))?;
                    certs.extend(certificates(&pem, &format!("`{name}`"))?);
                }
            }
        }
        Ok(Some(certs))
    }

    fn digest_with(&self, roots: Option<&[CertificateDer<'_>]>, versions: Versions) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |label: &str, bytes: &[u8]| {
            hash.update(label.as_bytes());
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part("flags", &[u8::from(self.insecure_skip_verify), u8::from(versions.h1), u8::from(versions.h2)]);
        match roots {
            None => part("system", &[]),
            Some(certs) => certs.iter().for_each(|c| part("root", c)),
        }
        if let Some(identity) = &self.identity {
            part("chain", &identity.chain);
            part("key", &identity.key);
        }
        if let Some(looked_up) = &self.looked_up {
            part("looked up", looked_up.name.as_bytes());
        }
        for curve in &self.curves {
            part("curve", &[*curve as u8]);
        }
        hash.finalize().into()
    }
}

fn alpn(versions: Versions) -> Vec<Vec<u8>> {
    let mut protocols = Vec::new();
    if versions.h2 {
        protocols.push(b"h2".to_vec());
    }
    if versions.h1 {
        protocols.push(b"http/1.1".to_vec());
    }
    protocols
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let certs = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| ConfigError(format!("{what}: not valid PEM")))?;
    if certs.is_empty() {
        return Err(ConfigError(format!("{what}: no certificate found")));
    }
    Ok(certs)
}

fn cache() -> std::sync::MutexGuard<'static, HashMap<[u8; 32], Weak<ClientConfig>>> {
    static CACHE: LazyLock<Mutex<HashMap<[u8; 32], Weak<ClientConfig>>>> = LazyLock::new(Mutex::default);
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The configuration for an `https://` proxy: system roots, HTTP/1.1.
pub(super) fn for_proxy() -> Result<TlsClient, ConfigError> {
    TlsClientOptions::default().build(Versions { h1: true, h2: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn self_signed() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn the_same_material_is_one_configuration() {
        let (cert, key) = self_signed();
        let options = TlsClientOptions {
            trust: Trust::Only(vec![RootSource::Pem(cert.clone())]),
            identity: Some(ClientIdentity { chain: cert, key: key.into() }),
            curves: vec![Curve::X25519],
            insecure_skip_verify: false,
            looked_up: None,
        };
        let one = options.build(Versions::default()).unwrap();
        let two = options.clone().build(Versions::default()).unwrap();
        assert!(Arc::ptr_eq(one.config(), two.config()));
        let h1 = options.build(Versions { h1: true, h2: false }).unwrap();
        assert_ne!(one.digest(), h1.digest());
        assert_eq!(h1.config().alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn bad_material_is_named_and_not_shown() {
        let missing = TlsClientOptions {
            trust: Trust::Only(vec![RootSource::PemFile("/nowhere/ca.pem".into())]),
            ..Default::default()
        };
        assert!(missing.build(Versions::default()).unwrap_err().0.contains("/nowhere/ca.pem"));
        let (cert, _) = self_signed();
        let key = TlsClientOptions {
            identity: Some(ClientIdentity { chain: cert, key: b"s3cret".to_vec().into() }),
            ..Default::default()
        };
        let text = key.build(Versions::default()).unwrap_err().0;
        assert!(text.contains("key") && !text.contains("s3cret"), "{text}");
        let empty = TlsClientOptions { trust: Trust::Only(vec![RootSource::Pem(vec![])]), ..Default::default() };
        assert!(empty.build(Versions::default()).unwrap_err().0.contains("no certificate"));
    }

    #[test]
    fn curve_names_are_caddys() {
        assert_eq!(Curve::parse("x25519"), Some(Curve::X25519));
        assert_eq!(Curve::parse("secp521r1"), None);
    }
}
