//! Challenges that a CA may ask us about at this moment: over HTTP (RFC 8555 section 8.3) or in a TLS handshake (RFC 8737).
//! Those that it looks for in the DNS are set by [`super::dns`].
//!
//! They are also kept in the storage, as Caddy keeps them, so that any process on it can answer for the one that ordered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::AcmeError;
use crate::config::tls_types::AcmeIssuer;
use crate::storage::FileStorage;
use crate::storage::key::safe;
use crate::tls::subject::parse_ip;

/// The protocol name of a handshake that asks for a challenge.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    TlsAlpn,
    Dns,
}

impl Kind {
    /// The word of RFC 8555.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
            Self::Dns => "dns-01",
        }
    }

    #[must_use]
    pub fn is_enabled(self, issuer: &AcmeIssuer) -> bool {
        let Some(challenges) = &issuer.challenges else { return self != Self::Dns };
        let told = match self {
            Self::Http => &challenges.http,
            Self::TlsAlpn => &challenges.tls_alpn,
            Self::Dns => return challenges.dns.is_some(),
        };
        !told.as_ref().is_some_and(|c| c.disabled)
    }
}

/// One challenge, in the form in which Caddy keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub r#type: String,
    pub token: String,
    #[serde(rename = "keyAuthorization")]
    pub key_authorization: String,
    pub identifier: Identifier,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identifier {
    pub r#type: String,
    pub value: String,
}

/// What is being asked, by name.
#[derive(Debug, Default)]
pub struct Board {
    open: RwLock<HashMap<String, Vec<Challenge>>>,
    /// How many there are: requests look no further when there are none.
    count: AtomicUsize,
    /// Where other processes keep theirs: the storage and its issuers.
    shared: RwLock<Option<(FileStorage, Vec<String>)>>,
}

impl Board {
    /// The one of this process.
    #[must_use]
    pub fn shared() -> &'static Arc<Self> {
        static SHARED: OnceLock<Arc<Board>> = OnceLock::new();
        SHARED.get_or_init(Arc::default)
    }

    /// Looks into this storage, too, from now on: under these issuers.
    pub fn look_into(&self, storage: FileStorage, issuers: Vec<String>) {
        let place = (!issuers.is_empty()).then_some((storage, issuers));
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Answers a challenge until the guard is dropped.
    pub fn put(self: &Arc<Self>, challenge: Challenge, storage: &FileStorage, issuer_key: &str) -> Open {
        let name = challenge.identifier.value.to_ascii_lowercase();
        let key = kept_as(issuer_key, &name);
        let kept = serde_json::to_vec(&challenge).map_err(std::io::Error::from).and_then(|v| storage.store(&key, &v));
        if let Err(error) = kept {
            tracing::debug!(%error, "the challenge is not kept: other processes cannot answer it");
        }
        let token = challenge.token.clone();
        self.open.write().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().push(challenge);
        self.count.fetch_add(1, Ordering::Relaxed);
        Open { board: Arc::clone(self), name, token, storage: storage.clone(), key }
    }

    /// The answer to `GET /.well-known/acme-challenge/TOKEN` for a host.
    #[must_use]
    pub fn http_answer(&self, host: &str, path: &str) -> Option<String> {
        let token = path.strip_prefix("/.well-known/acme-challenge/")?;
        let found = self.find(host, |c| c.r#type == Kind::Http.name() && c.token == token)?;
        Some(found.key_authorization)
    }

    /// The TLS settings for a handshake that asks for a challenge of a name.
    #[must_use]
    pub fn tls_answer(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let found = self.find(name, |c| c.r#type == Kind::TlsAlpn.name())?;
        match tls_config(&found) {
            Ok(config) => Some(config),
            Err(error) => {
                tracing::error!(name, %error, "cannot answer a TLS-ALPN challenge");
                None
            }
        }
    }

    fn find(&self, name: &str, wanted: impl Fn(&Challenge) -> bool) -> Option<Challenge> {
        let name = name.to_ascii_lowercase();
        if self.count.load(Ordering::Relaxed) > 0 {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(found) = open.get(&name).and_then(|all| all.iter().rev().find(|c| wanted(c))) {
                return Some(found.clone());
            }
        }
        let (storage, issuers) = self.shared.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        issuers.iter().find_map(|issuer| {
            let value = storage.load(&kept_as(issuer, &name)).ok()??;
            serde_json::from_slice::<Challenge>(&value).ok().filter(&wanted)
        })
    }
}

fn kept_as(issuer_key: &str, name: &str) -> String {
    format!("acme/{issuer_key}/challenge_tokens/{}.json", safe(name))
}

/// A challenge being answered; no longer once dropped.
#[derive(Debug)]
pub struct Open {
    board: Arc<Board>,
    name: String,
    token: String,
    storage: FileStorage,
    key: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.board.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = open.get_mut(&self.name) {
            all.retain(|c| c.token != self.token);
            if all.is_empty() {
                open.remove(&self.name);
            }
        }
        self.board.count.fetch_sub(1, Ordering::Relaxed);
        let _ = self.storage.delete(&self.key);
    }
}

/// A certificate of its own making with the digest of the key authorisation (RFC 8737 section 3), and nothing but the
/// challenge's protocol.
fn tls_config(challenge: &Challenge) -> Result<Arc<ServerConfig>, AcmeError> {
    let failed = |e: String| AcmeError::new("the challenge certificate", e);
    let name = &challenge.identifier.value;
    let key = KeyPair::generate().map_err(|e| failed(e.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![match parse_ip(name) {
        Some(ip) => SanType::IpAddress(ip),
        None => SanType::DnsName(name.as_str().try_into().map_err(|e: rcgen::Error| failed(e.to_string()))?),
    }];
    let digest = Sha256::digest(challenge.key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let certificate = params.self_signed(&key).map_err(|e| failed(e.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|e| failed(e.to_string()))?;
    // Not verified against its key as usual: the critical extension is not known there.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(kind: Kind, name: &str, token: &str) -> Challenge {
        Challenge {
            r#type: kind.name().into(),
            token: token.into(),
            key_authorization: format!("{token}.thumb"),
            identifier: Identifier { r#type: "dns".into(), value: name.into() },
        }
    }

    #[test]
    fn a_challenge_is_answered_for_its_name_and_token_while_it_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(folder.path());
        let board = Arc::new(Board::default());
        let path = "/.well-known/acme-challenge/t1";
        let open = board.put(challenge(Kind::Http, "A.test", "t1"), &storage, "ca");
        assert_eq!(board.http_answer("a.TEST", path).as_deref(), Some("t1.thumb"));
        assert_eq!(board.http_answer("b.test", path), None);
        assert_eq!(board.http_answer("a.test", "/.well-known/acme-challenge/t2"), None);
        assert!(board.tls_answer("a.test").is_none());

        // Another process on the same storage answers too.
        let other = Board::default();
        assert_eq!(other.http_answer("a.test", path), None);
        other.look_into(storage.clone(), vec!["ca".into()]);
        assert_eq!(other.http_answer("a.test", path).as_deref(), Some("t1.thumb"));
        drop(open);
        assert_eq!(board.http_answer("a.test", path), None);
        assert_eq!(other.http_answer("a.test", path), None);
    }

    #[test]
    fn a_handshake_for_a_challenge_speaks_its_protocol_alone() {
        let folder = tempfile::tempdir().unwrap();
        let board = Arc::new(Board::default());
        let _open = board.put(challenge(Kind::TlsAlpn, "a.test", "t1"), &FileStorage::new(folder.path()), "ca");
        assert_eq!(board.tls_answer("a.test").unwrap().alpn_protocols, [ACME_TLS.to_vec()]);
    }
}
